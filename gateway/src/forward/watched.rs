//! A request body that remembers whether anybody has begun to take it.
//!
//! The HTTP client asks for the body only once it has a connection and is about to write. As long as
//! it has not asked, the other side cannot have got a whole request, so nothing can have happened
//! there. An empty body is never asked for and proves nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Wraps `body`, whole and in memory.
pub(crate) fn watched(body: Bytes) -> (Watched, Watch) {
    // What is empty counts as taken from the start.
    let taken = Arc::new(AtomicBool::new(body.is_empty()));
    (
        Watched {
            body,
            taken: Arc::clone(&taken),
        },
        Watch { taken },
    )
}

/// The body.
pub(crate) struct Watched {
    body: Bytes,
    taken: Arc<AtomicBool>,
}

/// The view from outside.
pub(crate) struct Watch {
    taken: Arc<AtomicBool>,
}

impl Watch {
    /// Whether it is certain that the body has not left.
    pub(crate) fn unsent(&self) -> bool {
        !self.taken.load(Ordering::Acquire)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.store(true, Ordering::Release);
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
