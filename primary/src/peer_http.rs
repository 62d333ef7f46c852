//! HTTP between the nodes of a cell: the client that shows the cluster secret, and the check at the other end.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method, Request, Response as Answered, StatusCode, request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::Full;
use subtle::ConstantTimeEq;
use tidemark_net::{Answer, Connector, HttpClient, HttpError, HttpOptions};

/// Time for a connection to come about, in one region.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// Shorter than a server waits for the next request on a kept connection.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Asks other nodes of the cell, and shows them the secret.
#[derive(Clone, Debug)]
pub(crate) struct PeerClient {
    client: HttpClient<Full<Bytes>>,
    shown: HeaderMap,
}

impl PeerClient {
    /// With this cluster secret, or with none if it is empty; `idle_count_max` connections are kept per node.
    /// `None` if the secret cannot be sent in a header.
    pub(crate) fn new(
        secret: &str,
        connector: &Arc<dyn Connector>,
        idle_count_max: usize,
    ) -> Option<Self> {
        let options = HttpOptions {
            connect_wait: CONNECT_WAIT,
            idle_max: IDLE_MAX,
            idle_count_max,
        };
        Some(Self {
            client: HttpClient::new(Arc::clone(connector), options),
            shown: shown(secret)?,
        })
    }

    /// A request to a node, without a body yet.
    pub(crate) fn request(&self, method: Method, url: &str) -> request::Builder {
        let mut request = Request::builder().method(method).uri(url);
        // None if the URL is none, which is told when the request is complete.
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.shown.clone());
        }
        request
    }

    /// Sends it; returns when the head of the answer is there. The caller bounds the time.
    pub(crate) async fn send(
        &self,
        request: request::Builder,
        body: Bytes,
    ) -> Result<Answer, PeerHttpError> {
        let request = request.body(Full::new(body))?;
        Ok(self.client.send(request).await?)
    }

    /// Sends it; returns the whole answer.
    pub(crate) async fn exchange(
        &self,
        request: request::Builder,
        body: Bytes,
        within: Duration,
        bytes_max: usize,
    ) -> Result<Answered<Bytes>, PeerHttpError> {
        let request = request.body(Full::new(body))?;
        Ok(self.client.exchange(request, within, bytes_max).await?)
    }
}

/// Another node did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerHttpError {
    /// The address that is known of it is none.
    #[error("{}", chain(.0))]
    Url(#[from] axum::http::Error),
    /// It was not reached, or not to the end.
    #[error("{}", chain(.0))]
    Http(#[from] HttpError),
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
