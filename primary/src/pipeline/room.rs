//! Room in memory for committed transactions that their writers have not dealt with.
//!
//! A writer may be slower than the log, on a follower whose disk is the slowest for one. Whoever applies the log then
//! waits for room, and what comes after stays in the log, on disk. The room is one for all databases of a
//! node, and given back as the writers go on, which wait for nothing that is applied.

use std::sync::Arc;

use tidemark_protocol::Transaction;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room of a node.
#[derive(Debug)]
pub(crate) struct Room {
    bytes_free: Arc<Semaphore>,
    bytes_max: u32,
}

/// What one transaction has of it, given back when dropped.
pub(crate) type Share = OwnedSemaphorePermit;

impl Room {
    pub(crate) fn new(bytes_max: u32) -> Self {
        let bytes_max = bytes_max.max(1);
        let permits = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self {
            bytes_free: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            bytes_max,
        }
    }

    /// The share of `transaction`, if there is as much. Of one that is larger than the room, all of it.
    pub(crate) fn take(&self, transaction: &Transaction) -> Option<Share> {
        let free = Arc::clone(&self.bytes_free);
        free.try_acquire_many_owned(self.share(transaction)).ok()
    }

    /// The same, once there is as much.
    pub(crate) async fn wait_for(&self, transaction: &Transaction) -> Share {
        let free = Arc::clone(&self.bytes_free);
        let share = free.acquire_many_owned(self.share(transaction)).await;
        share.expect("it is never closed")
    }

    fn share(&self, transaction: &Transaction) -> u32 {
        let bytes = u32::try_from(transaction.encoded().len()).unwrap_or(u32::MAX);
        bytes.min(self.bytes_max)
    }
}
