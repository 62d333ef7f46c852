//! Who may use the API: whoever has a token; without tokens, whatever runs on this machine, but for the
//! web pages that its browsers show.
//!
//! A browser sends the requests of any page to a loopback address, and some need no leave of the server.
//! It says so itself, though: `Origin` on all that may change something, `Sec-Fetch-Site` on everything.
//!
//! Trap: whoever owns a name can make it lead to this machine once a page has come from there. What that page reads
//! has no `Origin`, and is of the same site; the name in `Host` is all that gives it away. What may change something
//! may come under any name: a Worker's binding calls every node the same.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri};
use tidemark_protocol::{Failure, FailureKind};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who is let in.
pub(crate) struct Tokens {
    /// Those that open the API. Empty: it is open.
    tokens: Vec<String>,
    /// What this node is called, besides its loopback addresses.
    names: Vec<String>,
}

impl Tokens {
    /// `urls` are those by which other nodes know this one.
    pub(crate) fn new(tokens: Vec<String>, urls: &[String]) -> Self {
        let names = urls.iter().filter_map(|url| url.parse::<Uri>().ok());
        let names = names.filter_map(|url| url.host().map(str::to_owned));
        Self {
            tokens,
            names: names.collect(),
        }
    }

    /// Whether the request carries one of them, or comes from where none is needed.
    pub(crate) fn check(&self, head: &Parts) -> Result<(), Failure> {
        let headers = &head.headers;
        if self.tokens.is_empty() {
            let is_rebound = head.method.is_safe() && !self.is_called(headers);
            return if is_rebound || is_foreign_page(headers) {
                let text = "Without tokens, pages of other sites may not use this node";
                Err(Failure::new(FailureKind::Forbidden, text))
            } else {
                Ok(())
            };
        }
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| bearer(value.as_bytes()));
        let known = given.is_some_and(|given| {
            // All of them, also after a match: the time taken must not tell which one it was.
            self.tokens
                .iter()
                .fold(false, |known, token| known | equal(token.as_bytes(), given))
        });
        if known {
            Ok(())
        } else {
            Err(Failure::new(
                FailureKind::Unauthenticated,
                "Authentication error",
            ))
        }
    }

    /// Whether the request goes to a host that is this node, if it says to which.
    fn is_called(&self, headers: &HeaderMap) -> bool {
        headers.get_all(HOST).iter().all(|host| {
            let host = host.to_str().unwrap_or_default();
            let Ok(authority) = host.parse::<Authority>() else {
                return false;
            };
            let is_own = |name: &String| name.eq_ignore_ascii_case(authority.host());
            is_loopback_host(authority.host()) || self.names.iter().any(is_own)
        })
    }
}

/// Whether a browser says that the page of another site is asking. A page is the node's own if it came from
/// where the request goes, by an address of this machine: a name may be made to lead here by anybody.
fn is_foreign_page(headers: &HeaderMap) -> bool {
    if headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site == "cross-site")
    {
        return true;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    headers.get_all(ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let origin = origin.strip_prefix("http://");
        !origin.is_some_and(|origin| Some(origin) == host && is_loopback(origin))
    })
}

/// Whether `authority`, of a URL, can only be this machine.
fn is_loopback(authority: &str) -> bool {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    if port.parse::<u16>().is_err() {
        return false;
    }
    is_loopback_host(host)
}

/// The same of its host.
fn is_loopback_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The token of `Bearer <token>`; the scheme's name has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Compares in a time that depends on the lengths alone, so that a token cannot be guessed byte by
/// byte.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a
        .iter()
        .zip(b)
        .fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
    a.len() == b.len() && differences == 0
}
