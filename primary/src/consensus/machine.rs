//! What the committed log drives.

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tidemark_protocol::{DatabaseId, Term};

use super::Command;

/// Place of an entry in the cell's log, from 0. One log carries all databases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub(crate) struct LogIndex(pub(crate) u64);

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A committed entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    /// Its place in the log. Grows, with gaps where consensus had entries of its own.
    pub(crate) index: LogIndex,
    /// The leadership that proposed it.
    pub(crate) term: Term,
    /// What it says.
    pub(crate) command: Command,
}

/// The machine could not do it. Final for `apply`: the node must exit and recover from its log.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed")]
pub(crate) struct MachineError {
    /// What was being done.
    pub(crate) action: &'static str,
    /// Why it failed.
    #[source]
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

impl MachineError {
    /// `action` is a present-tense fragment: "apply transaction".
    pub(crate) fn new(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            action,
            source: source.into(),
        }
    }
}

/// A persist that goes on beside further applying. Resolves to the manifest.
pub(crate) type Persisting = BoxFuture<'static, Result<Bytes, MachineError>>;

/// What the committed log drives: the databases of the cell.
///
/// All methods are called from one task, never two at a time, in log order.
pub(crate) trait Machine: Send + 'static {
    /// `entries` are committed. Returns when all are handed on, so that whoever asks the machine next
    /// sees them; nothing needs to be on disk.
    ///
    /// Must be idempotent: after a restart, everything after the last persist comes again.
    fn apply(
        &mut self,
        entries: Vec<Committed>,
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Begins to make durable, without the log, everything applied so far: checkpoint and fsync every
    /// database that is behind. Called between two `apply`s, so "so far" is exact; the future runs
    /// beside later ones. When it resolves, the log may be purged up to this point. If it fails, all
    /// stays as it is, the log too, and another one may be tried.
    ///
    /// The manifest says what a node needs to fetch to start from here. Consensus only stores it; small.
    fn persist(&mut self) -> Persisting;

    /// Takes over the state that a peer's manifest describes, instead of a log that no longer reaches back.
    /// What is missing here is fetched from the peer, at the base URL `source`. All is durable when it
    /// returns. Called only in a cell of several voters.
    ///
    /// Entries that the manifest covers never come after a success. What is fetched may be newer than the
    /// manifest: entries that follow it come all the same, as after a restart.
    ///
    /// Takes as long as fetching takes; ends by itself when the peer falls silent. The node goes on
    /// following and voting meanwhile, see [`super::snapshot`]. It may be dropped at any await, and an error
    /// is not final: both must leave what a crash at that point leaves. Entries may be applied then, and
    /// another manifest installed.
    fn install(
        &mut self,
        manifest: Bytes,
        source: &str,
    ) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Fetches this database anew from the peer at the base URL `source`, if the copy here is damaged. What
    /// is fetched has all that was applied here. As with `install` for the rest.
    fn repair(
        &mut self,
        _database: DatabaseId,
        _source: &str,
    ) -> impl Future<Output = Result<(), MachineError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// [`Machine`] behind a pointer, so that nothing above is generic over it.
pub(super) trait BoxedMachine: Send + 'static {
    fn apply(&mut self, entries: Vec<Committed>) -> BoxFuture<'_, Result<(), MachineError>>;
    fn persist(&mut self) -> Persisting;
    fn install<'a>(
        &'a mut self,
        manifest: Bytes,
        source: &'a str,
    ) -> BoxFuture<'a, Result<(), MachineError>>;
    fn repair<'a>(
        &'a mut self,
        database: DatabaseId,
        source: &'a str,
    ) -> BoxFuture<'a, Result<(), MachineError>>;
}

impl<M: Machine> BoxedMachine for M {
    fn apply(&mut self, entries: Vec<Committed>) -> BoxFuture<'_, Result<(), MachineError>> {
        Box::pin(Machine::apply(self, entries))
    }

    fn persist(&mut self) -> Persisting {
        Machine::persist(self)
    }

    fn install<'a>(
        &'a mut self,
        manifest: Bytes,
        source: &'a str,
    ) -> BoxFuture<'a, Result<(), MachineError>> {
        Box::pin(Machine::install(self, manifest, source))
    }

    fn repair<'a>(
        &'a mut self,
        database: DatabaseId,
        source: &'a str,
    ) -> BoxFuture<'a, Result<(), MachineError>> {
        Box::pin(Machine::repair(self, database, source))
    }
}
