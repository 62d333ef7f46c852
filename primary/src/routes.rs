//! The endpoints beside the API: the stream that replicas follow, and the messages of the cell's voters.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Request, State};
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tidemark_protocol::headers::{ADVERTISED, LEADER, STREAM};
use tidemark_protocol::stream::{
    ASKS, ENVELOPE_BYTES, PACKED, PAYLOAD_BYTES_MAX, TOLD_VOTERS, says,
};
use tokio::time::timeout;

use crate::append_socket::{self, APPEND_PATH};
use crate::cell::Primary;
use crate::consensus::AnswerError;
use crate::install;
use crate::members;
use crate::peer_http::{chain, knows_secret, stranger};
use crate::ship::session;
use crate::transport::{INCARNATION, MESSAGE_BYTES_MAX, RAFT_PATH, VOTER};

/// Where replicas connect.
pub const STREAM_PATH: &str = "/tidemark/v1/stream";
/// Largest message of a follower: page hashes.
const FOLLOWER_MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Time for a voter's message to come in whole.
const MESSAGE_WAIT: Duration = Duration::from_secs(20);
const _: () = assert!(FOLLOWER_MESSAGE_BYTES_MAX < ENVELOPE_BYTES + PAYLOAD_BYTES_MAX);

impl Primary {
    /// The routes of a primary beside the API: the replica stream, and the voters' messages.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route(STREAM_PATH, get(stream))
            .route(RAFT_PATH, post(raft))
            .route(APPEND_PATH, get(appends))
            .merge(members::routes())
            .merge(install::routes())
            .with_state(Arc::clone(self))
    }
}

async fn stream(
    State(primary): State<Arc<Primary>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !knows_secret(&headers, &primary.config.cluster_secret) {
        return stranger();
    }
    if primary.serving.borrow().is_none() {
        return not_leading(&primary);
    }
    match upgrade {
        Ok(upgrade) => {
            let ship = Arc::clone(&primary.ship);
            let url = headers.get(ADVERTISED).and_then(|url| url.to_str().ok());
            let knows = headers.get(STREAM).and_then(|words| words.to_str().ok());
            let knows = knows.unwrap_or_default();
            let request = session::Request {
                url: url.map(str::to_owned),
                told_voters: says(knows, TOLD_VOTERS),
                packed: says(knows, PACKED),
            };
            let mut response = upgrade
                .max_message_size(FOLLOWER_MESSAGE_BYTES_MAX)
                .max_frame_size(FOLLOWER_MESSAGE_BYTES_MAX)
                .on_upgrade(move |socket| session::serve(ship, request, socket));
            let understood = HeaderValue::from_static(ASKS);
            let name = HeaderName::from_static(STREAM);
            response.headers_mut().insert(name, understood);
            response
        }
        Err(rejection) => rejection.into_response(),
    }
}

/// Tells where the leader is, if that is known.
fn not_leading(primary: &Primary) -> Response {
    let mut response = (
        StatusCode::SERVICE_UNAVAILABLE,
        "this node does not lead its cell",
    )
        .into_response();
    let leader = primary
        .other_leader()
        .map(|leader| HeaderValue::try_from(leader.address));
    if let Some(Ok(leader)) = leader {
        let name = HeaderName::from_static(LEADER);
        response.headers_mut().insert(name, leader);
    }
    response
}

/// Another voter's message. Whoever knows the secret is one.
async fn raft(State(primary): State<Arc<Primary>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !knows_secret(&head.headers, &primary.config.cluster_secret) {
        return stranger();
    }
    if let Err(misdirected) = meant_for(&primary, &head.headers) {
        return misdirected.into_response();
    }
    let message = match timeout(MESSAGE_WAIT, to_bytes(body, MESSAGE_BYTES_MAX)).await {
        Ok(Ok(message)) => message,
        Ok(Err(error)) => {
            return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response();
        }
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    match primary.consensus.answer(&message).await {
        Ok(answer) => Body::from(answer).into_response(),
        Err(error @ AnswerError::Message(_)) => {
            let causes = chain(&error);
            tracing::warn!(
                error = causes,
                "a voter sent a message that is not understood"
            );
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
        Err(error @ (AnswerError::Stopped | AnswerError::Promised)) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
        }
    }
}

/// Another voter's appends.
async fn appends(
    State(primary): State<Arc<Primary>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !knows_secret(&headers, &primary.config.cluster_secret) {
        return stranger();
    }
    if let Err(misdirected) = meant_for(&primary, &headers) {
        return misdirected.into_response();
    }
    match upgrade {
        Ok(upgrade) => {
            let consensus = primary.consensus.clone();
            upgrade
                .max_message_size(MESSAGE_BYTES_MAX)
                .max_frame_size(MESSAGE_BYTES_MAX)
                .on_upgrade(move |socket| append_socket::serve(consensus, socket))
        }
        Err(rejection) => rejection.into_response(),
    }
}

/// An address may have gone to another voter meanwhile, and a disk may have been lost: what a voter has
/// promised must not be taken from a node that does not remember it, and a vote must not count twice.
fn meant_for(primary: &Primary, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let (node, incarnation) = (primary.config.node, primary.consensus.incarnation());
    let names = |header, this: &str| headers.get(header).is_some_and(|meant| meant == this);
    if names(VOTER, &node.to_string()) && names(INCARNATION, &incarnation.to_string()) {
        return Ok(());
    }
    let text = format!("this is voter {node}, incarnation {incarnation}");
    Err((StatusCode::MISDIRECTED_REQUEST, text))
}
