//! The simulated network: a connector and a listener on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tidemark_net::{Address, Connecting, Connector, Io, Listen};
use turmoil::net::{TcpListener, TcpStream};

/// Where every node listens.
pub(crate) const PORT: u16 = 8787;

/// Opens simulated connections, by the names of hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimConnector;

impl Connector for SimConnector {
    fn connect<'a>(&'a self, to: &'a Address) -> Connecting<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// Takes simulated connections.
pub(crate) struct SimListener(TcpListener);

impl SimListener {
    /// On the host that runs the caller.
    pub(crate) async fn bind() -> io::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        TcpListener::bind(any).await.map(Self)
    }
}

impl Listen for SimListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
