//! Accepting connections, and ending them in order.
//!
//! To stop: no new connection is taken; idle ones are closed; busy ones finish the request in hand;
//! after [`ServeConfig::drain`] whatever is left is cut.

mod patient;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;
use tracing::{debug, warn};

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
    /// How long requests may take to finish once the server is to stop. 10 s.
    pub drain: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_wait: Duration::from_secs(75),
            write_wait: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves `router` on `listener` until `stop`, then drains.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    config: ServeConfig,
) {
    let places = Arc::new(Semaphore::new(
        config.connections_max.min(Semaphore::MAX_PERMITS),
    ));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
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
        let (router, stop, cut) = (router.clone(), stop.clone(), cut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = connection(stream, router, stop, config) => {}
            }
            drop(place);
        });
    }
    drop(listener);
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

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Result<(TcpStream, Place), io::Error> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are written whole: waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    config: ServeConfig,
) {
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_wait)
        .serve_connection(
            TokioIo::new(Patient::new(stream, config.write_wait)),
            service,
        )
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
