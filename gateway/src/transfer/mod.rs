//! Import and export in D1's way: a database as a file of SQL, in and out, by polling.
//!
//! 1. `import` with `init` names a file by its md5 and gets a link; [`mod@upload`] takes the file under it, into
//!    the [`Spool`]; `ingest` has it run, as one transaction; `poll` tells how it goes ([`mod@import`]).
//! 2. `export` starts writing the database into the spool and tells how it goes; in the end it has a link, under
//!    which [`mod@download`] gives the file ([`mod@export`]).
//! 3. A [`Link`] leads back to the host that the client used, whichever node that is: one that does not know
//!    its secret asks the node that leads.
//!
//! All of it happens at the node that leads, in its memory and its spool: after a change of leader, or a start,
//! nothing of it is known any more. That is safe, since an import is one transaction that is there or is not.
//!
//! An upload is good for one import, which runs under one request id: the client's `tidemark-request-id` if the
//! request that begins it has one, else one that the upload got as it arrived. Thus:
//!
//! - A client that asks again at the same leader, having lost an answer, finds its import done or running; the end
//!   is told again for a while, and a file whose outcome is unknown may be tried again for [`RETRIED_MAX`].
//! - After a change of leader the upload is gone, and its request id with it. Only under a request id of the
//!   client's own is the same file, uploaded again, sure to count once; without, whoever lost the answer has to look
//!   whether the import took effect. So does a client that begins anew with `init` once an end was told.
//!
//! Once it is done, the file goes. D1 keeps it, and runs it again for a client that repeats a request.
//!
//! Reads and other writes go on meanwhile. Bounds: [`SpoolConfig`] on files, [`RUNNING_MAX`] on what runs,
//! [`shelf`] on links.

pub(crate) mod download;
pub(crate) mod export;
pub(crate) mod import;
mod jobs;
mod link;
mod opening;
mod report;
mod secret;
mod shelf;
mod spool;
#[cfg(test)]
mod tests;
pub(crate) mod upload;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemark_protocol::{DatabaseId, Failure, FailureKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::export::ExportFile;
use self::import::Imported;
use self::jobs::Jobs;
pub(crate) use self::link::forwarded_host;
use self::secret::Etag;
use self::shelf::Shelf;
use self::spool::Spooled;
pub use self::spool::{Spool, SpoolConfig};

/// Reads the bodies of `import` and `export` as if something were to be done.
#[cfg(feature = "fuzzing")]
pub(crate) fn understood(body: &[u8]) {
    let _ = import::Action::parse(body);
    let _ = export::Wish::parse(body);
}

/// Imports and exports that run at a time, over all databases: each import has its whole file in memory.
const RUNNING_MAX: usize = 4;
/// Files that come in at a time: each has a megabyte in memory.
const RECEIVED_MAX: usize = 64;
/// How long an answer is held back for the end to come: D1's clients ask again at once.
const HOLD: Duration = Duration::from_secs(1);
/// Longest that an import or an export may take.
const RUN_MAX: Duration = Duration::from_secs(600);
/// How long after its import began first a file of unknown outcome may be tried again: well below the quarter of an
/// hour for which a node remembers request ids.
const RETRIED_MAX: Duration = Duration::from_secs(600);
/// A job whose work went away without a word.
const BROKEN: &str = "the node failed during the work; whether it took effect is unknown";

/// What a node knows of imports and exports.
pub(crate) struct Transfers {
    /// None: the node was given no place for files.
    spool: Option<Arc<Spool>>,
    running: Arc<Semaphore>,
    received: Semaphore,
    state: Mutex<State>,
    /// Something ended.
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    imports: Jobs<Etag, Imported>,
    exports: Jobs<(), ExportFile>,
    shelf: Shelf<Arc<Spooled>>,
}

impl Transfers {
    pub(crate) fn new(spool: Option<Arc<Spool>>) -> Arc<Self> {
        Arc::new(Self {
            spool,
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            received: Semaphore::new(RECEIVED_MAX),
            state: Mutex::default(),
            ended: watch::Sender::new(()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one call: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spool(&self) -> Result<&Arc<Spool>, Failure> {
        self.spool.as_ref().ok_or_else(|| {
            let text = "this node has no spool directory, which imports and exports need";
            Failure::new(FailureKind::BadRequest, text)
        })
    }

    /// A place among what runs.
    fn enter(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = Arc::clone(&self.running).try_acquire_owned();
        place.map_err(|_| {
            let text = format!(
                "{RUNNING_MAX} imports and exports are running on this node, which is the limit"
            );
            Failure::new(FailureKind::Overloaded, text).retry_after(HOLD)
        })
    }

    /// A place among files that come in.
    fn receive(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.received.try_acquire().map_err(|_| {
            let text =
                format!("{RECEIVED_MAX} files are coming in to this node, which is the limit");
            Failure::new(FailureKind::Overloaded, text).retry_after(HOLD)
        })
    }

    /// Waits until `running` says no, but no longer than this.
    async fn while_running(&self, until: Instant, running: impl Fn(&State) -> bool) {
        let mut ended = self.ended.subscribe();
        while running(&self.state()) {
            if timeout_at(until, ended.changed()).await.is_err() {
                return;
            }
        }
    }

    fn tell_end(&self) {
        self.ended.send_replace(());
    }

    /// Sees to it that files leave in time even if nobody asks any more.
    fn expire_later(self: &Arc<Self>, at: Instant) {
        let transfers = Arc::downgrade(self);
        // Let go: it ends by itself, and what it does is done at every request as well.
        drop(tokio::spawn(async move {
            sleep_until(at).await;
            if let Some(transfers) = transfers.upgrade() {
                transfers.state().shelf.expire(Instant::now());
            }
        }));
    }
}

/// Does this when it is dropped, be it by a panic.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// D1's name of the file with this content.
fn file_name(database: DatabaseId, etag: Etag) -> String {
    format!("{database}.{etag}.sql")
}
