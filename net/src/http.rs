//! An HTTP/1.1 client on the connections of a [`Connector`], which keeps them for the next request.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tower::Service;

use crate::address::Address;
use crate::connector::{Connector, Io};

/// The head of an answer, and its body as it comes.
pub type Answer = Response<Incoming>;

/// Bounds of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpOptions {
    /// Time for a connection to come about.
    pub connect_wait: Duration,
    /// How long a connection is kept for the next request. Shorter than a server keeps it, so that none is used that
    /// is about to be closed.
    pub idle_max: Duration,
    /// Connections kept per server.
    pub idle_count_max: usize,
}

/// Sends requests with bodies of type `B`. Clones share the kept connections.
#[derive(Debug)]
pub struct HttpClient<B> {
    client: Client<Dial, B>,
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
        }
    }
}

/// A request got no answer, or half of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection came about: nothing was sent.
    #[error("no connection")]
    Connect(#[source] ClientError),
    /// The connection ended before the answer, or what came was none.
    #[error("the connection broke")]
    Broken(#[source] ClientError),
    /// The same, within the body of the answer.
    #[error("the answer broke off")]
    Body(#[source] hyper::Error),
    /// There was no answer in time.
    #[error("no answer within {within:?}")]
    Late {
        /// The time there was.
        within: Duration,
    },
    /// The body of the answer is longer than expected.
    #[error("its answer is longer than {max} bytes")]
    TooLong {
        /// The bound.
        max: usize,
    },
}

impl HttpError {
    /// Whether nobody can have got any of the request.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// What the operating system says, if it is the cause.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Some(error.kind());
            }
            cause = error.source();
        }
        None
    }
}

impl<B> HttpClient<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// With connections of `connector`.
    pub fn new(connector: Arc<dyn Connector>, options: HttpOptions) -> Self {
        let HttpOptions {
            connect_wait,
            idle_max,
            idle_count_max,
        } = options;
        let dial = Dial {
            connector,
            connect_wait,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle_max)
            .pool_max_idle_per_host(idle_count_max)
            .build(dial);
        Self { client }
    }

    /// Sends a request to the server that its URL names; returns when the head of the answer is there. The caller
    /// bounds the time.
    pub async fn send(&self, request: Request<B>) -> Result<Answer, HttpError> {
        self.client.request(request).await.map_err(|error| {
            if error.is_connect() {
                HttpError::Connect(error)
            } else {
                HttpError::Broken(error)
            }
        })
    }

    /// Sends a request; returns the whole answer, if it is there within this time and its body is no longer than
    /// `bytes_max`.
    pub async fn exchange(
        &self,
        request: Request<B>,
        within: Duration,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let (head, body) = self.send(request).await?.into_parts();
            let body = read_whole(body, bytes_max).await?;
            Ok(Response::from_parts(head, body))
        };
        let exchanged = timeout(within, exchange).await;
        exchanged.unwrap_or(Err(HttpError::Late { within }))
    }
}

/// The whole body, if it is no longer than `max` bytes. The caller bounds the time.
pub async fn read_whole(mut body: Incoming, max: usize) -> Result<Bytes, HttpError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(HttpError::Body)?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > max {
            return Err(HttpError::TooLong { max });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Makes the client's connections.
#[derive(Clone, Debug)]
struct Dial {
    connector: Arc<dyn Connector>,
    connect_wait: Duration,
}

impl Service<Uri> for Dial {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let Self {
            connector,
            connect_wait,
        } = self.clone();
        Box::pin(async move {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
            let address = Address::of(&url).map_err(invalid)?;
            let io = timeout(connect_wait, connector.connect(&address)).await??;
            Ok(Dialled(TokioIo::new(io)))
        })
    }
}

/// A connection as hyper wants it.
struct Dialled(TokioIo<Box<dyn Io>>);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests;
