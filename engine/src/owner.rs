//! The owner.
#![allow(unused_variables, clippy::unimplemented, clippy::needless_pass_by_value)]

use tidemark_protocol::render::ResultSink;
use tidemark_protocol::{Position, Seq, Statement, Transaction};

use crate::control::{Control, Stamp};
use crate::error::{ApplyError, EngineError, ExecuteError};

/// How hard a checkpoint tries. All of them run in the owner, readers go on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointMode {
    /// Copy what no reader needs in the WAL; never waits.
    Passive,
    /// Copy everything and wait (`checkpoint_wait`) until no reader uses the WAL, so that the next
    /// transaction starts it over.
    Restart,
    /// As `Restart`, and cut the WAL file to zero bytes.
    Truncate,
}

/// What a checkpoint did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointReport {
    /// Frames in the WAL.
    pub wal_frames: u32,
    /// Frames of them that are in the database file now.
    pub backfilled: u32,
    /// Whether readers kept it from doing all that the mode asks for.
    pub busy: bool,
    /// The position that is now durable in the database file; `None` when it was not complete.
    pub durable: Option<Position>,
}

/// The one owner of all writes, injections and checkpoints of a database. `Send`, not `Sync`.
#[derive(Debug)]
pub struct Owner {
    _private: std::cell::Cell<()>,
}

impl Owner {
    /// The acknowledged state: what readers see. `None` while unidentified.
    pub fn position(&self) -> Option<Position> {
        unimplemented!()
    }

    /// The state including transactions that await acknowledgement. `None` while unidentified.
    pub fn tip(&self) -> Option<Position> {
        unimplemented!()
    }

    /// Runs statements as one transaction on top of the tip. The change stays in memory, invisible to
    /// readers, until acknowledged. `None`: nothing was written; the answer depends on the tip.
    pub fn execute<S: ResultSink>(
        &mut self,
        statements: &[Statement],
        stamp: &Stamp,
        control: &Control,
        sink: &mut S,
    ) -> Result<Option<Transaction>, ExecuteError> {
        unimplemented!()
    }

    /// Flushes all transactions up to `up_to` as one merged WAL transaction: readers see them now.
    pub fn acknowledge(&mut self, up_to: Seq) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// Drops all transactions that await acknowledgement.
    pub fn discard(&mut self) -> Result<(), EngineError> {
        unimplemented!()
    }

    /// For followers and replicas: checks the chain and every checksum, then injects all transactions
    /// as one WAL transaction.
    pub fn apply(&mut self, transactions: &[Transaction]) -> Result<Position, ApplyError> {
        unimplemented!()
    }

    /// Only while unidentified: injects page images unconditionally, and returns the position once the
    /// content matches it.
    pub fn replay(&mut self, transaction: &Transaction) -> Result<Option<Position>, EngineError> {
        unimplemented!()
    }

    /// Copies acknowledged pages from the WAL to the database file and syncs it.
    pub fn checkpoint(&mut self, mode: CheckpointMode) -> Result<CheckpointReport, EngineError> {
        unimplemented!()
    }

    /// Frames in the WAL file's current generation.
    pub fn wal_frames(&self) -> u32 {
        unimplemented!()
    }

    /// Bytes of transactions that await acknowledgement.
    pub fn overlay_bytes(&self) -> usize {
        unimplemented!()
    }

    /// The last position known to be durable in the database file: the log may be purged up to here.
    pub fn durable(&self) -> Position {
        unimplemented!()
    }

    /// Closes the connection. Transactions that await acknowledgement are dropped.
    pub fn close(self) -> Result<(), EngineError> {
        unimplemented!()
    }
}
