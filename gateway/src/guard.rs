//! Requests that go from node to node, and their answers, under a CRC: [`Guard`].
//!
//! 1. Whoever passes a request on adds the guard of all that it sends.
//! 2. The node that gets it checks the head before anything else, and the body as it is read. What was damaged is refused
//!    as a node does that does not lead: nothing was done, and whoever passed it on looks again.
//! 3. Its answer has a guard too. One that was damaged is none: what became of a write is unknown then. A body is passed
//!    back as it comes, but for its last piece, which waits until all of it has been checked: who gets a damaged answer
//!    sees it break off.
//!
//! What a client sends and is answered has no guard; there TLS is in its place.

use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tidemark_protocol::guard::{BodyCrc, Damaged, Guard, body_crc};
use tidemark_protocol::{Failure, FailureKind, headers};
use tracing::warn;

use crate::envelope::{self, Pieces};

const GUARD: HeaderName = HeaderName::from_static(headers::GUARD);
const FORWARDED_BY: HeaderName = HeaderName::from_static(headers::FORWARDED_BY);
/// Answers up to this are held whole anyway.
const HELD_BYTES_MAX: u64 = 1 << 30;

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let pairs = headers.iter();
    pairs.map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// What the guard covers of a URL.
pub(crate) fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

fn text(guard: Guard) -> HeaderValue {
    HeaderValue::try_from(guard.to_string()).expect("hex digits and a dash")
}

/// What the header says. Whoever speaks to a node under a guard is answered under one.
fn said(headers: &HeaderMap) -> Result<Guard, Damaged> {
    let text = headers.get(GUARD).and_then(|text| text.to_str().ok());
    text.ok_or(Damaged::Missing)?.parse()
}

/// Puts a request that leaves with these headers under a guard. `body`: if it is held whole.
pub(crate) fn guard_request(head: &Parts, headers: &mut HeaderMap, body: Option<&Bytes>) {
    let body = body.map(|body| body_crc([&body[..]]));
    let words = [head.method.as_str(), target(&head.uri)];
    let guard = Guard::of(&words, pairs(headers), body);
    headers.insert(GUARD, text(guard));
}

/// A request as it came in.
pub(crate) enum Came {
    /// From a client.
    Client(Request<Incoming>),
    /// From a node, sound as far as it has been read.
    Node(Request),
    /// From a node, and damaged. What to answer.
    Damaged(Response),
}

/// Looks at a request that has just come in.
pub(crate) fn admit(request: Request<Incoming>) -> Came {
    // One look at the few names that there are, instead of a search for each of the two.
    let mut names = request.headers().keys();
    if !names.any(|name| *name == FORWARDED_BY || *name == GUARD) {
        return Came::Client(request);
    }
    let (head, body) = request.into_parts();
    let words = [head.method.as_str(), target(&head.uri)];
    let checked =
        said(&head.headers).and_then(|guard| guard.check_head(&words, pairs(&head.headers)));
    match checked {
        Ok(Some(crc)) => Came::Node(Request::from_parts(
            head,
            Body::new(Checked::new(body, crc)),
        )),
        Ok(None) => Came::Node(Request::from_parts(head, Body::new(body))),
        Err(damaged) => Came::Damaged(envelope::failure(&refused(damaged))),
    }
}

/// What a request is answered that was damaged: nothing was done.
fn refused(damaged: Damaged) -> Failure {
    warn!(%damaged, "a request of another node is not what it sent");
    let text = format!("the request was damaged on its way from node to node: {damaged}");
    Failure::new(FailureKind::Unavailable, text)
}

/// The same, if that is why a body could not be read.
pub(crate) fn damage(error: &axum::Error) -> Option<Failure> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(damaged) = error.downcast_ref::<Damaged>() {
            return Some(refused(*damaged));
        }
        cause = error.source();
    }
    None
}

/// Puts an answer under a guard.
pub(crate) async fn guard_answer(response: Response) -> Response {
    use http_body::Body as _;

    let (mut head, body) = response.into_parts();
    let is_held = body.size_hint().exact();
    let is_held = is_held.is_some_and(|bytes| bytes <= HELD_BYTES_MAX);
    let (body, crc) = if is_held {
        let mut stream = body.into_data_stream();
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => pieces.push(piece),
                // What is held does not fail; if it did, the other node would miss the guard.
                Err(error) => return Response::new(Body::from(error.to_string())),
            }
        }
        let crc = body_crc(pieces.iter().map(|piece| &piece[..]));
        (Body::new(Pieces::of(pieces)), Some(crc))
    } else {
        (body, None)
    };
    let guard = Guard::of(&[head.status.as_str()], pairs(&head.headers), crc);
    head.headers.insert(GUARD, text(guard));
    Response::from_parts(head, body)
}

/// The body of an answer of another node, whose head is sound. Takes the guard off.
pub(crate) fn answered<B>(
    status: StatusCode,
    headers: &mut HeaderMap,
    body: B,
) -> Result<Body, Damaged>
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
{
    let crc = said(headers)?.check_head(&[status.as_str()], pairs(headers))?;
    headers.remove(GUARD);
    Ok(match crc {
        Some(crc) => Body::new(Checked::new(body, crc)),
        None => Body::new(body),
    })
}

/// A body on its way, whose last piece waits until all of it has been checked.
struct Checked<B> {
    body: B,
    expected: u32,
    crc: BodyCrc,
    held: Option<Bytes>,
    ended: bool,
}

impl<B> Checked<B> {
    fn new(body: B, expected: u32) -> Self {
        Self {
            body,
            expected,
            crc: BodyCrc::default(),
            held: None,
            ended: false,
        }
    }
}

impl<B> http_body::Body for Checked<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        while !this.ended {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                // Trailers are nothing that nodes send.
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else {
                        continue;
                    };
                    this.crc.update(&piece);
                    if let Some(before) = this.held.replace(piece) {
                        return Poll::Ready(Some(Ok(Frame::data(before))));
                    }
                }
                Some(Err(error)) => {
                    this.ended = true;
                    this.held = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    this.ended = true;
                    if let Err(damaged) = this.crc.check(this.expected) {
                        this.held = None;
                        return Poll::Ready(Some(Err(damaged.into())));
                    }
                }
            }
        }
        Poll::Ready(this.held.take().map(|last| Ok(Frame::data(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().map_or(0, Bytes::len) as u64;
        let rest = self.body.size_hint();
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(held + rest),
            None => SizeHint::default(),
        }
    }
}
