//! Asking other nodes of the cell: JSON over HTTP, with the cluster secret.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemark_protocol::NodeId;
use tidemark_protocol::cell::{
    CELL_PATH, CellIntroduction, CellRefusal, CellRefusalCode, JOIN_PATH, JoinAnswer, JoinRequest,
};
use tidemark_protocol::headers::LEADER;

use crate::peer_http::{self, BodyError, chain, read_body};

/// Time for a node to introduce itself.
const INTRODUCTION_WAIT: Duration = Duration::from_secs(2);
/// Time for a leader to do something about a join. Longer than it takes on itself.
const JOIN_WAIT: Duration = Duration::from_secs(20);
/// Largest answer: a few members.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The way to other nodes.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    client: reqwest::Client,
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
    pub(super) fn new(secret: &str, via: HashMap<NodeId, String>) -> Option<Self> {
        let client = peer_http::client(secret)?
            // Asked rarely: a kept connection would mostly be one that the other end has closed.
            .pool_max_idle_per_host(0)
            .build()
            .expect("no option of this client can be wrong");
        Some(Self { client, via })
    }

    /// Where `node` is reached from here.
    pub(super) fn way<'a>(&'a self, node: NodeId, url: &'a str) -> &'a str {
        self.via.get(&node).map_or(url, String::as_str)
    }

    /// Has a node tell of itself.
    pub(super) async fn introduction(&self, url: &str) -> Result<CellIntroduction, PeerError> {
        let request = self.client.get(at(url, CELL_PATH));
        self.exchange(url, request.timeout(INTRODUCTION_WAIT)).await
    }

    /// Asks for a vote.
    pub(super) async fn join(
        &self,
        url: &str,
        join: &JoinRequest,
    ) -> Result<JoinAnswer, PeerError> {
        let request = self.client.post(at(url, JOIN_PATH)).timeout(JOIN_WAIT);
        self.exchange(url, with_body(request, join)).await
    }

    async fn exchange<A: DeserializeOwned>(
        &self,
        url: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<A, PeerError> {
        let silent = |reason: String| PeerError::Silent {
            url: url.to_owned(),
            reason,
        };
        let sent = request.send().await;
        let mut response = sent.map_err(|error| silent(chain(&error)))?;
        let status = response.status();
        let leader = response.headers().get(LEADER);
        let leader = leader
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = read_body(&mut response, ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error: BodyError| silent(error.to_string()))?;
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

fn at(url: &str, path: &str) -> String {
    format!("{}{path}", url.trim_end_matches('/'))
}

fn with_body(request: reqwest::RequestBuilder, body: &impl Serialize) -> reqwest::RequestBuilder {
    let body = serde_json::to_vec(body).expect("plain fields");
    request.header(CONTENT_TYPE, "application/json").body(body)
}
