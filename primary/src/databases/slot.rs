//! What a node holds of one database while its files are closed, or open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemark_protocol::{Position, Seq};

use crate::pipeline::Line;

/// A database of this node.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// Its files are open.
    Open(Arc<Line>),
    /// Its files are closed, or closing: whoever opens it waits for that. A listed database to which nothing
    /// has been written has none yet.
    Asleep(Asleep),
}

/// A database whose files are closed.
#[derive(Clone, Debug)]
pub(crate) struct Asleep {
    /// Durable in its own files. What was committed beyond that is in the log behind the file `chain`, whose
    /// repetition opens it.
    pub(crate) durable: Position,
    /// See [`HighestProposed`].
    pub(crate) proposed: HighestProposed,
}

/// Highest sequence number proposed for a database. None is used twice, not even after what had it was
/// refused, so that a position names one proposal. Outlives the writer that counts it up.
#[derive(Clone, Debug, Default)]
pub(crate) struct HighestProposed(Arc<AtomicU64>);

impl HighestProposed {
    pub(crate) fn get(&self) -> Seq {
        Seq(self.0.load(Ordering::Acquire))
    }

    /// Only the one writer of the database says so.
    pub(crate) fn set(&self, seq: Seq) {
        self.0.store(seq.0, Ordering::Release);
    }
}
