//! How voters of the cell reach each other.
//!
//! openraft asks for a client per peer; a [`Transport`] carries its messages as bytes, and the peer passes
//! them to [`super::Consensus::answer`].
//!
//! One append is on its way per follower. Overlapping them is the transport's to add, with
//! `stream_append`, once a cell's network is slower than its disks.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tidemark_protocol::NodeId;
use tokio::time::timeout;

use super::Member;
use super::cell::{Cell, CellSnapshot, CellVote};
use super::wire::{Answer, Request};

/// Time for entries to be sent, flushed and answered: a follower's disk may hesitate for longer than a
/// heartbeat takes, and sending the same again would not help it.
const APPEND_WAIT: Duration = Duration::from_secs(2);
/// Slowest network between voters for which large transactions are provided, in bytes a millisecond.
const BYTES_PER_MS_MIN: usize = 8 << 10;

/// Carries messages to the other voters of the cell.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Delivers `request` to the voter `node`, to this incarnation of it and no other, and brings its answer.
    fn call(
        &self,
        node: NodeId,
        member: &Member,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// A voter was not reached, or did not answer in time. It may have acted on the message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("voter {node} at '{address}' is not reached: {reason}")]
pub(crate) struct TransportError {
    /// The voter.
    pub(crate) node: NodeId,
    /// Where it was looked for.
    pub(crate) address: String,
    /// Why.
    pub(crate) reason: String,
}

/// Reaches nobody.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoTransport;

#[cfg(test)]
impl Transport for NoTransport {
    fn call(
        &self,
        node: NodeId,
        member: &Member,
        _request: Bytes,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let reason = "this node has no transport".to_owned();
        let error = TransportError {
            node,
            address: member.address.clone(),
            reason,
        };
        Box::pin(std::future::ready(Err(error)))
    }
}

/// Makes a client per peer.
#[derive(Clone)]
pub(super) struct Network {
    transport: Arc<dyn Transport>,
}

/// A client of one peer.
pub(super) struct Peer {
    transport: Arc<dyn Transport>,
    node: NodeId,
    member: Member,
}

impl Network {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }
}

impl Peer {
    async fn ask(&self, request: &Request, option: &RPCOption) -> Result<Answer, RPCError<Cell>> {
        // A backoff follows: nothing here gets better by asking again at once.
        let unreachable = |error: &dyn fmt::Display| {
            RPCError::Unreachable(Unreachable::from_string(format!("{self:?}: {error}")))
        };
        let bytes = request.encode().map_err(|error| unreachable(&error))?;
        let within = match request {
            Request::Append(append) if !append.entries.is_empty() => {
                let sending_ms = u64::try_from(bytes.len() / BYTES_PER_MS_MIN).unwrap_or(u64::MAX);
                APPEND_WAIT.saturating_add(Duration::from_millis(sending_ms))
            }
            Request::Append(_) | Request::Vote(_) | Request::PreVote(_) => option.hard_ttl(),
        };
        let call = self.transport.call(self.node, &self.member, bytes, within);
        let answer = timeout(within, call)
            .await
            .map_err(|error| unreachable(&error))?;
        let answer = answer.map_err(|error| unreachable(&error))?;
        Answer::decode(&answer).map_err(|error| unreachable(&error))
    }

    fn confused<T>(&self) -> Result<T, RPCError<Cell>> {
        let reason = format!("{self:?} answered another question");
        Err(Unreachable::from_string(reason).into())
    }

    async fn ask_vote(
        &self,
        request: Request,
        option: &RPCOption,
    ) -> Result<VoteResponse<Cell>, RPCError<Cell>> {
        match self.ask(&request, option).await? {
            Answer::Vote(answer) => Ok(answer),
            Answer::Append(_) => self.confused(),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            member,
            transport: _,
        } = self;
        write!(f, "Peer({node} at {})", member.address)
    }
}

impl RaftNetworkFactory<Cell> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        let transport = self.transport.clone();
        Peer {
            transport,
            node: NodeId(target),
            member: member.clone(),
        }
    }
}

impl RaftNetworkV2<Cell> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Cell>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Cell>, RPCError<Cell>> {
        match self.ask(&Request::Append(request), &option).await? {
            Answer::Append(answer) => Ok(answer),
            Answer::Vote(_) => self.confused(),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Cell>,
        option: RPCOption,
    ) -> Result<VoteResponse<Cell>, RPCError<Cell>> {
        self.ask_vote(Request::Vote(request), &option).await
    }

    // The default would count as a vote granted.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Cell>,
        option: RPCOption,
    ) -> Result<VoteResponse<Cell>, RPCError<Cell>> {
        self.ask_vote(Request::PreVote(request), &option).await
    }

    /// A voter that the log no longer reaches needs whole databases, which do not travel here.
    async fn full_snapshot(
        &mut self,
        _vote: CellVote,
        _snapshot: CellSnapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Cell>, StreamingError<Cell>> {
        let reason = format!("{self:?} is behind the log, and snapshots are not sent");
        Err(Unreachable::from_string(reason).into())
    }
}
