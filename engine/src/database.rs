//! A database as readers see it.
#![allow(unused_variables, clippy::unimplemented)]

use std::path::Path;
use std::sync::Arc;

use tidemark_protocol::render::ResultSink;
use tidemark_protocol::{DatabaseId, Position, Statement};

use crate::control::Control;
use crate::error::{EngineError, OpenError, ReadError};
use crate::options::Options;
use crate::owner::Owner;
use crate::snapshot::Snapshot;

/// An open database: the shared half and its one owner.
#[derive(Debug)]
pub struct Opened {
    /// For everyone who reads.
    pub database: Arc<Database>,
    /// For the one who writes.
    pub owner: Owner,
}

/// The shared half of an open database.
#[derive(Debug)]
pub struct Database {
    _private: (),
}

impl Database {
    /// Opens the database in `directory`, making it when nothing is there, hashes every page and
    /// identifies the position by the checksum.
    pub fn open(
        directory: &Path,
        id: DatabaseId,
        options: &Options,
    ) -> Result<Opened, OpenError> {
        unimplemented!()
    }

    /// Its identifier.
    pub fn id(&self) -> DatabaseId {
        unimplemented!()
    }

    /// The state that readers see; `None` while unidentified.
    pub fn position(&self) -> Option<Position> {
        unimplemented!()
    }

    /// Runs read-only statements on one snapshot, streaming into the sink. Returns the snapshot's
    /// exact position.
    pub fn read<S: ResultSink>(
        &self,
        statements: &[Statement],
        control: &Control,
        sink: &mut S,
    ) -> Result<Position, ReadError> {
        unimplemented!()
    }

    /// The raw pages of one committed state.
    pub fn snapshot(&self) -> Result<Snapshot, EngineError> {
        unimplemented!()
    }

    /// Bytes of the acknowledged state.
    pub fn file_size(&self) -> u64 {
        unimplemented!()
    }

    /// Tables of users.
    pub fn table_count(&self) -> Result<u64, ReadError> {
        unimplemented!()
    }
}
