//! The sending side: `POST /tidemark/v1/cell/databases/{uuid}/image`.
//!
//! The request's body is the receiver's page hashes, eight bytes each; the answer's is described in
//! [`super::body`]. Any voter answers, from what its readers see: that is committed, whoever leads. So no
//! request names the voter it is meant for: whom the receiver knows at this address may be long outdated.
//!
//! An image holds a snapshot of its database open, and with it the WAL. So a receiver that takes nothing
//! for [`PATIENCE`] is dropped, and so is one during whose image the WAL grows by more than the database
//! has bytes, or [`WAL_BYTES_MAX`] if that is more; and one whose database is itself replaced here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::{Buf, Bytes};
use futures_util::stream;
use tidemark_engine::wait_on;
use tidemark_protocol::stream::SourceMessage;
use tidemark_protocol::{DatabaseId, Term};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::body::table_length;
use crate::cell::Primary;
use crate::peer_http::{knows_secret, stranger};
use crate::pipeline::Line;
use crate::ship::image;

/// Where a voter fetches the image of a database.
const IMAGE_PATH: &str = "/tidemark/v1/cell/databases/{uuid}/image";
/// Header of a 410 that names the deleted database. Without it no answer says that one was deleted.
pub(super) const DELETED: &str = "tidemark-deleted";
/// Page hashes of one request. Pages beyond them are sent as if they differed.
pub(super) const HASHES_MAX: usize = 8 << 20;
/// Images on their way at once.
const IMAGES_MAX: usize = 4;
/// Longest that a receiver waits for others' images to end.
const TURN_WAIT: Duration = Duration::from_secs(10);
/// Time for the hashes to come in.
const HASHES_WAIT: Duration = Duration::from_secs(60);
/// Longest that a receiver may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Growth of the WAL that an image may cost in any case.
const WAL_BYTES_MAX: u64 = 1 << 30;
/// Messages in memory on their way out.
const MESSAGES_AHEAD: usize = 4;
/// Pieces in which a table of requests leaves.
const TABLE_PIECE_BYTES: usize = 256 << 10;

/// The images on their way.
#[derive(Clone, Debug)]
struct Images(Arc<Semaphore>);

impl Default for Images {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IMAGES_MAX)))
    }
}

/// Where a peer is asked for a database.
pub(super) fn image_url(base_url: &str, database: DatabaseId) -> String {
    let path = IMAGE_PATH.replace("{uuid}", &database.to_string());
    format!("{}{path}", base_url.trim_end_matches('/'))
}

/// The route of this file.
pub(crate) fn routes() -> Router<Arc<Primary>> {
    Router::new()
        .route(IMAGE_PATH, post(image))
        .layer(Extension(Images::default()))
}

/// Answers a voter that knows the secret.
async fn image(
    State(primary): State<Arc<Primary>>,
    Extension(Images(images)): Extension<Images>,
    UrlPath(uuid): UrlPath<String>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    if !knows_secret(&head.headers, &primary.config.cluster_secret) {
        return stranger();
    }
    let Ok(database) = uuid.parse::<DatabaseId>() else {
        return (StatusCode::BAD_REQUEST, "the path names no database").into_response();
    };
    let hashes = match timeout(HASHES_WAIT, to_bytes(body, HASHES_MAX * 8)).await {
        Ok(Ok(hashes)) if hashes.len().is_multiple_of(8) => hashes,
        Ok(Ok(_)) => {
            return (StatusCode::BAD_REQUEST, "page hashes have eight bytes each").into_response();
        }
        Ok(Err(error)) => {
            return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response();
        }
        Err(_elapsed) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    if primary.databases.is_gone(database) {
        return deleted(database);
    }
    let Ok(Ok(turn)) = timeout(TURN_WAIT, images.acquire_owned()).await else {
        return busy("too many images are on their way");
    };
    let Some(line) = primary.databases.wake(database).await else {
        return if primary.databases.is_gone(database) {
            deleted(database)
        } else {
            // Not here yet, being replaced, or closed by a replacement that failed.
            busy("the database is not open here")
        };
    };
    if line.is_damaged() || line.database().position().is_none() {
        return busy("the copy here is damaged");
    }
    let term = primary.consensus.leadership().borrow().term;
    let directory = primary.databases.directory(database);
    let (to, body) = mpsc::channel(1);
    tokio::spawn(send(primary, line, directory, term, hashes, to, turn));
    let body = stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
    Body::from_stream(body).into_response()
}

/// The receiver's copy goes, too. A server that knows nothing of databases may also answer 410, but it
/// names none.
fn deleted(database: DatabaseId) -> Response {
    let named = [(DELETED, database.to_string())];
    (StatusCode::GONE, named, "the database was deleted").into_response()
}

fn busy(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], why).into_response()
}

/// Why an image is broken off: all that its receiver sees is that the body does not end in order.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the receiver took nothing for {PATIENCE:?}, or is gone")]
    Receiver,
    #[error("it could not be read to its end")]
    Read,
    #[error("the writer stopped")]
    Writer,
}

type Piece = Result<Bytes, SendError>;

async fn send(
    primary: Arc<Primary>,
    line: Arc<Line>,
    directory: std::path::PathBuf,
    term: Term,
    hashes: Bytes,
    to: mpsc::Sender<Piece>,
    turn: OwnedSemaphorePermit,
) {
    let database = line.id();
    primary.ship.metrics.images.inc();
    if let Err(error) = send_pieces(&primary, line, &directory, term, hashes, &to).await {
        tracing::warn!(%database, %error, "an image for a voter is broken off");
        drop(timeout(PATIENCE, to.send(Err(error))).await);
    }
    drop(turn);
}

async fn send_pieces(
    primary: &Primary,
    line: Arc<Line>,
    directory: &Path,
    term: Term,
    hashes: Bytes,
    to: &mpsc::Sender<Piece>,
) -> Result<(), SendError> {
    let (messages, mut pieces) = mpsc::channel(MESSAGES_AHEAD);
    let (done, outcome) = oneshot::channel();
    let wal = Wal::of(directory, line.database().file_size());
    let source = Arc::clone(&line);
    let threads = Arc::clone(&primary.environment.threads);
    primary.environment.threads.run(Box::new(move || {
        let deliver = |message| wait_on(&*threads, messages.send(message)).is_ok();
        // Whoever is gone wants no outcome.
        let _ = done.send(read(&source, term, hashes, &wal, deliver));
    }));
    while let Some(piece) = pieces.recv().await {
        pass_on(to, piece).await?;
    }
    if !outcome.await.unwrap_or(false) {
        return Err(SendError::Read);
    }
    // Later than the image: so it has every request that the image has.
    let table = line.requests().await.ok_or(SendError::Writer)?;
    drop(line);
    pass_on(to, table_length(&table)).await?;
    let mut rest = table;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(TABLE_PIECE_BYTES));
        pass_on(to, piece).await?;
    }
    Ok(())
}

async fn pass_on(to: &mpsc::Sender<Piece>, piece: Bytes) -> Result<(), SendError> {
    let sent = timeout(PATIENCE, to.send(Ok(piece))).await;
    sent.map_err(|_elapsed| SendError::Receiver)?
        .map_err(|_closed| SendError::Receiver)
}

/// Reads the image on a SQL thread. False if it did not come to its end.
fn read(
    line: &Line,
    term: Term,
    mut hashes: Bytes,
    wal: &Wal,
    mut deliver: impl FnMut(Bytes) -> bool,
) -> bool {
    let mut theirs = Vec::with_capacity(hashes.len() / 8);
    while hashes.has_remaining() {
        theirs.push(hashes.get_u64_le());
    }
    let deliver_piece = |piece: Option<SourceMessage>| {
        if line.is_retired() || wal.is_too_long() {
            return false;
        }
        let sign_of_life = SourceMessage::Heartbeat { stamp: 0, term };
        let message = piece.unwrap_or(sign_of_life);
        deliver(message.encode())
    };
    match image::send(line.database(), term, &theirs, deliver_piece) {
        Ok(position) => position.is_some(),
        Err(error) => {
            tracing::error!(database = %line.id(), %error, "cannot read a state to send");
            false
        }
    }
}

/// The WAL that a snapshot keeps from starting over.
#[derive(Debug)]
struct Wal {
    path: std::path::PathBuf,
    bytes_max: u64,
}

impl Wal {
    fn of(directory: &Path, database_bytes: u64) -> Self {
        let mut wal = Self {
            path: directory.join("main.db-wal"),
            bytes_max: 0,
        };
        wal.bytes_max = wal.bytes() + database_bytes.max(WAL_BYTES_MAX);
        wal
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    fn is_too_long(&self) -> bool {
        self.bytes() > self.bytes_max
    }
}
