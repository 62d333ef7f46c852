//! `PUT` under a link: the file that an import announced.
//!
//! Its bytes go to the spool as they come, hashed on the way; what has another hash than was announced goes
//! again. The link stays good: a client that lost the answer may send the file once more.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, ETAG, EXPECT};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use md5::{Digest, Md5};
use tidemark_protocol::d1::ErrorItem;
use tidemark_protocol::{Failure, FailureKind, Node, RequestId};
use tokio::sync::SemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use super::secret::{Etag, Secret};
use super::shelf::{Place, Upload};
use super::spool::{Spool, SpoolWriter, Spooled};
use crate::ask::Ask;
use crate::envelope;
use crate::gateway::Gateway;
use crate::limits::discard;
use crate::metrics::Route;

/// Longest that a sender may pause.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long what is left of a refused file is listened to.
const DISCARD_WAIT: Duration = Duration::from_secs(10);
/// The same where nothing of it was read, whoever sends it.
const REFUSED_WAIT: Duration = Duration::from_secs(2);
/// Bytes that are written and hashed at a time.
const BATCH_BYTES: usize = 1 << 20;
/// Pieces of them, however small.
const BATCH_PIECES_MAX: usize = 1024;

/// The secret in a link.
pub(crate) type SecretPath = Result<Path<String>, PathRejection>;

pub(crate) async fn upload<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    secret: SecretPath,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let work = async {
        match way(&gateway, secret, &head) {
            Ok(Way::Here(place, held)) => take(&gateway, place, held, &head, body).await,
            Ok(Way::There) => {
                let node = &*gateway.node;
                gateway.forwarder.forward_stream(node, &head, body).await
            }
            refused => {
                // A sender that waits to be told to go on has not begun.
                if !head.headers.contains_key(EXPECT) {
                    let _ = timeout(REFUSED_WAIT, discard(body.into_data_stream())).await;
                }
                refused.map(|_| unknown_link())
            }
        }
    };
    gateway.answer_link(Route::Upload, &head, work).await
}

/// Where a file goes.
enum Way<'g> {
    Here(Place, SemaphorePermit<'g>),
    There,
    Nowhere,
}

fn way<'g, N: Node>(
    gateway: &'g Gateway<N>,
    secret: SecretPath,
    head: &Parts,
) -> Result<Way<'g>, Failure> {
    let Some(secret) = parsed(secret) else {
        return Ok(Way::Nowhere);
    };
    let ask = Ask::read(&head.headers)?;
    let node = &*gateway.node;
    let transfers = &gateway.transfers;
    let place = transfers.state().shelf.place(secret, Instant::now());
    match place {
        Some(place) => Ok(Way::Here(place, transfers.receive()?)),
        None if ask.forwarded || node.upstream().is_none() => {
            leads(node)?;
            Ok(Way::Nowhere)
        }
        None => Ok(Way::There),
    }
}

/// What to say of a link that this node does not know and that it asks no other about.
pub(super) fn nowhere<N: Node>(node: &N) -> Result<Response, Failure> {
    leads(node).map(|()| unknown_link())
}

/// Only the node that leads can tell that a link is good for nothing.
fn leads<N: Node>(node: &N) -> Result<(), Failure> {
    node.ready()?;
    if node.upstream().is_some() {
        let text = "this node does not lead, and the one that does may know the link";
        return Err(Failure::new(FailureKind::Unavailable, text));
    }
    Ok(())
}

/// The secret of a link, if the text can be one.
pub(super) fn parsed(secret: SecretPath) -> Option<Secret> {
    let Path(text) = secret.ok()?;
    text.parse().ok()
}

/// There is nothing under it, here or anywhere.
pub(super) fn unknown_link() -> Response {
    let text = "The link leads nowhere: it is unknown, too old, or of a node that led before";
    let failure = Failure::new(FailureKind::BadRequest, text);
    let error = ErrorItem::from(&failure);
    envelope::refusal(StatusCode::NOT_FOUND, &error, &failure)
}

async fn take<N: Node>(
    gateway: &Gateway<N>,
    place: Place,
    _held: SemaphorePermit<'_>,
    head: &Parts,
    body: Body,
) -> Result<Response, Failure> {
    let transfers = &gateway.transfers;
    let file = received(Arc::clone(transfers.spool()?), place, head, body).await?;
    let upload = Upload {
        file,
        request: RequestId::new(
            uuid::Builder::from_random_bytes(gateway.handles.random.bytes16()).into_uuid(),
        ),
        begun: None,
        expires: place.expires,
    };
    if transfers.state().shelf.put(place, upload) {
        transfers.expire_later(place.expires);
    }
    let mut response = envelope::success(&(), None);
    let etag = HeaderValue::try_from(format!("\"{}\"", place.etag)).expect("hex digits");
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

async fn received(
    spool: Arc<Spool>,
    place: Place,
    head: &Parts,
    body: Body,
) -> Result<Arc<Spooled>, Failure> {
    let etag = place.etag;
    let max = spool.config().import_bytes_max;
    let announced = head.headers.get(CONTENT_LENGTH);
    let announced = announced
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    let mut body = body.into_data_stream();
    let read = async {
        if let Some(bytes) = announced.filter(|bytes| *bytes > max) {
            return Err(too_large(bytes, max));
        }
        let mut receiving = on_disk(move || Receiving::begin(&spool)).await?;
        let mut batch = Vec::new();
        let mut got: u64 = 0;
        let mut waiting = 0;
        while let Some(piece) = next(&mut body).await? {
            got += piece.len() as u64;
            if got > max {
                return Err(too_large(got, max));
            }
            waiting += piece.len();
            batch.push(piece);
            if waiting >= BATCH_BYTES || batch.len() >= BATCH_PIECES_MAX {
                let full = std::mem::take(&mut batch);
                receiving = on_disk(move || receiving.take(&full)).await?;
                waiting = 0;
            }
        }
        on_disk(move || receiving.take(&batch)?.finish(etag)).await
    };
    let read = timeout_at(place.expires, read).await.unwrap_or_else(|_| {
        let text = "the file was still coming when its link ended";
        Err(Failure::new(FailureKind::Deadline, text))
    });
    let late = |failure: &Failure| failure.kind == FailureKind::Deadline;
    if read.as_ref().is_err_and(|failure| !late(failure)) {
        // A sender that does not listen while it sends gets to read the refusal.
        let _ = timeout(DISCARD_WAIT, discard(body)).await;
    }
    read
}

async fn next(body: &mut axum::body::BodyDataStream) -> Result<Option<Bytes>, Failure> {
    match timeout(SILENCE_MAX, body.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(error))) => {
            let text = format!("The request is malformed: its body broke off: {error}");
            Err(Failure::new(FailureKind::BadRequest, text))
        }
        Err(_) => {
            let text = format!("nothing of the file came for {SILENCE_MAX:?}");
            Err(Failure::new(FailureKind::Deadline, text))
        }
    }
}

fn too_large(got: u64, max: u64) -> Failure {
    let text = format!("the file has {got} bytes or more, the limit is {max} bytes");
    Failure::new(FailureKind::TooLarge, text)
}

/// Runs what blocks where it may.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work)
        .await
        .expect("writing a file does not panic")
}

/// A file on its way in.
struct Receiving {
    writer: SpoolWriter,
    hash: Md5,
}

impl Receiving {
    fn begin(spool: &Arc<Spool>) -> Result<Self, Failure> {
        Ok(Self {
            writer: spool.create()?,
            hash: Md5::new(),
        })
    }

    fn take(mut self, pieces: &[Bytes]) -> Result<Self, Failure> {
        for piece in pieces {
            self.hash.update(piece);
            self.writer.write(piece)?;
        }
        Ok(self)
    }

    fn finish(self, announced: Etag) -> Result<Arc<Spooled>, Failure> {
        let got = Etag(self.hash.finalize().into());
        if got != announced {
            let text = format!("the file that came has the md5 {got}, announced was {announced}");
            return Err(Failure::new(FailureKind::BadRequest, text));
        }
        Ok(self.writer.finish())
    }
}
