//! The raw pages of one committed state.
#![allow(unused_variables, clippy::unimplemented)]

use tidemark_protocol::{PAGE_SIZE, PageNo, Position, StateChecksum};

use crate::error::EngineError;

/// The raw pages of one committed state. Holds a reader: the WAL cannot start over while it lives.
#[derive(Debug)]
pub struct Snapshot {
    _private: (),
}

impl Snapshot {
    /// Which state.
    pub fn position(&self) -> Position {
        unimplemented!()
    }

    /// How many pages.
    pub fn page_count(&self) -> u32 {
        unimplemented!()
    }

    /// Reads a page.
    pub fn page(&mut self, page: PageNo, into: &mut [u8; PAGE_SIZE]) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// The hash of every page, page 1 first.
    pub fn hashes(&mut self) -> Result<Vec<u64>, EngineError> {
        unimplemented!()
    }

    /// The checksum recomputed from all pages.
    pub fn checksum(&mut self) -> Result<StateChecksum, EngineError> {
        unimplemented!()
    }
}
