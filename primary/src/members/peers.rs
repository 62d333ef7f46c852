//! Asking other nodes of the cell: JSON over HTTP, with the cluster secret, and under a [`Guard`] both ways. A URL or an
//! incarnation that was damaged would stay in the membership.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Method, Response, request};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tidemark_net::Connector;
use tidemark_protocol::NodeId;
use tidemark_protocol::cell::{
    CELL_PATH, CellIntroduction, CellRefusal, CellRefusalCode, JOIN_PATH, JoinAnswer, JoinRequest,
};
use tidemark_protocol::guard::{BodyCrc, Damaged, Guard, body_crc};
use tidemark_protocol::headers::{GUARD, LEADER};

use crate::peer_http::PeerClient;

/// Time for a node to introduce itself.
const INTRODUCTION_WAIT: Duration = Duration::from_secs(2);
/// Time for a leader to do something about a join. Longer than it takes on itself.
const JOIN_WAIT: Duration = Duration::from_secs(20);
/// Largest answer: a few members.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The way to other nodes.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    client: PeerClient,
    via: HashMap<NodeId, String>,
}

/// Another node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// It was not reached, or answers as no node of a cell does.
    #[error("{url}: {reason}")]
    Silent { url: String, reason: String },
    /// It refuses; perhaps it knows who leads.
    #[error("{url}: {refusal}")]
    Refused {
        url: String,
        refusal: CellRefusal,
        leader: Option<String>,
    },
}

impl Peers {
    /// With this cluster secret, and these detours. `None` if the secret cannot be sent in a header.
    pub(super) fn new(
        secret: &str,
        via: HashMap<NodeId, String>,
        connector: &Arc<dyn Connector>,
    ) -> Option<Self> {
        // Asked rarely: a kept connection would mostly be one that the other end has closed.
        let client = PeerClient::new(secret, connector, 0)?;
        Some(Self { client, via })
    }

    /// Where `node` is reached from here.
    pub(super) fn way<'a>(&'a self, node: NodeId, url: &'a str) -> &'a str {
        self.via.get(&node).map_or(url, String::as_str)
    }

    /// Has a node tell of itself.
    pub(super) async fn introduction(&self, url: &str) -> Result<CellIntroduction, PeerError> {
        let request = self.client.request(Method::GET, &at(url, CELL_PATH));
        self.exchange(url, request, Bytes::new(), INTRODUCTION_WAIT)
            .await
    }

    /// Asks for a vote.
    pub(super) async fn join(
        &self,
        url: &str,
        join: &JoinRequest,
    ) -> Result<JoinAnswer, PeerError> {
        let json = HeaderValue::from_static("application/json");
        let request = self.client.request(Method::POST, &at(url, JOIN_PATH));
        let request = request.header(CONTENT_TYPE, json);
        let body = serde_json::to_vec(join).expect("plain fields");
        self.exchange(url, request, body.into(), JOIN_WAIT).await
    }

    async fn exchange<A: DeserializeOwned>(
        &self,
        url: &str,
        request: request::Builder,
        body: Bytes,
        within: Duration,
    ) -> Result<A, PeerError> {
        let silent = |reason: String| PeerError::Silent {
            url: url.to_owned(),
            reason,
        };
        let request = guarded(request, &body);
        let answer = self
            .client
            .exchange(request, body, within, ANSWER_BYTES_MAX);
        let response = answer.await.map_err(|error| silent(error.to_string()))?;
        check(&response).map_err(|damaged| silent(damaged.to_string()))?;
        let status = response.status();
        let leader = response.headers().get(LEADER);
        let leader = leader
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = response.into_body();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| silent(error.to_string()));
        }
        match serde_json::from_slice::<CellRefusal>(&body) {
            Ok(refusal) => Err(PeerError::Refused {
                url: url.to_owned(),
                refusal,
                leader,
            }),
            // Something else listens there, or an older version.
            Err(_) => Err(silent(format!("it answered {status}"))),
        }
    }
}

impl PeerError {
    /// Whether asking again can help.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Refused { refusal, .. } => refusal.code.retryable(),
        }
    }

    /// Whether the two do not share the cluster secret.
    pub(super) fn stranger(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.code == CellRefusalCode::Unauthenticated)
    }
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let pairs = headers.iter();
    pairs.map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Puts a request under a guard. It has no query.
fn guarded(request: request::Builder, body: &Bytes) -> request::Builder {
    let (Some(method), Some(url)) = (request.method_ref(), request.uri_ref()) else {
        // The URL is none, which is told when it is sent.
        return request;
    };
    let words = [method.as_str(), url.path()];
    let headers = request.headers_ref().into_iter().flat_map(pairs);
    let guard = Guard::of(&words, headers, Some(body_crc([&body[..]])));
    request.header(GUARD, guard.to_string())
}

/// Whether an answer is what was sent. One that has no guard passes: something else listens there, or what was damaged
/// is the name of that header.
fn check(response: &Response<Bytes>) -> Result<(), Damaged> {
    let Some(text) = response.headers().get(GUARD) else {
        return Ok(());
    };
    let guard: Guard = text.to_str().map_err(|_| Damaged::Missing)?.parse()?;
    let status = response.status();
    let Some(expected) = guard.check_head(&[status.as_str()], pairs(response.headers()))? else {
        return Ok(());
    };
    let mut crc = BodyCrc::default();
    crc.update(response.body());
    crc.check(expected)
}

fn at(url: &str, path: &str) -> String {
    format!("{}{path}", url.trim_end_matches('/'))
}
