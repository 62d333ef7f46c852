//! Accepting connections, and ending them in order.
//!
//! To stop: for [`ServeConfig::farewell`] requests are served as before, but each answer is the last on its
//! connection, and `/ready` says no: clients and balancers turn elsewhere by themselves. Then no new connection
//! is taken; idle ones are closed; busy ones finish the request in hand; after [`ServeConfig::drain`] whatever
//! is left is cut.
//!
//! Trap: HTTP/1.1 cannot close an idle connection without the chance that a request is just on its way to it,
//! which then meets a reset. The farewell makes that rare: who sends often has been told to go.

mod clock;
mod patient;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidemark_net::Listen;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::dispatch::Dispatch;
use crate::guard::{self, Came};
use crate::router::READY;
use crate::serve::clock::Clock;
use crate::serve::patient::Patient;

/// How long to wait after a failed accept: out of file descriptors, most likely.
const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);

/// Bounds on connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServeConfig {
    /// Open connections. At the bound new ones wait in the kernel's queue. 10,000.
    pub connections_max: usize,
    /// Longest wait for the head of the next request, idle time included. 75 s.
    pub head_wait: Duration,
    /// Longest wait for a client to take some of its answer. 30 s.
    pub write_wait: Duration,
    /// How long to go on once the server is to stop, telling everybody to go elsewhere. 200 ms.
    pub farewell: Duration,
    /// How long requests may take to finish after that. 10 s.
    pub drain: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_wait: Duration::from_secs(75),
            write_wait: Duration::from_secs(30),
            farewell: Duration::from_millis(200),
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves `dispatch` on `listener` until `stop`, then drains.
pub async fn serve<L: Listen>(
    listener: L,
    dispatch: Dispatch,
    stop: CancellationToken,
    config: ServeConfig,
) {
    let places = Arc::new(Semaphore::new(
        config.connections_max.min(Semaphore::MAX_PERMITS),
    ));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let closing = CancellationToken::new();
    let service = Service {
        dispatch,
        leaving: Arc::default(),
    };
    let leaving = Arc::clone(&service.leaving);
    let farewell = async {
        stop.cancelled().await;
        leaving.store(true, Ordering::Release);
        sleep(config.farewell).await;
    };
    tokio::pin!(farewell);
    loop {
        let accepted = tokio::select! {
            () = &mut farewell => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY_WAIT).await;
                continue;
            }
        };
        let service = service.clone();
        let ends = Ends {
            // Of its own: whoever looks at a token takes its lock.
            closing: closing.child_token(),
            cut: cut.clone(),
        };
        connections.spawn(async move {
            connection(stream, service, ends, config).await;
            drop(place);
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    if timeout(config.drain, connections.wait()).await.is_err() {
        warn!(
            connections = connections.len(),
            "cutting connections that did not finish"
        );
        cut.cancel();
        connections.wait().await;
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept<L: Listen>(listener: &L, places: &Arc<Semaphore>) -> io::Result<(L::Io, Place)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    Ok((listener.accept().await?, place))
}

/// What each request meets.
#[derive(Clone)]
struct Service {
    dispatch: Dispatch,
    /// The server is to stop. No token: to look at one takes a lock that all connections share.
    leaving: Arc<AtomicBool>,
}

impl Service {
    async fn answer(mut self, request: Request<Incoming>) -> Result<Response, Infallible> {
        let asks_for_readiness = request.uri().path() == READY;
        let mut response = match guard::admit(request) {
            Came::Client(request) => self.dispatch.answer(request).await?,
            Came::Node(request) => guard::guard_answer(self.dispatch.answer(request).await?).await,
            Came::Damaged(refusal) => guard::guard_answer(refusal).await,
        };
        if self.leaving.load(Ordering::Acquire) {
            if asks_for_readiness {
                response = (StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response();
            }
            // Not of an upgrade, which is a connection of another kind from here on.
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
        }
        Ok(response)
    }
}

/// What ends a connection that would go on.
struct Ends {
    /// No further request is taken.
    closing: CancellationToken,
    /// After that: not even the one in hand is finished.
    cut: CancellationToken,
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: Service,
    ends: Ends,
    config: ServeConfig,
) {
    let service = service_fn(move |request| service.clone().answer(request));
    let connection = http1::Builder::new()
        .timer(Clock::default())
        .header_read_timeout(config.head_wait)
        .serve_connection(
            TokioIo::new(Patient::new(stream, config.write_wait)),
            service,
        )
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = ends.closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = ends.cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
