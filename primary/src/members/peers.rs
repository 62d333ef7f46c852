//! Asking other nodes of the cell: JSON over HTTP, with the cluster secret, and under a [`Guard`] both ways. A URL or an
//! incarnation that was damaged would stay in the membership.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemark_protocol::NodeId;
use tidemark_protocol::cell::{
    CELL_PATH, CellIntroduction, CellRefusal, CellRefusalCode, JOIN_PATH, JoinAnswer, JoinRequest,
};
use tidemark_protocol::guard::{BodyCrc, Damaged, Guard, body_crc};
use tidemark_protocol::headers::{GUARD, LEADER};

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
    /// The cluster secret, which is under the guard too.
    shown: HeaderMap,
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
        let shown = peer_http::shown(secret)?;
        Some(Self { client, shown, via })
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
        let request = request.headers(self.shown.clone()).build();
        let request = guarded(request.map_err(|error| silent(chain(&error)))?);
        let sent = self.client.execute(request).await;
        let mut response = sent.map_err(|error| silent(chain(&error)))?;
        let status = response.status();
        let body_crc = checked_head(&response).map_err(|damaged| silent(damaged.to_string()))?;
        let leader = response.headers().get(LEADER);
        let leader = leader
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = read_body(&mut response, ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error: BodyError| silent(error.to_string()))?;
        if let Some(expected) = body_crc {
            let mut crc = BodyCrc::default();
            crc.update(&body);
            let sound = crc.check(expected);
            sound.map_err(|damaged| silent(damaged.to_string()))?;
        }
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
fn guarded(mut request: reqwest::Request) -> reqwest::Request {
    let body = request.body().and_then(reqwest::Body::as_bytes);
    let body = body_crc([body.unwrap_or_default()]);
    let words = [request.method().as_str(), request.url().path()];
    let guard = Guard::of(&words, pairs(request.headers()), Some(body));
    let text = HeaderValue::try_from(guard.to_string()).expect("hex digits and a dash");
    request.headers_mut().insert(GUARD, text);
    request
}

/// The CRC that the body of an answer must have, whose head is sound. None of one that has no guard: something else
/// listens there, or what was damaged is the name of that header.
fn checked_head(response: &reqwest::Response) -> Result<Option<u32>, Damaged> {
    let Some(text) = response.headers().get(GUARD) else {
        return Ok(None);
    };
    let guard: Guard = text.to_str().map_err(|_| Damaged::Missing)?.parse()?;
    guard.check_head(&[response.status().as_str()], pairs(response.headers()))
}

fn at(url: &str, path: &str) -> String {
    format!("{}{path}", url.trim_end_matches('/'))
}

fn with_body(request: reqwest::RequestBuilder, body: &impl Serialize) -> reqwest::RequestBuilder {
    let body = serde_json::to_vec(body).expect("plain fields");
    request.header(CONTENT_TYPE, "application/json").body(body)
}
