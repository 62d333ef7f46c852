//! A whole state for a follower whose copy cannot be continued: the pages that differ from its own.
//!
//! The follower's page hashes say what it has; a snapshot of the database says what it should have.
//! For a copy that is merely old this costs the pages changed since then, each once; for a damaged one
//! the damaged pages; for an empty one everything.

use std::collections::HashMap;
use std::sync::Arc;

use tidemark_engine::{Database, EngineError, page_hash};
use tidemark_protocol::stream::{PAGES_PER_MESSAGE_MAX, PagesBuilder, SourceMessage};
use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Position, Term};

/// Page hashes of followers that are arriving, in pieces.
#[derive(Debug, Default)]
pub(crate) struct HashesInProgress(HashMap<DatabaseId, Vec<u64>>);

/// A follower sends hashes out of order.
#[derive(Debug, thiserror::Error)]
#[error("page hashes of database {database} start at page {first}, expected {expected}")]
pub(crate) struct HashesError {
    database: DatabaseId,
    first: PageNo,
    expected: u64,
}

impl HashesInProgress {
    /// What was sent of this database counts no more.
    pub(crate) fn forget(&mut self, database: DatabaseId) {
        self.0.remove(&database);
    }

    /// Adds a piece. Gives all of them once they are complete.
    pub(crate) fn add(
        &mut self,
        database: DatabaseId,
        first: PageNo,
        last: bool,
        hashes: Vec<u64>,
    ) -> Result<Option<Vec<u64>>, HashesError> {
        let known = self.0.entry(database).or_default();
        let expected = known.len() as u64 + 1;
        if u64::from(first.0) != expected {
            self.0.remove(&database);
            return Err(HashesError {
                database,
                first,
                expected,
            });
        }
        known.extend(hashes);
        Ok(if last { self.0.remove(&database) } else { None })
    }
}

/// Pages looked at after which whoever waits is told that the work goes on.
const PAGES_PER_SIGN: u32 = 16 * 1024;

/// Sends the newest state of `database` as far as it differs from `theirs`. Blocks: runs on a SQL
/// thread. Ends early, with `None`, when `deliver` says that nobody wants it any more; `deliver` is also
/// called with nothing, now and then, while no page differs.
pub(crate) fn send(
    database: &Arc<Database>,
    term: Term,
    theirs: &[u64],
    mut deliver: impl FnMut(Option<SourceMessage>) -> bool,
) -> Result<Option<Position>, EngineError> {
    let mut snapshot = database.snapshot()?;
    let (id, position) = (database.id(), snapshot.position());
    let page_count = snapshot.page_count();
    let begin = SourceMessage::ImageBegin {
        database: id,
        term,
        position,
        page_count,
    };
    if !deliver(Some(begin)) {
        return Ok(None);
    }
    let mut batch = PagesBuilder::default();
    let mut image = [0; PAGE_SIZE];
    for number in 1..=page_count {
        if number % PAGES_PER_SIGN == 0 && !deliver(None) {
            return Ok(None);
        }
        let page = PageNo(number);
        snapshot.page(page, &mut image)?;
        if theirs.get(number as usize - 1) == Some(&page_hash(page, &image)) {
            continue;
        }
        batch.push(page, &image);
        if batch.len() == PAGES_PER_MESSAGE_MAX {
            let pages = batch.take();
            if !deliver(Some(SourceMessage::Pages {
                database: id,
                pages,
            })) {
                return Ok(None);
            }
        }
    }
    if !batch.is_empty() {
        let pages = batch.take();
        if !deliver(Some(SourceMessage::Pages {
            database: id,
            pages,
        })) {
            return Ok(None);
        }
    }
    let ended = deliver(Some(SourceMessage::ImageEnd { database: id }));
    Ok(ended.then_some(position))
}
