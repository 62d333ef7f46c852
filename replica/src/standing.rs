//! Where a copy stands, as far as a request needs to know: what readers see, and whether it moves.

use std::sync::Arc;

use tidemark_protocol::Position;

/// Where a copy stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    /// What readers see; `None` while nothing can be read.
    pub(crate) position: Option<Position>,
    /// What it is doing.
    pub(crate) condition: Condition,
}

/// What a copy is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    /// Its files are being opened, checked or exchanged.
    Opening,
    /// The source sends what is committed.
    Following,
    /// Nobody sends anything: no connection, or the source does not hold it.
    Alone,
    /// The source sends the pages that differ. What is here is intact but too old or of a history that
    /// ended.
    Catching,
    /// Its files are closed for want of use. A wish to read opens them again.
    Asleep {
        /// Whether the source sends what is committed.
        following: bool,
    },
    /// What is here must not be read. Says why.
    Damaged(Arc<str>),
    /// The database was deleted, or is no longer replicated.
    Dropped,
    /// Its files are closed for good: the node stops, or they are gone.
    Closed,
}

impl Standing {
    /// Whether readers get an answer.
    pub(crate) fn readable(&self) -> bool {
        match self.condition {
            Condition::Following | Condition::Alone | Condition::Catching => {
                self.position.is_some()
            }
            Condition::Opening
            | Condition::Asleep { .. }
            | Condition::Damaged(_)
            | Condition::Dropped
            | Condition::Closed => false,
        }
    }

    /// Whether its files are closed for want of use.
    pub(crate) fn asleep(&self) -> bool {
        matches!(self.condition, Condition::Asleep { .. })
    }

    /// Why nothing may be read, if it is for damage.
    pub(crate) fn damage(&self) -> Option<&str> {
        if let Condition::Damaged(reason) = &self.condition {
            Some(reason)
        } else {
            None
        }
    }

    /// Whether the next state is near: waiting here is likely shorter than a trip to the primary.
    pub(crate) fn promising(&self) -> bool {
        matches!(
            self.condition,
            Condition::Opening | Condition::Asleep { following: true } | Condition::Following
        )
    }
}
