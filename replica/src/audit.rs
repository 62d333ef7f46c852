//! The auditor: every copy is read again, page by page, and compared with what its position says.
//!
//! A position holds the checksum of the whole content, and what is applied is verified against it; but by the
//! hashes of what was applied, kept in memory. A page that changes on disk afterwards is noticed by nobody until
//! the files are opened anew. So one task goes round all copies, the one that was looked at longest ago first, and
//! recomputes the checksum from the pages as the files hold them now.
//!
//! The alternative was to send a sampled read here and to the primary at the same position, and to compare the
//! answers. That proves less: a sample sees the pages that it touches, the checksum all of them, those that
//! no statement will read for a year too. And it costs the primary and the way there, while this works without a
//! source and costs what it may: at most `audit_rate` bytes a second are read, in slices between which the
//! thread is free, and [`COPIES_PER_SECOND_MAX`] copies. What it leaves unproven is the way from pages to answers, which is the
//! same SQLite everywhere, and what the operating system still has in memory while the disk has something else.
//!
//! An open copy is read through a snapshot, which holds up the restart of its WAL: for [`SNAPSHOT_MAX`] at most, so a
//! large one is read faster than the rate. The files of one that sleeps are read as they lie there. A copy whose files are being exchanged or closed is let go of at
//! the next slice.
//!
//! What differs is taken out of service at once and resynchronised: the pages that differ come from the source, and
//! until then reads are forwarded or refused, as after any damage.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemark_engine::{EngineError, Snapshot, page_hash};
use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Position, StateChecksum};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::copy::{Copy, Item, Open};
use crate::core::Core;
use crate::old_pages::{OldPages, OldPagesError};
use crate::standing::Condition;

/// Pages that are read before the thread is given back.
const SLICE_PAGES: u32 = 256;
/// Longest that one snapshot is held for the sake of the rate.
const SNAPSHOT_MAX: Duration = Duration::from_secs(30);
/// Most copies that are looked at in a second, however small.
const COPIES_PER_SECOND_MAX: u32 = 50;
/// Longest pause before the copies are listed again.
const LIST_EVERY: Duration = Duration::from_secs(10);

/// How long ago the copy was looked at that was looked at longest ago; read at each scrape.
#[derive(Debug)]
pub(crate) struct AuditAge {
    started: Instant,
    /// Milliseconds after `started`.
    oldest_ms: AtomicU64,
}

impl AuditAge {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            oldest_ms: AtomicU64::new(0),
        }
    }

    /// Seconds since then, or since the start if there was none.
    pub(crate) fn seconds(&self) -> u64 {
        let oldest = Duration::from_millis(self.oldest_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(oldest).as_secs()
    }

    fn set(&self, oldest: Instant) {
        let after = oldest.saturating_duration_since(self.started).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.oldest_ms.store(after, Ordering::Relaxed);
    }
}

/// What a look at a copy came to.
#[derive(Debug)]
enum Look {
    /// The content is what its position says.
    Sound,
    /// It is not.
    Unsound {
        position: Position,
        computed: StateChecksum,
    },
    /// It cannot be read at the moment, or was exchanged meanwhile.
    None,
}

/// Goes round until the node stops.
pub(crate) async fn audit(core: Arc<Core>, age: Arc<AuditAge>, stop: CancellationToken) {
    let mut rounds = Rounds::default();
    while let Some(()) = stop.run_until_cancelled(rounds.go_on(&core, &age)).await {}
}

/// When each copy was found sound last, or was first here.
#[derive(Debug, Default)]
struct Rounds(HashMap<DatabaseId, Instant>);

impl Rounds {
    /// Looks at every copy that is due, oldest first, then pauses.
    async fn go_on(&mut self, core: &Core, age: &AuditAge) {
        let now = Instant::now();
        let copies = core.copies();
        let known = std::mem::take(&mut self.0);
        let since = |copy: &Arc<Copy>| *known.get(&copy.id()).unwrap_or(&now);
        self.0 = copies.iter().map(|copy| (copy.id(), since(copy))).collect();
        self.tell(age);
        let every = core.config.audit_every;
        // New ones have their first look when one is due: opening has read all of their pages.
        let mut due: Vec<_> = copies
            .into_iter()
            .map(|copy| (self.0[&copy.id()], copy))
            .collect();
        due.retain(|(last, _)| now.duration_since(*last) >= every);
        due.sort_by_key(|(last, _)| *last);
        for (_, copy) in due {
            self.look_at(core, &copy).await;
            self.tell(age);
            tokio::time::sleep(Duration::from_secs(1) / COPIES_PER_SECOND_MAX).await;
        }
        tokio::time::sleep(LIST_EVERY.min(every / 4)).await;
    }

    async fn look_at(&mut self, core: &Core, copy: &Arc<Copy>) {
        let begun = Instant::now();
        let look = match copy.stands().condition {
            Condition::Asleep { .. } => look_at_asleep(core, copy).await,
            Condition::Following | Condition::Alone | Condition::Catching => {
                look_at_open(core, copy).await
            }
            Condition::Opening | Condition::Damaged(_) | Condition::Dropped | Condition::Closed => {
                Ok(Look::None)
            }
        };
        match look {
            Ok(Look::Sound) => {
                core.metrics().audits.inc();
                self.0.insert(copy.id(), begun);
            }
            Ok(Look::Unsound { position, computed }) => {
                core.metrics().audit_violations.inc();
                let db = copy.id();
                tracing::error!(%db, %position, %computed, "pages of a copy are not what its position says");
            }
            Ok(Look::None) => {}
            Err(error) => {
                tracing::warn!(db = %copy.id(), %error, "a copy cannot be audited");
                copy.feed(Item::Suspect);
            }
        }
    }

    fn tell(&self, age: &AuditAge) {
        age.set(self.0.values().min().copied().unwrap_or_else(Instant::now));
    }
}

/// A page could not be read.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Pages(#[from] OldPagesError),
}

/// Reads a snapshot of an open copy at the rate that is allowed.
async fn look_at_open(core: &Core, copy: &Arc<Copy>) -> Result<Look, AuditError> {
    let Some(open) = copy.peek() else {
        return Ok(Look::None);
    };
    let database = Arc::clone(&open.database);
    let taken = core.on_thread(move || database.snapshot()).await;
    let Some(snapshot) = taken else {
        return Ok(Look::None);
    };
    let mut reading = Some(Reading::of(snapshot?, open));
    let slice_wait = {
        let pages = reading
            .as_ref()
            .map_or(0, |reading| reading.snapshot.page_count());
        slice_wait(pages, core.config.audit_rate)
    };
    let unsound = loop {
        let Some(mut now) = reading.take() else {
            return Ok(Look::None); // the thread panicked
        };
        let read = core.on_thread(move || {
            let read = now.slice();
            (now, read)
        });
        let Some((now, read)) = read.await else {
            return Ok(Look::None);
        };
        let pages = u64::from(read?);
        core.metrics()
            .audited_bytes
            .inc_by(pages * PAGE_SIZE as u64);
        let is_there = copy
            .peek()
            .is_some_and(|open| Arc::ptr_eq(&open, &now.open));
        if !is_there {
            return Ok(Look::None);
        }
        if pages == 0 {
            break now;
        }
        reading = Some(now);
        tokio::time::sleep(slice_wait).await;
    };
    let (position, computed) = (unsound.snapshot.position(), unsound.sum);
    if computed == position.checksum {
        return Ok(Look::Sound);
    }
    copy.feed(Item::Unsound(Arc::downgrade(&unsound.open.database)));
    Ok(Look::Unsound { position, computed })
}

/// The pause after each slice of a copy of so many pages.
fn slice_wait(pages: u32, bytes_per_second: u64) -> Duration {
    let slices = pages.div_ceil(SLICE_PAGES).max(1);
    let slice_bytes = u64::from(SLICE_PAGES) * PAGE_SIZE as u64;
    let of_rate = Duration::from_millis(slice_bytes * 1000 / bytes_per_second.max(1));
    of_rate.min(SNAPSHOT_MAX / slices)
}

/// A snapshot that is read little by little.
struct Reading {
    snapshot: Box<Snapshot>,
    open: Arc<Open>,
    sum: StateChecksum,
    /// Pages read.
    done: u32,
}

impl Reading {
    fn of(snapshot: Snapshot, open: Arc<Open>) -> Self {
        Self {
            snapshot: Box::new(snapshot),
            open,
            sum: StateChecksum::default(),
            done: 0,
        }
    }

    /// Reads on. Returns how many pages; none: all were read. Blocks.
    fn slice(&mut self) -> Result<u32, EngineError> {
        let end = self.snapshot.page_count().min(self.done + SLICE_PAGES);
        let mut image = [0; PAGE_SIZE];
        for page in (self.done + 1..=end).map(PageNo) {
            self.snapshot.page(page, &mut image)?;
            self.sum.0 ^= page_hash(page, &image);
        }
        Ok(end - std::mem::replace(&mut self.done, end))
    }
}

/// Reads the file of a copy that sleeps: it is small, and has no WAL.
async fn look_at_asleep(core: &Core, copy: &Arc<Copy>) -> Result<Look, AuditError> {
    let before = copy.stands();
    let Some(position) = before.position else {
        return Ok(Look::None);
    };
    let directory = copy.directory();
    let hashes = core.on_thread(move || OldPages::file(&directory)?.hashes());
    let Some(hashes) = hashes.await else {
        return Ok(Look::None);
    };
    let hashes = hashes?;
    // One that has awoken meanwhile had all of its pages read for that.
    if copy.stands() != before {
        return Ok(Look::None);
    }
    let bytes = hashes.len() as u64 * PAGE_SIZE as u64;
    core.metrics().audited_bytes.inc_by(bytes);
    let rate = core.config.audit_rate.max(1);
    tokio::time::sleep(Duration::from_millis(bytes * 1000 / rate)).await;
    let computed = StateChecksum(hashes.into_iter().fold(0, |sum, hash| sum ^ hash));
    if computed == position.checksum {
        return Ok(Look::Sound);
    }
    // To open it is to see the same, and to do what is to be done.
    copy.feed(Item::Wake);
    Ok(Look::Unsound { position, computed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_copies_keep_to_the_rate_and_large_ones_to_the_longest_snapshot() {
        let mib = 1 << 20;
        assert_eq!(slice_wait(10, 16 * mib), Duration::from_micros(62_000));
        assert_eq!(slice_wait(0, 16 * mib), Duration::from_micros(62_000));
        let pages = 1 << 20; // 4 GiB
        let all = slice_wait(pages, mib) * (pages / SLICE_PAGES);
        assert!(all <= SNAPSHOT_MAX, "{all:?}");
    }

    #[test]
    fn age_is_that_of_the_oldest_and_else_that_of_the_node() {
        let ago = |seconds| Instant::now() - Duration::from_secs(seconds);
        let age = AuditAge {
            started: ago(100),
            oldest_ms: AtomicU64::new(0),
        };
        assert_eq!(age.seconds(), 100);
        age.set(ago(7));
        assert_eq!(age.seconds(), 7);
    }
}
