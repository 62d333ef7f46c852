//! Passing on a body that is too large to hold, piece by piece as it comes.
//!
//! It cannot be sent a second time, so nobody looks for another node. As long as pieces leave it goes on, but not
//! for longer than [`TOTAL_MAX`]: what a link is good for is known to the other node alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tidemark_protocol::contract::DEADLINE_MAX;
use tidemark_protocol::{Failure, FailureKind, Node};
use tokio::time::sleep;
use tracing::{Instrument, warn};

use crate::trace;

use super::{Forwarder, addressed, returned, unavailable};
use crate::guard;

/// A pause is noticed after one to two of these.
const SILENCE_WAIT: Duration = Duration::from_secs(30);

/// Longest that one may take, as long as links last by default.
const TOTAL_MAX: Duration = Duration::from_secs(3600);

impl Forwarder {
    /// Sends a request to the node that leads, as far as `node` knows, and returns its answer, whatever it is. For
    /// what does no harm if it is done twice.
    pub(crate) async fn forward_stream<N: Node>(
        &self,
        node: &N,
        head: &Parts,
        body: Body,
    ) -> Result<Response, Failure> {
        let Some(upstream) = node.upstream() else {
            return Err(unavailable("no primary is known"));
        };
        let moved = Arc::new(AtomicU64::new(0));
        let body = Passing {
            body,
            moved: Arc::clone(&moved),
        };
        let name = self.made_up();
        let span = trace::forward(&upstream, Some(name));
        let mut headers = self.outgoing_headers(&span, &head.headers, Some(name), DEADLINE_MAX);
        guard::guard_request(head, &mut headers, None);
        let request = addressed(&upstream, head, headers, Body::new(body))?;
        self.handles.metrics.forwarded();
        tokio::select! {
            sent = self.client.send(request).instrument(span.clone()) => match sent {
                Ok(answer) => {
                    trace::answered(&span, answer.status().as_u16());
                    returned(answer).map_err(|damaged| {
                        warn!(%upstream, %damaged, "an answer is not what was sent");
                        unavailable(format!("the answer of {upstream} was damaged"))
                    })
                }
                Err(error) => {
                    let cause = error.io_kind();
                    warn!(%upstream, request = %name, %error, ?cause, "a body was not passed on well");
                    Err(unavailable(format!("{upstream} cannot be reached")))
                }
            },
            () = pause(&moved) => {
                warn!(%upstream, request = %name, "a body is stuck on its way");
                Err(unavailable(format!("nothing moves to {upstream}")))
            }
            () = sleep(TOTAL_MAX) => {
                warn!(%upstream, request = %name, "a body takes too long on its way");
                let text = format!("the body did not reach {upstream} within {TOTAL_MAX:?}");
                Err(Failure::new(FailureKind::Deadline, text))
            }
        }
    }
}

async fn pause(moved: &AtomicU64) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        sleep(SILENCE_WAIT).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// A body on its way, which says when it moves.
struct Passing {
    body: Body,
    moved: Arc<AtomicU64>,
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, moved } = &mut *self;
        let polled = Pin::new(body).poll_frame(context);
        if polled.is_ready() {
            moved.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
