//! The real world behind the handles: this machine's clock, its randomness, tokio's blocking threads.

use std::time::{SystemTime, UNIX_EPOCH};

use tidemark_engine::Threads;
use tidemark_protocol::env::{Clock, Random};
use tokio::runtime::Handle;

/// The machine's wall clock.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        #[allow(clippy::disallowed_methods)] // this is the handle that all others take
        let now = SystemTime::now();
        // A clock before 1970 is as wrong as one at 1970, and labels are all it is used for.
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The machine's source of randomness.
#[derive(Debug)]
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    fn bytes16(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("Linux gives random bytes from early boot on");
        bytes
    }
}

/// The runtime's blocking threads: they grow to [`SQL_THREADS_MAX`] on demand and end when idle.
#[derive(Debug)]
pub(crate) struct BlockingThreads(Handle);

/// SQL threads at most. More than cores: some wait for a disk, and a read may wait for a connection.
pub(crate) const SQL_THREADS_MAX: usize = 256;

impl BlockingThreads {
    /// Those of the runtime that runs the caller.
    pub(crate) fn of_this_runtime() -> Self {
        Self(Handle::current())
    }
}

impl Threads for BlockingThreads {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        // The handle is let go: a job that panics poisons its own component (see `engine::Strand`).
        drop(self.0.spawn_blocking(job));
    }
}
