//! What the caches of all connections of this process were good for.
//!
//! A connection counts by itself, and tells after [`USES_MAX`] texts of SQL and when it is closed: no read touches what
//! other threads touch, and none asks SQLite.

use std::sync::atomic::{AtomicU64, Ordering};

/// Texts of SQL after which a connection tells.
const USES_MAX: u32 = 64;

static STATEMENT_HITS: AtomicU64 = AtomicU64::new(0);
static STATEMENT_MISSES: AtomicU64 = AtomicU64::new(0);
static PAGE_HITS: AtomicU64 = AtomicU64::new(0);
static PAGE_MISSES: AtomicU64 = AtomicU64::new(0);

/// Hits and misses since the process started, as far as connections have told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheFigures {
    /// Texts of SQL that were prepared already,
    pub statement_hits: u64,
    /// and others.
    pub statement_misses: u64,
    /// Pages that a connection had in its cache,
    pub page_hits: u64,
    /// and others, which were read from the WAL or the file.
    pub page_misses: u64,
}

/// What connections have told.
pub fn cache_figures() -> CacheFigures {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    CacheFigures {
        statement_hits: read(&STATEMENT_HITS),
        statement_misses: read(&STATEMENT_MISSES),
        page_hits: read(&PAGE_HITS),
        page_misses: read(&PAGE_MISSES),
    }
}

/// What one connection has not told yet.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    hits: u32,
    misses: u32,
}

impl Untold {
    /// A text of SQL was prepared already, or not. True if it is time to tell.
    pub(crate) fn count(&mut self, was_prepared: bool) -> bool {
        if was_prepared {
            self.hits += 1;
        } else {
            self.misses += 1;
        }
        self.hits + self.misses >= USES_MAX
    }

    /// Tells, together with what SQLite has counted since it was told last: pages had, and pages read.
    pub(crate) fn tell(&mut self, (had, read): (u64, u64)) {
        let Self { hits, misses } = std::mem::take(self);
        for (counter, more) in [
            (&STATEMENT_HITS, hits.into()),
            (&STATEMENT_MISSES, misses.into()),
            (&PAGE_HITS, had),
            (&PAGE_MISSES, read),
        ] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }
}
