//! How much may be going on at once, and the reading of bodies within that.
//!
//! What is over a bound is refused at once, never queued: the queues are the node's, which knows what
//! waits for what.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tidemark_protocol::{Failure, FailureKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::ask::deadline_passed;
use crate::config::Limits;
use crate::guard;

/// Body bytes are counted in units of this.
const UNIT_BYTES: usize = 1024;
/// A body up to this is not counted: there are never more of them than requests.
const UNCOUNTED_BYTES_MAX: usize = 16 << 10;
/// How much of a body over the bound is read and thrown away so that its sender, who does not listen
/// while sending, gets to read the refusal.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
/// How long a client should wait that met a full house.
const OVERLOADED_WAIT: Duration = Duration::from_secs(1);

/// The bounds, and what is left of them.
pub(crate) struct Gate {
    limits: Limits,
    /// Requests that have a place. No semaphore: nobody waits for one, and giving one back takes a lock there.
    inside: AtomicUsize,
    body_units: Arc<Semaphore>,
}

/// One of the requests that may be going on at once.
pub(crate) struct Place<'g>(&'g Gate);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body in memory, counted as long as this lives.
pub(crate) struct HeldBody {
    pub(crate) bytes: Bytes,
    _counted: Option<OwnedSemaphorePermit>,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        let units = limits.bodies_bytes_max / UNIT_BYTES;
        Self {
            limits,
            inside: AtomicUsize::new(0),
            body_units: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A place for one request, given back when dropped.
    pub(crate) fn enter(&self) -> Result<Place<'_>, Failure> {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        if before >= self.limits.requests_max {
            return Err(overloaded());
        }
        Ok(place)
    }

    /// Reads a whole body by `expires`. Of one that is refused the rest is thrown away until then: how long
    /// its sender takes for that does not change the answer.
    pub(crate) async fn read(
        &self,
        head: &HeaderMap,
        body: Body,
        expires: Instant,
    ) -> Result<HeldBody, Failure> {
        let mut body = body.into_data_stream();
        let read = timeout_at(expires, self.read_bounded(head, &mut body))
            .await
            .unwrap_or_else(|_| Err(deadline_passed()));
        if read.is_err() {
            let _ = timeout_at(expires, discard(body)).await;
        }
        read
    }

    async fn read_bounded(
        &self,
        head: &HeaderMap,
        body: &mut BodyDataStream,
    ) -> Result<HeldBody, Failure> {
        let max = self.limits.body_bytes_max;
        let announced = head
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<usize>().ok());
        let too_large = || {
            let text = format!("the body exceeds the limit of {max} bytes");
            Failure::new(FailureKind::TooLarge, text)
        };
        if announced.is_some_and(|bytes| bytes > max) {
            return Err(too_large());
        }
        let mut counted = Counted {
            units: &self.body_units,
            permit: None,
        };
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        let mut got = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| {
                if let Some(failure) = guard::damage(&error) {
                    return failure;
                }
                let text = format!("The request is malformed: its body broke off: {error}");
                Failure::new(FailureKind::BadRequest, text)
            })?;
            got += chunk.len();
            if got > max {
                return Err(too_large());
            }
            counted.grow(got)?;
            if got == chunk.len() {
                first = chunk; // a body in one piece is not copied
            } else {
                if all.is_empty() {
                    all.reserve(announced.unwrap_or(0).clamp(got, max));
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&chunk);
            }
        }
        let bytes = if all.is_empty() { first } else { all.freeze() };
        Ok(HeldBody {
            bytes,
            _counted: counted.permit,
        })
    }
}

/// Reads on for a sender that does not listen yet, within bounds.
pub(crate) async fn discard(mut body: BodyDataStream) {
    let mut discarded = 0;
    while discarded < DISCARDED_BYTES_MAX
        && let Some(Ok(chunk)) = body.next().await
    {
        discarded += chunk.len();
    }
}

/// The part of the bound on all bodies that one body holds.
struct Counted<'s> {
    units: &'s Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Counted<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        if bytes <= UNCOUNTED_BYTES_MAX {
            return Ok(());
        }
        let held = self
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        let more = u32::try_from(more).map_err(|_| overloaded())?;
        let permit = Arc::clone(self.units)
            .try_acquire_many_owned(more)
            .map_err(|_| overloaded())?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }
}

/// D1's own words.
fn overloaded() -> Failure {
    let text = "D1 DB is overloaded. Too many requests queued.";
    Failure::new(FailureKind::Overloaded, text).retry_after(OVERLOADED_WAIT)
}
