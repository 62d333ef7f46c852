//! Opening connections: a handle, so that a simulation can own the network.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::address::Address;

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The future of [`Connector::connect`].
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Opens connections.
pub trait Connector: Send + Sync + 'static {
    /// Opens one. The caller bounds the time.
    fn connect<'a>(&'a self, to: &'a Address) -> Connecting<'a>;
}

impl fmt::Debug for dyn Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Plain TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, to: &'a Address) -> Connecting<'a> {
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
