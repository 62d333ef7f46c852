//! How voters reach each other: their messages as HTTP requests on kept connections.
//!
//! `POST /tidemark/v1/raft` takes one message and answers one. The request names the voter it is meant for
//! and which incarnation of it, and carries the cluster secret. Connections are kept and made anew by the HTTP
//! client; a voter that cannot be reached is logged when that begins and when it ends, not at every try.
//!
//! Appends have a connection of their own, `GET /tidemark/v1/raft/append`: see [`crate::append_socket`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, request};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tidemark_net::Connector;
use tidemark_protocol::NodeId;
use tokio::time::timeout;

use crate::append_socket;
use crate::consensus::{Channel, Member, Transport, TransportError};
use crate::peer_http::{PeerClient, shown};

/// Where voters talk to each other.
pub const RAFT_PATH: &str = "/tidemark/v1/raft";
/// Header that names the voter a message is meant for.
pub(crate) const VOTER: &str = "tidemark-voter";
/// Header that names its incarnation, as the sender's membership has it.
pub(crate) const INCARNATION: &str = "tidemark-incarnation";
/// Largest message: one entry of the log, or several small ones, or a manifest, and what is around them.
pub(crate) const MESSAGE_BYTES_MAX: usize = (64 << 20) + (8 << 20);
/// Largest answer. All are a few dozen bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Kept connections per voter. Appends, heartbeats and votes may be on their way at once.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// Voters' messages over HTTP.
#[derive(Debug)]
pub(crate) struct HttpTransport {
    client: PeerClient,
    connector: Arc<dyn Connector>,
    /// The cluster secret, for what is no request of `client`.
    shown: HeaderMap,
    /// Ways to voters other than the address that the cell knows.
    via: HashMap<NodeId, String>,
    lost: Arc<Lost>,
}

/// Voters that were not reached at the last try.
#[derive(Debug, Default)]
struct Lost(Mutex<HashSet<NodeId>>);

impl HttpTransport {
    /// With this cluster secret, or with none if it is empty, and by these ways where the address that the
    /// cell knows does not lead from here. `None` if the secret cannot be sent in a header.
    pub(crate) fn new(
        secret: &str,
        via: HashMap<NodeId, String>,
        connector: Arc<dyn Connector>,
    ) -> Option<Self> {
        Some(Self {
            client: PeerClient::new(secret, &connector, IDLE_CONNECTIONS_MAX)?,
            connector,
            shown: shown(secret)?,
            via,
            lost: Arc::default(),
        })
    }
}

impl HttpTransport {
    /// Base URL by which the voter is reached from here.
    fn way(&self, node: NodeId, member: &Member) -> String {
        let address = self.via.get(&node).unwrap_or(&member.address);
        address.trim_end_matches('/').to_owned()
    }

    /// Who this is meant for.
    fn headers(node: NodeId, member: &Member) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let meant = HeaderValue::try_from(node.to_string()).expect("hexadecimal digits");
        headers.insert(VOTER, meant);
        let incarnation = HeaderValue::try_from(member.incarnation.to_string());
        headers.insert(INCARNATION, incarnation.expect("hexadecimal digits"));
        headers
    }
}

impl Transport for HttpTransport {
    fn open(
        &self,
        node: NodeId,
        member: &Member,
        within: Duration,
    ) -> BoxFuture<'static, Result<Channel, TransportError>> {
        let (way, mut headers) = (self.way(node, member), Self::headers(node, member));
        headers.extend(self.shown.clone());
        let connector = Arc::clone(&self.connector);
        let lost = Arc::clone(&self.lost);
        let address = member.address.clone();
        Box::pin(async move {
            let opened = timeout(within, append_socket::open(&*connector, &way, headers)).await;
            let opened = opened.unwrap_or_else(|late| Err(late.to_string()));
            let opened = opened.map_err(|reason| TransportError {
                node,
                address,
                reason,
            });
            lost.note(node, opened.as_ref().err());
            opened
        })
    }

    fn call(
        &self,
        node: NodeId,
        member: &Member,
        request: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let url = format!("{}{RAFT_PATH}", self.way(node, member));
        let client = self.client.clone();
        let mut head = client.request(Method::POST, &url);
        if let Some(headers) = head.headers_mut() {
            headers.extend(Self::headers(node, member));
        }
        let lost = Arc::clone(&self.lost);
        let address = member.address.clone();
        Box::pin(async move {
            let answer = exchange(&client, head, request, within).await;
            let answer = answer.map_err(|reason| TransportError {
                node,
                address,
                reason,
            });
            lost.note(node, answer.as_ref().err());
            answer
        })
    }
}

async fn exchange(
    client: &PeerClient,
    head: request::Builder,
    body: Bytes,
    within: Duration,
) -> Result<Bytes, String> {
    let answer = client.exchange(head, body, within, ANSWER_BYTES_MAX).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.into_body();
    if status.is_success() {
        Ok(body)
    } else {
        Err(format!(
            "it answered {status}: {}",
            String::from_utf8_lossy(&body)
        ))
    }
}

impl Lost {
    fn note(&self, node: NodeId, error: Option<&TransportError>) {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) if lost.insert(node) => tracing::warn!(%error, "a voter is lost"),
            None if lost.remove(&node) => tracing::info!(voter = %node, "a voter is back"),
            Some(_) | None => {}
        }
    }
}
