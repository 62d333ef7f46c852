//! The endpoint that replicas connect to.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use subtle::ConstantTimeEq;
use tidemark_protocol::stream::{ENVELOPE_BYTES, PAYLOAD_BYTES_MAX};

use crate::cell::Primary;
use crate::ship::session;

/// Where replicas connect.
pub const STREAM_PATH: &str = "/tidemark/v1/stream";
/// Largest message of a follower: page hashes.
const FOLLOWER_MESSAGE_BYTES_MAX: usize = 2 << 20;
const _: () = assert!(FOLLOWER_MESSAGE_BYTES_MAX < ENVELOPE_BYTES + PAYLOAD_BYTES_MAX);

impl Primary {
    /// The routes of a primary beside the API: the replica stream.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route(STREAM_PATH, get(stream))
            .with_state(Arc::clone(self))
    }
}

async fn stream(
    State(primary): State<Arc<Primary>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !knows_secret(&headers, &primary.config.cluster_secret) {
        return (
            StatusCode::UNAUTHORIZED,
            "the cluster secret is missing or wrong",
        )
            .into_response();
    }
    if primary.serving.borrow().is_none() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "this node does not lead its cell",
        )
            .into_response();
    }
    match upgrade {
        Ok(upgrade) => {
            let ship = Arc::clone(&primary.ship);
            upgrade
                .max_message_size(FOLLOWER_MESSAGE_BYTES_MAX)
                .max_frame_size(FOLLOWER_MESSAGE_BYTES_MAX)
                .on_upgrade(move |socket| session::serve(ship, socket))
        }
        Err(rejection) => rejection.into_response(),
    }
}

/// An empty secret asks for none: for nodes that only listen on loopback.
fn knows_secret(headers: &HeaderMap, secret: &str) -> bool {
    if secret.is_empty() {
        return true;
    }
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(secret.as_bytes())))
}
