//! The node that a replica follows.

use tidemark_net::Address;
use tokio_tungstenite::tungstenite::http::Uri;

/// The node that a replica follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    /// Where it is.
    pub address: Address,
    /// URL of the stream: `ws://…/tidemark/v1/stream`.
    pub stream_url: String,
}

/// The text is not the base URL of a node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is not a base URL: {reason}")]
pub struct UpstreamError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

const STREAM_PATH: &str = "/tidemark/v1/stream";

impl std::str::FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason: &str| UpstreamError {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let url: Uri = text.parse().map_err(|error| bad(&format!("{error}")))?;
        let address = Address::of(&url).map_err(|error| bad(&error.to_string()))?;
        let authority = url.authority().ok_or_else(|| bad("no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("credentials do not belong into it"));
        }
        if url.query().is_some() {
            return Err(bad("a query does not belong into it"));
        }
        let scheme = match url.scheme_str() {
            Some("http") => "ws",
            Some("https") => "wss",
            _ => return Err(bad("want http:// or https://")),
        };
        let prefix = url.path().trim_end_matches('/');
        let stream_url = format!("{scheme}://{authority}{prefix}{STREAM_PATH}");
        Ok(Self {
            address,
            stream_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_gives_address_and_stream_url() {
        let check = |text: &str, tls, host: &str, port, stream_url: &str| {
            let upstream: Upstream = text.parse().expect("a base URL");
            let host = host.to_owned();
            let expected = Upstream {
                address: Address { tls, host, port },
                stream_url: stream_url.to_owned(),
            };
            assert_eq!(upstream, expected);
        };
        check(
            "http://a:8787",
            false,
            "a",
            8787,
            "ws://a:8787/tidemark/v1/stream",
        );
        check("http://a/", false, "a", 80, "ws://a/tidemark/v1/stream");
        check(
            "https://a/x/",
            true,
            "a",
            443,
            "wss://a/x/tidemark/v1/stream",
        );
        check(
            "http://[::1]:9",
            false,
            "::1",
            9,
            "ws://[::1]:9/tidemark/v1/stream",
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "a:1", "ftp://a", "/x", "http://u:p@a", "http://a/?q"] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }
}
