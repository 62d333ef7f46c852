//! Answers: D1's envelope with Tidemark's headers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use serde::Serialize;
use tidemark_protocol::d1::{
    ENVELOPE_HEAD, ENVELOPE_TAIL, ErrorItem, ResultInfo, write_failure, write_success,
};
use tidemark_protocol::node::Answer;
use tidemark_protocol::{Bookmark, Delivered, Failure, FailureKind, Why, headers};

/// Up to here one copy costs less than three pieces on the way out.
const COPIED_BYTES_MAX: usize = 16 << 10;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BOOKMARK: HeaderName = HeaderName::from_static(headers::BOOKMARK);
const REPEATED: HeaderName = HeaderName::from_static(headers::REPEATED);
const DELIVERED: HeaderName = HeaderName::from_static(headers::DELIVERED);
const FAILURE: HeaderName = HeaderName::from_static(headers::FAILURE);
const SHOULD_RETRY: HeaderName = HeaderName::from_static(headers::SHOULD_RETRY);

/// What the node ran.
pub(crate) fn answer(answer: Answer) -> Response {
    let Answer {
        tally: _,
        results,
        bookmark,
        repeated,
        delivered,
    } = answer;
    let body = if results.len() <= COPIED_BYTES_MAX {
        Body::from(write_success(&results, None))
    } else {
        Body::new(Pieces::new(results))
    };
    let mut response = json(StatusCode::OK, body);
    response.headers_mut().insert(BOOKMARK, header(&bookmark));
    if repeated {
        response
            .headers_mut()
            .insert(REPEATED, HeaderValue::from_static("true"));
    }
    note_delivered(&mut response, delivered);
    response
}

fn header(bookmark: &Bookmark) -> HeaderValue {
    HeaderValue::from_bytes(&bookmark.text()).expect("hex digits and dashes")
}

/// Says that an earlier try of the request took effect, and which state shows that.
pub(crate) fn note_repeated(response: &mut Response, bookmark: &Bookmark) {
    let to = response.headers_mut();
    to.insert(BOOKMARK, header(bookmark));
    to.insert(REPEATED, HeaderValue::from_static("true"));
}

/// Says what the request got.
pub(crate) fn note_delivered(response: &mut Response, delivered: Delivered) {
    let Delivered {
        waited,
        staleness,
        forwarded,
    } = delivered;
    // What most reads get: they wait for nothing and miss nothing.
    let at_once = waited < Duration::from_millis(1)
        && staleness == Some(Duration::ZERO)
        && forwarded.is_none();
    let text = if at_once {
        HeaderValue::from_static("waited-ms=0, staleness-ms=0")
    } else {
        HeaderValue::try_from(delivered.to_string()).expect("plain ASCII")
    };
    response.headers_mut().insert(DELIVERED, text);
}

/// Adds to what another node says that the request got there, why and after how long it was passed on.
pub(crate) fn note_forwarded(response: &mut Response, why: Why, waited: Duration) {
    let there = response.headers().get(DELIVERED);
    let there = there.and_then(|there| there.to_str().ok()?.parse().ok());
    if there.is_some() || response.status().is_success() {
        let there: Delivered = there.unwrap_or_default();
        note_delivered(response, there.forwarded(why, waited));
    }
}

/// Anything else that went well.
pub(crate) fn success(result: &impl Serialize, info: Option<&ResultInfo>) -> Response {
    let result = serde_json::to_vec(result).expect("the API's types are plain data");
    json(StatusCode::OK, Body::from(write_success(&result, info)))
}

/// What went wrong.
pub(crate) fn failure(failure: &Failure) -> Response {
    refusal(status(failure), &ErrorItem::from(failure), failure)
}

/// The same with a status and a code of HTTP's own.
pub(crate) fn refusal(status: StatusCode, error: &ErrorItem, failure: &Failure) -> Response {
    refused(status, write_failure(error), failure)
}

pub(crate) fn status(failure: &Failure) -> StatusCode {
    StatusCode::from_u16(failure.kind.status()).expect("kinds have real statuses")
}

/// A failure in any form of JSON, with the headers that all of them have.
pub(crate) fn refused(status: StatusCode, body: Vec<u8>, failure: &Failure) -> Response {
    let mut response = json(status, Body::from(body));
    let to = response.headers_mut();
    to.insert(FAILURE, HeaderValue::from_static(failure.kind.name()));
    let second = Duration::from_secs(1);
    let told = if failure.kind == FailureKind::Unavailable {
        // The header has whole seconds. Rounding a fraction up would make clients wait far too long
        // through an election; their own first waits are of that size.
        failure
            .retry_after
            .filter(|wait| wait.is_zero() || *wait >= second)
    } else if failure.kind == FailureKind::Overloaded {
        // Whoever meets a full house must be told for how long to stay away.
        Some(failure.retry_after.unwrap_or(second))
    } else {
        failure.retry_after
    };
    if let Some(wait) = told {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        to.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.kind == FailureKind::Unknown {
        to.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if failure.kind == FailureKind::Unauthenticated {
        to.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub(crate) fn json(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A body in pieces, such as the envelope around large results, which are not copied.
pub(crate) struct Pieces {
    pieces: Vec<Bytes>,
    next: usize,
}

impl Pieces {
    fn new(results: Bytes) -> Self {
        Self::of(vec![
            Bytes::from_static(ENVELOPE_HEAD),
            results,
            Bytes::from_static(ENVELOPE_TAIL),
        ])
    }

    pub(crate) fn of(pieces: Vec<Bytes>) -> Self {
        Self { pieces, next: 0 }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let piece = this.pieces.get_mut(this.next).map(std::mem::take);
        this.next += 1;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.pieces.len()
    }

    fn size_hint(&self) -> SizeHint {
        // Pieces that were sent are empty by now.
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}
