//! Where a relay passes connections on to.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

/// An address, or a name that is looked up anew for each connection: a container that was started again
/// may have another address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// It is there.
    Address(SocketAddr),
    /// `HOST:PORT`.
    Name(String),
}

impl Target {
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        match self {
            Self::Address(address) => TcpStream::connect(address).await,
            Self::Name(name) => TcpStream::connect(name.as_str()).await,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
