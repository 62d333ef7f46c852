//! How well appends share what is expensive: the flush of the log to the disk.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Flushes of the log since the start. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Flushes {
    /// Entries that one flush made durable: 1 to 2,048.
    pub(crate) entries: Histogram,
    /// From when a flush was asked for to when it was done, in seconds: 50 us to 1.6 s.
    pub(crate) seconds: Histogram,
}

impl Default for Flushes {
    fn default() -> Self {
        Self {
            entries: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 16)),
        }
    }
}

impl Flushes {
    /// So many entries are durable. Votes alone are not counted.
    pub(super) fn done(&self, entries: u64, took: Duration) {
        if entries > 0 {
            self.entries.observe(entries as f64);
            self.seconds.observe(took.as_secs_f64());
        }
    }
}
