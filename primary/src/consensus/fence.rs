//! The newest term this node has heard of: what closes a leadership the moment another one begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemark_protocol::Term;

/// Tells whether work begun in a term may still be proposed.
///
/// Closed from within `save_vote`, before the vote is on disk and before any entry of the newer leader can
/// be stored or applied: the earliest ordered sign of a lost leadership. It saves work and refuses early;
/// the proof that nothing stale takes effect is the chain check in [`super::Machine::apply`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Fence {
    newest: Arc<AtomicU64>,
}

impl Fence {
    /// Newest term heard of: own leadership, another's, or a candidate's.
    pub(crate) fn newest(&self) -> Term {
        Term(self.newest.load(Ordering::Acquire))
    }

    /// Whether no newer term than `term` is known.
    pub(crate) fn holds(&self, term: Term) -> bool {
        self.newest() <= term
    }

    /// A vote in `term` was granted or accepted.
    pub(super) fn observe(&self, term: Term) {
        self.newest.fetch_max(term.0, Ordering::AcqRel);
    }
}
