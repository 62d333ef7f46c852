//! What a caller says about one run of statements besides the statements.

use std::time::Instant;

use tidemark_protocol::{RequestId, Seq};

/// Bounds of one run of statements.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// When to give up.
    pub deadline: Instant,
    /// Steps of SQLite's virtual machine before the run is stopped with `Budget`. Lets a caller try a
    /// read where it stands and move the few long ones to a thread of their own. `None`: no bound.
    pub steps_max: Option<u64>,
}

impl Control {
    /// Bounded by time alone.
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            steps_max: None,
        }
    }
}

/// What goes into the record of a transaction that the statements cannot know.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The client's name for its request.
    pub request: Option<RequestId>,
    /// The primary's clock, milliseconds since 1970.
    pub proposed_at_ms: u64,
    /// Lamport's rule: the transaction's seq becomes `max(tip, after) + 1`.
    pub after: Seq,
}
