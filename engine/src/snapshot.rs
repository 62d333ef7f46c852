//! The raw pages of one committed state.

use std::sync::{Arc, MutexGuard};

use tidemark_protocol::{PAGE_SIZE, PageNo, Position, StateChecksum};

use crate::error::EngineError;
use crate::ffi::{Code, VirtualWal};
use crate::hash::page_hash;
use crate::probe::Probe;
use crate::readers::Reader;
use crate::shared::{Located, Shared};
use crate::sql::engine_error;

/// The raw pages of one committed state, on a connection of its own with an open read transaction: the
/// owner goes on meanwhile, but the WAL cannot start over while a snapshot lives.
#[derive(Debug)]
pub struct Snapshot {
    reader: Reader,
    located: Located,
    _shared: Arc<Shared>,
}

impl Snapshot {
    pub(crate) fn take(shared: &Arc<Shared>) -> Result<Self, EngineError> {
        let unidentified = || EngineError::Unidentified {
            database: shared.id,
        };
        shared.position().ok_or_else(unidentified)?;
        let mut reader = Reader::open(shared)?;
        reader.sql.begin_read()?;
        // The transaction takes its snapshot with the first statement.
        reader
            .sql
            .connection()
            .run_internal(c"PRAGMA user_version")
            .map_err(|code| engine_error(reader.sql.connection(), code, "take a snapshot"))?;
        let located = reader.located().ok_or_else(unidentified)?;
        Ok(Self {
            reader,
            located,
            _shared: shared.clone(),
        })
    }

    /// Which state.
    pub fn position(&self) -> Position {
        self.located.position
    }

    /// How many pages.
    pub fn page_count(&self) -> u32 {
        self.located.pages
    }

    /// Reads a page. The one with SQLite's lock bytes reads as whatever the file has there.
    pub fn page(&mut self, page: PageNo, into: &mut [u8; PAGE_SIZE]) -> Result<(), EngineError> {
        if page.0 == 0 || page.0 > self.located.pages {
            return Err(failed(Code(Code::MISUSE)));
        }
        let mut probe = self.probe()?;
        probe
            .inner()
            .and_then(|inner| inner.read_page(page, into))
            .map_err(failed)
    }

    /// The hash of every page, page 1 first.
    pub fn hashes(&mut self) -> Result<Vec<u64>, EngineError> {
        let mut image = [0; PAGE_SIZE];
        (1..=self.located.pages)
            .map(PageNo)
            .map(|page| {
                self.page(page, &mut image)
                    .map(|()| page_hash(page, &image))
            })
            .collect()
    }

    /// The checksum recomputed from all pages.
    pub fn checksum(&mut self) -> Result<StateChecksum, EngineError> {
        let hashes = self.hashes()?;
        Ok(StateChecksum(
            hashes.into_iter().fold(0, |sum, hash| sum ^ hash),
        ))
    }

    fn probe(&self) -> Result<MutexGuard<'_, Probe>, EngineError> {
        self.reader
            .probe
            .lock()
            .map_err(|_| failed(Code(Code::INTERNAL)))
    }
}

fn failed(code: Code) -> EngineError {
    let message = code.name().to_owned();
    EngineError::Sqlite {
        doing: "read a page of a snapshot",
        message,
        code: code.0,
    }
}
