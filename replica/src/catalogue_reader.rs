//! Keeps the catalogue in memory as its copy moves.
//!
//! One task reads it again whenever its position has changed, however many transactions that took, and
//! lets the node hold what it lists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_engine::{Control, ReadError};
use tidemark_protocol::catalogue::{Catalogue, CatalogueError, CatalogueReader};
use tidemark_protocol::{Position, Statement};
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
            match refresh(&core).await {
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
    if let Err(error) = refresh(core).await {
        tracing::info!(%error, "starting without a catalogue");
    }
}

/// Reads the catalogue once. Returns the position read.
async fn refresh(core: &Arc<Core>) -> Result<Position, Unread> {
    let result = read(core).await;
    result.map(|(position, catalogue)| {
        core.adopt(&Arc::new(catalogue));
        position
    })
}

async fn read(core: &Arc<Core>) -> Result<(Position, Catalogue), Unread> {
    let open = core.catalogue_copy.open().ok_or(Unread::Closed)?;
    let read = core.on_thread(move || {
        let statements: [Statement; 3] = CatalogueReader::statements();
        let mut reader = CatalogueReader::default();
        let control = Control::until(Instant::now() + READ_WAIT);
        let position = open.database.read(&statements, &control, &mut reader)?;
        Ok((position, reader.finish()?))
    });
    read.await.unwrap_or(Err(Unread::Panicked))
}
