//! What the committed log drives.

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tidemark_protocol::Term;

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

/// The machine could not do it. Final for `apply` and `install`: the node must exit and recover from its
/// log.
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

    /// Takes over the state that a peer's manifest describes, durably, instead of a log that no longer
    /// reaches back. Called only in a cell of several voters.
    fn install(
        &mut self,
        manifest: Bytes,
    ) -> impl Future<Output = Result<(), MachineError>> + Send {
        let bytes = manifest.len();
        std::future::ready(Err(MachineError::new(
            "install a peer's snapshot",
            format!("not supported by this node; manifest of {bytes} bytes"),
        )))
    }
}

/// [`Machine`] behind a pointer, so that nothing above is generic over it.
pub(super) trait BoxedMachine: Send + 'static {
    fn apply(&mut self, entries: Vec<Committed>) -> BoxFuture<'_, Result<(), MachineError>>;
    fn persist(&mut self) -> Persisting;
    fn install(&mut self, manifest: Bytes) -> BoxFuture<'_, Result<(), MachineError>>;
}

impl<M: Machine> BoxedMachine for M {
    fn apply(&mut self, entries: Vec<Committed>) -> BoxFuture<'_, Result<(), MachineError>> {
        Box::pin(Machine::apply(self, entries))
    }

    fn persist(&mut self) -> Persisting {
        Machine::persist(self)
    }

    fn install(&mut self, manifest: Bytes) -> BoxFuture<'_, Result<(), MachineError>> {
        Box::pin(Machine::install(self, manifest))
    }
}
