//! What all databases of a node share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tidemark_engine::{Options, Threads};
use tidemark_protocol::DatabaseId;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::soundings::Soundings;

/// What all databases of a node share.
pub(crate) struct Site {
    /// `data/databases`.
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) threads: Arc<dyn Threads>,
    pub(crate) runtime: Handle,
    pub(crate) metrics: Metrics,
    pub(crate) soundings: Soundings,
    /// Bytes that may still be received before something is applied.
    pub(crate) queue_bytes: Arc<Semaphore>,
    /// Places for databases that resynchronise at once.
    pub(crate) resyncs: Arc<Semaphore>,
    /// Looks at which copies are idle, counted: the time that copies note their uses by.
    pub(crate) looks: AtomicU64,
    /// Held by each export.
    pub(crate) exports: Arc<Semaphore>,
    /// Cancelled when a part of the node has failed for good.
    pub(crate) failed: CancellationToken,
}

impl Site {
    /// The files of one database.
    pub(crate) fn directory_of(&self, database: DatabaseId) -> PathBuf {
        self.directory.join(database.to_string())
    }
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}
