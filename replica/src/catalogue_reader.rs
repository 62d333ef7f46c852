//! Keeps the catalogue in memory as its copy moves.
//!
//! One task reads what changed whenever its position has, however many transactions that took, and
//! lets the node hold what it lists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_engine::{Control, ReadError};
use tidemark_protocol::Position;
use tidemark_protocol::catalogue::{CatalogueError, CatalogueReader, CatalogueReading};
use tokio_util::sync::CancellationToken;

use crate::core::Core;

/// Time for reading the whole catalogue.
const READ_WAIT: Duration = Duration::from_secs(30);
/// Pause before a read that failed for no lasting reason is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Why the catalogue could not be read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the catalogue is not open")]
    Closed,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Content(#[from] CatalogueError),
    #[error("reading the catalogue panicked")]
    Panicked,
}

impl Unread {
    /// Whether only another state of the catalogue can help.
    fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Closed
                | Self::Content(_)
                | Self::Read(ReadError::Sql(_) | ReadError::Damaged { .. })
        )
    }
}

/// Reads the catalogue whenever it changes, until `stop`.
pub(crate) async fn keep_catalogue(core: Arc<Core>, stop: CancellationToken) {
    let mut standing = core.catalogue_copy.standing();
    let mut read_at = None;
    loop {
        let stands = standing.borrow_and_update().clone();
        let mut retry = false;
        if stands.readable() && stands.position != read_at {
            match refresh(&core, read_at).await {
                Ok(position) => read_at = Some(position),
                // An empty database: the cell's first transaction is still to come.
                Err(error) if error.is_lasting() => {
                    tracing::debug!(%error, "no catalogue at {:?}", stands.position);
                }
                Err(error) => {
                    tracing::warn!(%error, "the catalogue cannot be read");
                    retry = true;
                }
            }
        }
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_WAIT), if retry => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Reads the catalogue at the start, if there is one.
pub(crate) async fn read_catalogue_once(core: &Arc<Core>) {
    if let Err(error) = refresh(core, None).await {
        tracing::info!(%error, "starting without a catalogue");
    }
}

/// Reads what is new in the catalogue, whose known state was read at `read_at`, or the whole. Returns the position
/// read.
async fn refresh(core: &Arc<Core>, read_at: Option<Position>) -> Result<Position, Unread> {
    let changes = core.catalogue().and_then(|known| known.changes());
    if let (Some(read_at), Some(changes)) = (read_at, changes) {
        let (position, reading) = read(core, CatalogueReader::since(changes)).await?;
        let same_history = position.epoch == read_at.epoch;
        if same_history && core.adopt(reading) {
            return Ok(position);
        }
    }
    let (position, reading) = read(core, CatalogueReader::default()).await?;
    core.adopt(reading);
    Ok(position)
}

async fn read(
    core: &Arc<Core>,
    mut reader: CatalogueReader,
) -> Result<(Position, CatalogueReading), Unread> {
    let open = core.catalogue_copy.open().ok_or(Unread::Closed)?;
    let read = core.on_thread(move || {
        let control = Control::until(Instant::now() + READ_WAIT);
        let statements = reader.statements();
        let position = open.database.read(&statements, &control, &mut reader)?;
        Ok((position, reader.finish()?))
    });
    read.await.unwrap_or(Err(Unread::Panicked))
}
