//! What clients did and what they were told: the record that a run under faults is judged by.
//!
//! All write rows of one table, `entries(place INTEGER PRIMARY KEY, value)`, each value once, one row per
//! transaction. Nothing is ever deleted, so a row's place is its number in the order of all commits, a state
//! is told by the number of its rows, and the sequence number of a position says what that must be.
//!
//! [`Recorder`] takes notes while the run goes on. Two judges look at the finished [`History`] and the rows that
//! are there in the end: [`check`](check()) by everything that was told, [`check_values`] by the values alone,
//! as if positions and places could lie. [`Summary`] is what a run says of itself.
//!
//! Nothing here waits, sends or runs: a simulation judges with it as well as a test of real processes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidemark_protocol::{Position, RequestId};

mod acknowledged;
mod check;
mod seen;
mod summary;
mod values;

pub use check::{Check, Guarantee, Reach, Violation, broken_guarantees, check, check_with};
pub use summary::Summary;
pub use values::{Contradiction, check_values};

/// A moment, from the beginning of the history.
pub type Moment = Duration;

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Its number in the order of commits, from 1.
    pub place: u64,
    /// What was written.
    pub value: u64,
}

/// One value that somebody tried to write, once, or several times under one request id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The value, of this write alone.
    pub value: u64,
    /// What it was sent under, if it had a name.
    pub request: Option<RequestId>,
    /// The session it belongs to.
    pub session: Option<u32>,
    /// When it was first sent.
    pub invoked: Moment,
    /// When its writer knew, or gave up.
    pub returned: Moment,
    /// What its writer was told.
    pub fate: Fate,
}

/// How a write ended, as far as its writer can tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It counts.
    Committed(Acknowledgement),
    /// Every try was refused before anything was done.
    Failed,
    /// It may count.
    Unknown,
}

/// The answer to a write that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledgement {
    /// Where the row is. `None` for a repeated answer that was not kept.
    pub place: Option<u64>,
    /// The state after it.
    pub position: Option<Position>,
    /// The id of the node that ran it.
    pub node: String,
    /// Whether it is the recorded answer of an earlier try.
    pub repeated: bool,
}

/// A read that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// The session it belongs to.
    pub session: Option<u32>,
    /// What it asked for.
    pub asked: Asked,
    /// When it was sent.
    pub invoked: Moment,
    /// When it was answered.
    pub returned: Moment,
    /// The state it was answered from.
    pub position: Position,
    /// The newest rows of that state, newest first; none only if it has none.
    pub newest: Vec<Entry>,
    /// The id of the node that answered.
    pub node: String,
}

impl Read {
    /// The number of rows of the state it was answered from.
    pub fn rows(&self) -> u64 {
        self.newest.first().map_or(0, |entry| entry.place)
    }
}

/// How fresh an answer a read asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Whatever there is.
    Anything,
    /// Not before this state.
    From(Position),
    /// All that was acknowledged before it was sent.
    Acknowledged,
    /// That, and all that any answer before it had shown: what is linearizable. A state may be shown before the one
    /// who wrote it is answered, by a replica too.
    Everything,
}

/// Something that was done to the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// When.
    pub at: Moment,
    /// The id of the node that led then, if it lost its place by this.
    pub leader: Option<String>,
}

/// Everything that happened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// In no order.
    pub writes: Vec<Write>,
    /// In no order.
    pub reads: Vec<Read>,
    /// In order.
    pub faults: Vec<Fault>,
    /// Tries that ended in a failure, by kind, those of writes that went through later among them.
    pub refusals: Vec<String>,
}

/// Takes notes for many clients.
#[derive(Debug)]
pub struct Recorder {
    started: Instant,
    history: Mutex<History>,
    acknowledged: AtomicUsize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            history: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
        }
    }
}

impl Recorder {
    /// Now.
    pub fn now(&self) -> Moment {
        self.started.elapsed()
    }

    /// A write has ended.
    pub fn wrote(&self, write: Write) {
        let acknowledged = matches!(write.fate, Fate::Committed(_));
        self.lock().writes.push(write);
        if acknowledged {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A read was answered.
    pub fn read(&self, read: Read) {
        self.lock().reads.push(read);
    }

    /// A try failed, for this reason.
    pub fn refused(&self, reason: String) {
        self.lock().refusals.push(reason);
    }

    /// Something is done to the cluster now; to its leader, if one is named.
    pub fn fault(&self, leader: Option<String>) {
        let at = self.now();
        self.lock().faults.push(Fault { at, leader });
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many reads were answered so far.
    pub fn answered(&self) -> usize {
        self.lock().reads.len()
    }

    /// All of it.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, History> {
        // Every note is one push, so a panic elsewhere leaves it whole.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
