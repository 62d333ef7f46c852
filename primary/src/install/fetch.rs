//! The receiving side: one database from a peer, into a new file beside the old one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tidemark_engine::{Threads, wait_on};
use tidemark_net::{Answer, Connector};
use tidemark_protocol::DatabaseId;
use tidemark_protocol::stream::SourceMessage;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::InstallError;
use super::assembly::{Assembly, Image, Old};
use super::body::{Piece, Pieces};
use super::serve::{DELETED, HASHES_MAX, image_url};
use crate::databases::Arrival;
use crate::peer_http::{PeerClient, chain};
use crate::pipeline::{Line, keep_fetched};

/// Databases that are fetched at once.
pub(super) const FETCHES_MAX: usize = 2;
/// Longest silence of the peer. It has signs of life to give every few megabytes.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Longest that the disk may take for what came.
const DISK_WAIT: Duration = Duration::from_secs(60);
/// Pieces in memory on their way to the disk.
const PIECES_AHEAD: usize = 4;
/// Bytes of a refusal's text that are kept.
const REASON_BYTES_MAX: usize = 1024;

/// Fetches databases of peers.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: PeerClient,
}

impl Fetcher {
    /// With this cluster secret, or with none if it is empty. `None` if it cannot be sent in a header.
    pub(super) fn new(secret: &str, connector: &Arc<dyn Connector>) -> Option<Self> {
        let client = PeerClient::new(secret, connector, FETCHES_MAX)?;
        Some(Self { client })
    }

    /// Fetches what differs from `old`, the copy that is here. `None`: the peer knows that the database was
    /// deleted. `arrival` stays with whoever writes files.
    pub(super) async fn fetch(
        &self,
        database: DatabaseId,
        directory: PathBuf,
        old: Option<Arc<Line>>,
        source_url: &str,
        threads: &Arc<dyn Threads>,
        arrival: Arrival,
    ) -> Result<Option<(Image, Arrival)>, InstallError> {
        let old = match old {
            Some(line) => on_thread(threads, move || Old::of(&line)).await?,
            None => Old::default(),
        };
        let Some(response) = self.ask(database, &old.hashes, source_url).await? else {
            return Ok(None);
        };
        let (to, pieces) = mpsc::channel(PIECES_AHEAD);
        let waiting = Arc::clone(threads);
        let building = on_thread(threads, move || {
            let mut pieces = pieces;
            let next = || wait_on(&*waiting, pieces.recv());
            // Whatever is dropped of the image on the way is dropped before the arrival.
            let image = build(database, &directory, old, next)?;
            Ok::<_, InstallError>(image.map(|image| (image, arrival)))
        });
        let (received, built) = tokio::join!(receive(database, response, to), building);
        // What the disk says goes before that nobody took any more pieces.
        let image = built??;
        received?;
        image.map(Some).ok_or(InstallError::Cut {
            database,
            part: "pages",
        })
    }

    async fn ask(
        &self,
        database: DatabaseId,
        hashes: &[u64],
        source_url: &str,
    ) -> Result<Option<Answer>, InstallError> {
        if source_url.is_empty() {
            return Err(InstallError::Source { database });
        }
        let mut body = BytesMut::with_capacity(hashes.len().min(HASHES_MAX) * 8);
        for hash in hashes.iter().take(HASHES_MAX) {
            body.extend_from_slice(&hash.to_le_bytes());
        }
        let url = image_url(source_url, database);
        let request = self.client.request(Method::POST, &url);
        let failed = |reason| InstallError::Connection { database, reason };
        let silent = |_elapsed| InstallError::Silent {
            database,
            silence: SILENCE_MAX,
        };
        let mut response = timeout(SILENCE_MAX, self.client.send(request, body.freeze()))
            .await
            .map_err(silent)?
            .map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Some(response));
        }
        // Anybody may sit at an address and have nothing here: only who knows of the deletion says this.
        let deleted = response.headers().get(DELETED);
        let names = |deleted: &HeaderValue| *deleted == database.to_string();
        if status == StatusCode::GONE
            && database != DatabaseId::CATALOGUE
            && deleted.is_some_and(names)
        {
            return Ok(None);
        }
        let text = timeout(SILENCE_MAX, next_chunk(&mut response))
            .await
            .map_err(silent)?;
        let text = text.map_err(failed)?.unwrap_or_default();
        let text = &text[..text.len().min(REASON_BYTES_MAX)];
        Err(InstallError::Refused {
            database,
            status: status.as_u16(),
            reason: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

/// Passes the body on, piece by piece.
async fn receive(
    database: DatabaseId,
    mut response: Answer,
    to: mpsc::Sender<Piece>,
) -> Result<(), InstallError> {
    let mut pieces = Pieces::of(database);
    loop {
        let chunk = timeout(SILENCE_MAX, next_chunk(&mut response)).await;
        let chunk = chunk.map_err(|_elapsed| InstallError::Silent {
            database,
            silence: SILENCE_MAX,
        })?;
        let chunk = chunk.map_err(|reason| InstallError::Connection { database, reason })?;
        let Some(chunk) = chunk else {
            return pieces.end();
        };
        pieces.extend(&chunk);
        while let Some(piece) = pieces.next()? {
            let taken = timeout(DISK_WAIT, to.send(piece)).await;
            let taken = taken.map_err(|_elapsed| InstallError::Silent {
                database,
                silence: DISK_WAIT,
            })?;
            // The other side has something to say for itself.
            taken.map_err(|_closed| InstallError::Stopped)?;
        }
    }
}

/// The next bytes of the body. `None` at its end.
async fn next_chunk(response: &mut Answer) -> Result<Option<Bytes>, String> {
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|error| chain(&error))?;
        // There are no trailers that mean anything.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Writes the pieces. `None` if they ended too early.
fn build(
    database: DatabaseId,
    directory: &Path,
    old: Old,
    mut next: impl FnMut() -> Option<Piece>,
) -> Result<Option<Image>, InstallError> {
    let unexpected = |part: &dyn std::fmt::Debug| InstallError::Unexpected {
        database,
        part: format!("{part:?}"),
    };
    let mut old = Some(old);
    let mut assembly: Option<Assembly> = None;
    let mut image = None;
    while let Some(piece) = next() {
        match piece {
            Piece::Message(SourceMessage::Heartbeat { .. }) => {}
            Piece::Message(SourceMessage::ImageBegin {
                database: of,
                term: _,
                position,
                page_count,
            }) if of == database => {
                let old = old.take().ok_or_else(|| unexpected(&"second beginning"))?;
                assembly = Some(Assembly::begin(
                    database, directory, old, position, page_count,
                )?);
            }
            Piece::Message(SourceMessage::Pages {
                database: of,
                pages,
            }) if of == database => match &mut assembly {
                Some(assembly) => assembly.pages(&pages)?,
                None => return Err(unexpected(&"pages")),
            },
            Piece::Message(SourceMessage::ImageEnd { database: of }) if of == database => {
                let assembly = assembly.take().ok_or_else(|| unexpected(&"end"))?;
                image = Some(assembly.finish()?);
            }
            Piece::Message(message) => return Err(unexpected(&message)),
            Piece::Requests(table) => {
                let kept = keep_fetched(directory, &table)
                    .map_err(|source| InstallError::Files { database, source })?;
                if !kept {
                    let bytes = table.len() as u64;
                    return Err(InstallError::Requests { database, bytes });
                }
                return Ok(image);
            }
        }
    }
    Ok(None)
}

async fn on_thread<T: Send + 'static>(
    threads: &Arc<dyn Threads>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, InstallError> {
    let done = tidemark_engine::on_thread(&**threads, job).await;
    done.ok_or(InstallError::Stopped)
}
