//! A request body that remembers whether anybody has begun to take it, and that can be withdrawn until then.
//!
//! The HTTP client asks for the body only once it has a connection and is about to write. As long as
//! it has not asked, the other side cannot have got a whole request, so nothing can have happened
//! there. Whoever concludes that withdraws the body, for the client may be about to ask: it gets an error then,
//! and the request ends unfinished. An empty body is never asked for and proves nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const WHOLE: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Wraps `body`, whole and in memory.
pub(crate) fn watched(body: Bytes) -> (Watched, Watch) {
    // What is empty counts as taken from the start.
    let state = if body.is_empty() { TAKEN } else { WHOLE };
    let state = Arc::new(AtomicU8::new(state));
    let watch = Watch(Arc::clone(&state));
    (Watched { body, state }, watch)
}

/// The body.
pub(crate) struct Watched {
    body: Bytes,
    state: Arc<AtomicU8>,
}

/// The request is not to be sent any more.
#[derive(Debug, thiserror::Error)]
#[error("the request was withdrawn before its body left")]
pub(crate) struct Withdrawn;

/// The view from outside.
pub(crate) struct Watch(Arc<AtomicU8>);

impl Watch {
    /// Whether it is certain that the body has not left, and will not.
    pub(crate) fn withdraw(&self) -> bool {
        decide(&self.0, WITHDRAWN)
    }
}

/// Whether it is `outcome` that happens to the body, now or before.
fn decide(state: &AtomicU8, outcome: u8) -> bool {
    let decided = state.compare_exchange(WHOLE, outcome, Ordering::AcqRel, Ordering::Acquire);
    decided.is_ok() || decided == Err(outcome)
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        if !decide(&self.state, TAKEN) {
            return Poll::Ready(Some(Err(Withdrawn)));
        }
        let body = std::mem::take(&mut self.body);
        Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BODY: Bytes = Bytes::from_static(b"INSERT");

    async fn taken(body: Watched) -> Result<Bytes, axum::Error> {
        axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await
    }

    /// Whoever looked for another node had better be right.
    #[tokio::test]
    async fn body_that_was_withdrawn_never_leaves() {
        let (body, watch) = watched(BODY);
        assert!(watch.withdraw() && watch.withdraw());
        assert!(taken(body).await.is_err());
    }

    #[tokio::test]
    async fn body_that_was_taken_or_is_empty_is_not_withdrawn() {
        let (body, watch) = watched(BODY);
        assert_eq!(taken(body).await.unwrap(), BODY);
        assert!(!watch.withdraw());
        let (_body, watch) = watched(Bytes::new());
        assert!(!watch.withdraw());
    }
}
