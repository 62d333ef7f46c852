//! Reading an open database again, all of it, on somebody's wish.
//!
//! Through a snapshot: writes go on, and only the WAL cannot start over meanwhile. Not faster than [`VERIFY_RATE`], so that
//! the disk has time for others, and not for longer than [`VERIFY_WAIT`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemark_protocol::node::Verification;
use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, StateChecksum};

use crate::database::Database;
use crate::error::EngineError;
use crate::hash::page_hash;

/// Bytes a second that are read at most.
pub const VERIFY_RATE: u64 = 256 << 20;
/// Longest that it may take: what is larger than the two allow is verified while the node does not run.
pub const VERIFY_WAIT: Duration = Duration::from_secs(100);
/// Pages between two looks at the time.
const SLICE_PAGES: u32 = 1024;

/// It could not be found out whether a database is what its position says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The files failed, or the content is at no known position.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Somebody has it read already: a second time would only slow both down.
    #[error("database {database} is being verified already")]
    Busy {
        /// Which.
        database: DatabaseId,
    },
    /// It would take too long at the rate at which pages are read. Nothing was read.
    #[error(
        "database {database} has {pages} pages, too many to be read in {within:?}; stop the node and look at its files"
    )]
    Large {
        /// Which.
        database: DatabaseId,
        /// Pages it has.
        pages: u32,
        /// Within which time.
        within: Duration,
    },
    /// It takes too long.
    #[error("database {database}: {read} of {pages} pages read in {within:?}")]
    Slow {
        /// Which.
        database: DatabaseId,
        /// Pages read.
        read: u32,
        /// Pages it has.
        pages: u32,
        /// Within which time.
        within: Duration,
    },
}

/// Says that it has ended, however it does.
struct Verifying<'a>(&'a AtomicBool);

impl Drop for Verifying<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Database {
    /// Recomputes the checksum of one state from all of its pages. Blocks.
    pub fn verify(&self) -> Result<Verification, VerifyError> {
        if self.verifying.swap(true, Ordering::Acquire) {
            return Err(VerifyError::Busy {
                database: self.id(),
            });
        }
        let _ends = Verifying(&self.verifying);
        self.verify_within(VERIFY_RATE, VERIFY_WAIT)
    }

    fn verify_within(&self, rate: u64, within: Duration) -> Result<Verification, VerifyError> {
        let begun = Instant::now();
        let mut snapshot = self.snapshot()?;
        let (position, pages) = (snapshot.position(), snapshot.page_count());
        let least = u64::from(pages) * PAGE_SIZE as u64 * 1000 / rate.max(1);
        if Duration::from_millis(least) > within {
            return Err(VerifyError::Large {
                database: self.id(),
                pages,
                within,
            });
        }
        let mut computed = StateChecksum::default();
        let mut image = [0; PAGE_SIZE];
        for read in 0..pages {
            if read > 0 && read % SLICE_PAGES == 0 {
                let due = u64::from(read) * PAGE_SIZE as u64 * 1000 / rate.max(1);
                let due = Duration::from_millis(due);
                if due.max(begun.elapsed()) > within {
                    return Err(VerifyError::Slow {
                        database: self.id(),
                        read,
                        pages,
                        within,
                    });
                }
                pause(due.saturating_sub(begun.elapsed()));
            }
            let page = PageNo(read + 1);
            snapshot.page(page, &mut image)?;
            computed.0 ^= page_hash(page, &image);
        }
        Ok(Verification {
            position,
            computed,
            pages: u64::from(pages),
            intact: computed == position.checksum,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a thread for what blocks, to read no faster"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tidemark_protocol::render::{AnswerBounds, Renderer, RowShape, ServedBy, ValueForm};
    use tidemark_protocol::{Seq, Statement};

    use super::*;
    use crate::{Control, Options, Stamp};

    #[test]
    fn what_would_take_too_long_at_the_rate_is_broken_off_and_all_else_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let id = DatabaseId::from_bytes([7; 16]);
        let mut opened = Database::open(directory.path(), id, &Options::default()).unwrap();
        let sql = "CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(9000000))".to_owned();
        let statement = Statement {
            sql,
            params: Vec::new(),
        };
        let soon = Instant::now() + Duration::from_secs(20);
        let stamp = Stamp {
            request: None,
            proposed_at_ms: 1,
            after: Seq::ZERO,
        };
        let served_by = ServedBy {
            region: "ENAM".to_owned(),
            primary: true,
        };
        let bounds = AnswerBounds::default();
        let mut sink = Renderer::new(RowShape::Arrays, ValueForm::D1, bounds, &served_by);
        let written = opened
            .owner
            .execute(&[statement], &stamp, &Control::until(soon), &mut sink);
        let next = written.unwrap().unwrap().header().next;
        opened.owner.acknowledge(next.seq).unwrap();
        let found = opened.database.verify().unwrap();
        assert!(found.intact && found.position == next && found.pages > 2000);
        opened.database.verifying.store(true, Ordering::Relaxed);
        let busy = opened.database.verify();
        assert!(matches!(busy, Err(VerifyError::Busy { .. })), "{busy:?}");
        opened.database.verifying.store(false, Ordering::Relaxed);
        assert!(opened.database.verify().is_ok() && opened.database.verify().is_ok());
        let large = opened
            .database
            .verify_within(1 << 20, Duration::from_secs(1));
        assert!(matches!(large, Err(VerifyError::Large { .. })), "{large:?}");
        let slow = opened.database.verify_within(u64::MAX, Duration::ZERO);
        assert!(
            matches!(
                slow,
                Err(VerifyError::Slow {
                    read: SLICE_PAGES,
                    ..
                })
            ),
            "{slow:?}"
        );
    }
}
