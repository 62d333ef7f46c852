//! How voters of the cell reach each other.
//!
//! openraft asks for a client per peer; a [`Transport`] carries its messages as bytes, and the peer passes
//! them to [`super::Consensus::answer`].
//!
//! Appends go over a connection of their own, see [`super::appending`]; everything else as single requests.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tidemark_protocol::NodeId;
use tokio::time::{sleep, timeout};

use super::Member;
use super::appending::{Channel, Session};
use super::cell::{Cell, CellSnapshot, CellVote, LogId};
use super::snapshot::{Content, Receipt};
use super::wire::{Answer, Request};

/// Time for entries to be sent, flushed and answered: a follower's disk may hesitate for longer than a
/// heartbeat takes, and sending the same again would not help it.
pub(super) const APPEND_WAIT: Duration = Duration::from_secs(2);
/// Slowest network between voters for which large transactions are provided, in bytes a millisecond.
const BYTES_PER_MS_MIN: usize = 8 << 10;
/// Pause before the first question whether a state is installed. Later ones double it,
const SNAPSHOT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// up to this.
const SNAPSHOT_PAUSE_MAX: Duration = Duration::from_millis(500);

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

    /// Opens a connection for appends to the voter `node`, to this incarnation of it and no other.
    fn open(
        &self,
        node: NodeId,
        member: &Member,
        within: Duration,
    ) -> BoxFuture<'static, Result<Channel, TransportError>>;
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
        Box::pin(std::future::ready(Err(Self::error(node, member))))
    }

    fn open(
        &self,
        node: NodeId,
        member: &Member,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Channel, TransportError>> {
        Box::pin(std::future::ready(Err(Self::error(node, member))))
    }
}

#[cfg(test)]
impl NoTransport {
    fn error(node: NodeId, member: &Member) -> TransportError {
        let reason = "this node has no transport".to_owned();
        TransportError {
            node,
            address: member.address.clone(),
            reason,
        }
    }
}

type Appends<'a> = BoxStream<'a, Result<StreamAppendResult<Cell>, RPCError<Cell>>>;

/// Makes a client per peer.
#[derive(Clone)]
pub(super) struct Network {
    transport: Arc<dyn Transport>,
    purging: Purging,
}

/// The last entry that this node wants out of its log.
///
/// openraft does not purge what a follower is being sent, and a follower that is slow and alive is sent
/// something all the time: its appends end here, so that the log can be cut and it gets a snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Purging(Arc<AtomicU64>);

/// A client of one peer.
pub(super) struct Peer {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) node: NodeId,
    pub(super) member: Member,
    pub(super) purging: Purging,
    /// Left by the last session of appends that ended in order.
    pub(super) channel: Option<Channel>,
}

impl Network {
    pub(super) fn new(transport: Arc<dyn Transport>, purging: Purging) -> Self {
        Self { transport, purging }
    }
}

impl Purging {
    pub(super) fn begin(&self, upto: u64) {
        self.0.fetch_max(upto, Ordering::AcqRel);
    }

    /// Whether appends that follow `before` need what is to go.
    pub(super) fn takes(&self, before: Option<LogId>) -> bool {
        before.map_or(0, |before| before.index) < self.0.load(Ordering::Acquire)
    }
}

impl Peer {
    async fn ask(&self, request: &Request, option: &RPCOption) -> Result<Answer, RPCError<Cell>> {
        let bytes = request.encode().map_err(|error| self.unreachable(&error))?;
        let within = match request {
            Request::Append(append) if !append.entries.is_empty() => sending(bytes.len()),
            Request::Snapshot { .. } => sending(bytes.len()),
            Request::Append(_) | Request::Vote(_) | Request::PreVote(_) | Request::Transfer(_) => {
                option.hard_ttl()
            }
        };
        Ok(self.exchange(bytes, within).await?)
    }

    async fn exchange(&self, bytes: Bytes, within: Duration) -> Result<Answer, Unreachable<Cell>> {
        let unreachable = |error: &dyn fmt::Display| self.unreachable(error);
        let call = self.transport.call(self.node, &self.member, bytes, within);
        let answer = timeout(within, call)
            .await
            .map_err(|error| unreachable(&error))?;
        let answer = answer.map_err(|error| unreachable(&error))?;
        Answer::decode(&answer).map_err(|error| unreachable(&error))
    }

    /// A backoff follows: nothing here gets better by asking again at once.
    pub(super) fn unreachable(&self, reason: &dyn fmt::Display) -> Unreachable<Cell> {
        Unreachable::from_string(format!("{self:?}: {reason}"))
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
            Answer::Append(_) | Answer::Snapshot(_) | Answer::Transfer { .. } => self.confused(),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            member,
            transport: _,
            purging: _,
            channel: _,
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
            purging: self.purging.clone(),
            channel: None,
        }
    }
}

impl RaftNetworkV2<Cell> for Peer {
    type SnapshotData = Content;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Cell>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Cell>, RPCError<Cell>> {
        match self.ask(&Request::Append(request), &option).await? {
            Answer::Append(answer) => Ok(answer),
            Answer::Vote(_) | Answer::Snapshot(_) | Answer::Transfer { .. } => self.confused(),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<Appends<'s>, RPCError<Cell>>>
    where
        S: Stream<Item = AppendEntriesRequest<Cell>> + OptionalSend + Unpin + 'static,
    {
        let answers = Session::new(self, input).answers();
        let answers: Appends<'s> = Box::pin(answers);
        Box::pin(std::future::ready(Ok(answers)))
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

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Cell>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Cell>, RPCError<Cell>> {
        match self.ask(&Request::Transfer(request), &option).await? {
            Answer::Transfer { accepted: true } => Ok(Ok(())),
            Answer::Transfer { accepted: false } => {
                Err(self.unreachable(&"it will not lead now").into())
            }
            Answer::Append(_) | Answer::Vote(_) | Answer::Snapshot(_) => self.confused(),
        }
    }

    /// Asks until the peer has taken over the state, or could not. Each question has a deadline, the peer
    /// ends what makes no progress, and openraft cancels when it has another use for the peer.
    async fn full_snapshot(
        &mut self,
        vote: CellVote,
        snapshot: CellSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Cell>, StreamingError<Cell>> {
        if snapshot.snapshot.source.is_empty() {
            return Err(self
                .unreachable(&"this node's own address is not known")
                .into());
        }
        let request = Request::Snapshot { vote, snapshot };
        let request = request.encode().map_err(|error| self.unreachable(&error))?;
        let mut cancel = pin!(cancel);
        let mut pause = SNAPSHOT_PAUSE_MIN;
        loop {
            let ask = self.exchange(request.clone(), sending(request.len()));
            let answer = tokio::select! {
                closed = &mut cancel => return Err(closed.into()),
                answer = ask => answer?,
            };
            match answer {
                Answer::Snapshot(Receipt::Installed { vote }) => {
                    return Ok(SnapshotResponse { vote });
                }
                Answer::Snapshot(Receipt::Installing) => {}
                Answer::Snapshot(Receipt::Failed) => {
                    return Err(self.unreachable(&"it did not get hold of the state").into());
                }
                Answer::Append(_) | Answer::Vote(_) | Answer::Transfer { .. } => {
                    return Err(self.unreachable(&"it answered another question").into());
                }
            }
            tokio::select! {
                closed = &mut cancel => return Err(closed.into()),
                () = sleep(pause) => pause = (pause * 2).min(SNAPSHOT_PAUSE_MAX),
            }
        }
    }
}

/// Time for so many bytes to be sent, dealt with and answered.
pub(super) fn sending(bytes: usize) -> Duration {
    let sending_ms = u64::try_from(bytes / BYTES_PER_MS_MIN).unwrap_or(u64::MAX);
    APPEND_WAIT.saturating_add(Duration::from_millis(sending_ms))
}
