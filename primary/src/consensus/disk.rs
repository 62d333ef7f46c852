//! How consensus works on its files: handles, so that a simulation can own threads and the speed of the disk.

use std::fmt;
use std::io;
use std::sync::Arc;

use tidemark_engine::{Threads, on_thread};

/// What of the world the files of consensus are worked on with.
#[derive(Clone)]
pub(crate) struct Disk {
    /// Run what blocks.
    pub(crate) threads: Arc<dyn Threads>,
    /// Decides when the log is flushed. `None`: the log's thread does, at once.
    pub(crate) slow: Option<Arc<dyn SlowDisk>>,
}

/// A simulated disk, which decides when it flushes what the log has given it, and when it says so.
pub trait SlowDisk: Send + Sync + 'static {
    /// The log is to be flushed: to run `flush` does that, then to run what it returns tells those who wait. Neither is
    /// run before this has returned, both are run outside any other flush, and in a crash perhaps not at all. There is
    /// no other flush until then.
    fn flush(&self, flush: Flush);
}

/// Makes everything durable that was written before; returns who is to be told.
pub type Flush = Box<dyn FnOnce() -> Box<dyn FnOnce() + Send> + Send>;

impl Disk {
    /// Runs what blocks, beside the runtime.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let done = on_thread(&*self.threads, job).await;
        done.ok_or_else(|| io::Error::other("a thread that works on files panicked"))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl fmt::Debug for dyn SlowDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlowDisk")
    }
}
