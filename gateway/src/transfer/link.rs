//! Links that lead back to the host that the client used.
//!
//! The client may not be able to reach the node that leads, but it has just reached this name. A proxy in front,
//! or the node that passed the request on, says in `x-forwarded-host` and `x-forwarded-proto` what the client
//! used; they are believed for this alone: whoever makes them up gets a bad link and nothing else.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tidemark_protocol::{Failure, FailureKind};

use super::secret::Secret;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a link is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Upload,
    Download,
}

/// The beginning of links for a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    scheme: &'static str,
    host: Authority,
}

impl Link {
    /// For whoever sent these headers.
    pub(super) fn back(headers: &HeaderMap) -> Result<Self, Failure> {
        let name = if headers.contains_key(&FORWARDED_HOST) {
            FORWARDED_HOST
        } else {
            HOST
        };
        let given = first(headers, &name).unwrap_or_default();
        let host: Option<Authority> = given.parse().ok();
        let host = host.filter(|host| !host.as_str().contains('@'));
        let scheme = match first(headers, &FORWARDED_PROTO) {
            Some("https") => "https",
            _ => "http",
        };
        match host {
            Some(host) => Ok(Self { scheme, host }),
            None => {
                let text = format!("Invalid header: {name} => '{given}' is not a host");
                Err(Failure::new(FailureKind::BadRequest, text))
            }
        }
    }

    pub(super) fn url(&self, purpose: Purpose, secret: Secret) -> String {
        let folder = match purpose {
            Purpose::Upload => "uploads",
            Purpose::Download => "downloads",
        };
        let Self { scheme, host } = self;
        format!("{scheme}://{host}/tidemark/v1/{folder}/{secret}")
    }
}

/// The first of a list: what the client itself used, if several proxies follow each other.
fn first<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.split(',').next()?.trim())
}

/// What a request that is passed on has to say of the host that its client used.
pub(crate) fn forwarded_host(came: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
    if came.contains_key(&FORWARDED_HOST) {
        return None;
    }
    Some((FORWARDED_HOST, came.get(HOST)?.clone()))
}
