//! HTTP between the nodes of a cell: the client that shows the cluster secret, and the check at the other end.

use std::time::Duration;

use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use subtle::ConstantTimeEq;

/// Time for a connection to come about, in one region.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Why the body of an answer was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection broke.
    #[error("{}", chain(.0))]
    Connection(#[from] reqwest::Error),
    /// It is no answer of a node.
    #[error("its answer is longer than {max} bytes")]
    TooLong {
        /// The bound.
        max: usize,
    },
}

/// The headers that show the secret; none for an empty one. `None` if it cannot be sent in a header.
pub(crate) fn shown(secret: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if !secret.is_empty() {
        let mut bearer = HeaderValue::try_from(format!("Bearer {secret}")).ok()?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Some(headers)
}

/// What all clients of other nodes have in common: they show the secret, go straight there and wait no longer for
/// a connection than a node in the same region needs. `None` if the secret cannot be sent in a header.
pub(crate) fn client(secret: &str) -> Option<reqwest::ClientBuilder> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .default_headers(shown(secret)?);
    Some(builder)
}

/// The whole body, if it is no longer than `max` bytes.
pub(crate) async fn read_body(
    response: &mut reqwest::Response,
    max: usize,
) -> Result<Bytes, BodyError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max {
            return Err(BodyError::TooLong { max });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// An error with its causes, as one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// An empty secret asks for none: for nodes that only listen on loopback. There pages in a browser could ask as
/// well, whoever wrote them; browsers say so with `Origin`, on WebSockets and on all that may change something,
/// and neither replicas nor voters do.
pub(crate) fn knows_secret(headers: &HeaderMap, secret: &str) -> bool {
    if secret.is_empty() {
        return !headers.contains_key(ORIGIN);
    }
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(secret.as_bytes())))
}

/// The answer to whoever does not know it.
pub(crate) fn stranger() -> Response {
    let text = "the cluster secret is missing or wrong";
    (StatusCode::UNAUTHORIZED, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_a_browser_is_refused_where_no_secret_is_asked_for() {
        let mut headers = HeaderMap::new();
        assert!(knows_secret(&headers, "") && !knows_secret(&headers, "secret"));
        headers.extend(shown("secret").expect("a plain secret"));
        assert!(knows_secret(&headers, "secret"));
        for origin in ["http://elsewhere.example", "http://127.0.0.1:8787", "null"] {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            assert!(!knows_secret(&headers, ""), "{origin}");
            assert!(knows_secret(&headers, "secret"), "{origin}");
        }
    }
}
