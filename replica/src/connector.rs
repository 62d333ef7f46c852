//! How bytes reach the upstream: a handle, so that a simulation can own the network.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::Uri;

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The future of [`Connector::connect`].
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Opens connections.
pub trait Connector: Send + Sync + 'static {
    /// Opens one. The caller bounds the time.
    fn connect<'a>(&'a self, to: &'a Upstream) -> Connecting<'a>;
}

/// Plain TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, to: &'a Upstream) -> Connecting<'a> {
        Box::pin(async move {
            if to.tls {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "https needs a connector that speaks TLS, this one speaks plain TCP",
                ));
            }
            let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// The node that a replica follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    /// Whether the base URL says `https`.
    pub tls: bool,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
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
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("want http:// or https://")),
        };
        let authority = url.authority().ok_or_else(|| bad("no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("credentials do not belong into it"));
        }
        if url.query().is_some() {
            return Err(bad("a query does not belong into it"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let scheme = if tls { "wss" } else { "ws" };
        let prefix = url.path().trim_end_matches('/');
        let stream_url = format!("{scheme}://{authority}{prefix}{STREAM_PATH}");
        Ok(Self {
            tls,
            host,
            port,
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
            let expected = Upstream {
                tls,
                host: host.to_owned(),
                port,
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
