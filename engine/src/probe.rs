//! The readers' WAL: libSQL's own, wrapped to learn the position of each snapshot and to refuse writes.

use std::sync::Arc;

use tidemark_protocol::PageNo;

use crate::ffi::{CheckpointCall, Code, InnerWal, PageList, VirtualWal};
use crate::shared::{Located, Shared};

/// Snapshots taken in a row before a read gives up. Each try fails only if the reader slept through
/// dozens of injections between two lines of code.
const TRIES_MAX: u32 = 1000;

/// The WAL of one reader connection.
#[derive(Debug)]
pub(crate) struct Probe {
    inner: Option<InnerWal>,
    shared: Arc<Shared>,
    /// The snapshot the connection has, or had last.
    located: Option<Located>,
}

impl Probe {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            inner: None,
            shared,
            located: None,
        }
    }

    /// The snapshot the connection has, or had last.
    pub(crate) fn located(&self) -> Option<Located> {
        self.located
    }

    /// Forgets it, so that one request does not report the snapshot of another.
    pub(crate) fn forget(&mut self) {
        self.located = None;
    }
}

impl VirtualWal for Probe {
    fn inner_slot(&mut self) -> &mut Option<InnerWal> {
        &mut self.inner
    }

    fn begin_read(&mut self) -> Result<bool, Code> {
        let shared = self.shared.clone();
        let inner = self.inner()?;
        let mut changed = false;
        for _ in 0..TRIES_MAX {
            changed |= inner.begin_read()?;
            if let Some(located) = shared.locate(inner.key()) {
                self.located = Some(located);
                return Ok(changed);
            }
            inner.end_read();
            if shared.position().is_none() {
                break; // unidentified: no snapshot is a known state
            }
        }
        Err(Code(Code::PROTOCOL))
    }

    fn begin_write(&mut self) -> Result<(), Code> {
        Err(Code(Code::READONLY))
    }

    fn frames(&mut self, _: PageList<'_>, _: u32, _: bool) -> Result<(), Code> {
        Err(Code(Code::READONLY))
    }

    fn undo(&mut self) -> Vec<PageNo> {
        Vec::new()
    }

    fn savepoint(&mut self) -> u32 {
        0
    }

    fn savepoint_undo(&mut self, _mark: u32) -> Result<(), Code> {
        Ok(())
    }

    /// Checkpoints belong to the owner: one that runs beside a commit of another connection can lose
    /// data (SQLite's WAL-reset bug, unfixed in this version).
    fn checkpoint(&mut self, _call: CheckpointCall) -> Result<(), Code> {
        Err(Code(Code::READONLY))
    }
}
