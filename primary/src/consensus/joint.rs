//! The one outcome of a proposal whose command travels in parts.
//!
//! Each part has an outcome of its own. The proposal is refused as soon as one of them is, since then the
//! command can take effect nowhere; otherwise it has an outcome when all parts have, and is committed if all
//! of them are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Proposed;
use super::completion::Promise;

/// One part's share in the outcome. Dropped, its outcome is unknown.
pub(super) struct PartPromise<F: FnOnce(Proposed)> {
    joint: Option<Arc<Mutex<Joint<F>>>>,
}

struct Joint<F: FnOnce(Proposed)> {
    /// Taken when it is kept.
    promise: Option<Promise<F>>,
    /// Parts without an outcome.
    open: usize,
    /// Of the parts that have one. The last one applied is the last part.
    so_far: Option<Proposed>,
}

/// A promise per part, for `promise` as a whole.
pub(super) fn promises<F: FnOnce(Proposed)>(
    promise: Promise<F>,
    parts: usize,
) -> Vec<PartPromise<F>> {
    let joint = Joint {
        promise: Some(promise),
        open: parts,
        so_far: None,
    };
    let joint = Arc::new(Mutex::new(joint));
    let part = || PartPromise {
        joint: Some(Arc::clone(&joint)),
    };
    std::iter::repeat_with(part).take(parts).collect()
}

impl<F: FnOnce(Proposed)> PartPromise<F> {
    /// Whether the proposal has its outcome.
    pub(super) fn is_settled(&self) -> bool {
        let joint = self.joint.as_ref().map(|joint| lock(joint));
        joint.is_none_or(|joint| joint.promise.is_none())
    }

    pub(super) fn keep(mut self, outcome: Proposed) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Proposed) {
        let Some(joint) = self.joint.take() else {
            return;
        };
        let kept = lock(&joint).part(outcome);
        // Not under the lock: whoever is told may drop other parts.
        if let Some((promise, outcome)) = kept {
            promise.keep(outcome);
        }
    }
}

impl<F: FnOnce(Proposed)> Joint<F> {
    /// Takes a part's outcome into account. Answers that of the whole, once.
    fn part(&mut self, outcome: Proposed) -> Option<(Promise<F>, Proposed)> {
        self.open -= 1;
        let refused = matches!(outcome, Proposed::Refused(_));
        let whole = match (self.so_far.take(), outcome) {
            (Some(Proposed::Unknown), Proposed::Committed { .. }) => Proposed::Unknown,
            (Some(Proposed::Committed { index }), Proposed::Committed { index: other }) => {
                Proposed::Committed {
                    index: index.max(other),
                }
            }
            (_, outcome) => outcome,
        };
        if refused || self.open == 0 {
            return Some((self.promise.take()?, whole));
        }
        self.so_far = Some(whole);
        None
    }
}

impl<F: FnOnce(Proposed)> Drop for PartPromise<F> {
    fn drop(&mut self) {
        self.settle(Proposed::Unknown);
    }
}

fn lock<F: FnOnce(Proposed)>(joint: &Mutex<Joint<F>>) -> MutexGuard<'_, Joint<F>> {
    joint.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::consensus::budget::Budget;
    use crate::consensus::{LogIndex, Refusal};

    const UNKNOWN: Proposed = Proposed::Unknown;
    const REFUSED: Proposed = Proposed::Refused(Refusal::Lease);

    fn committed(index: u64) -> Proposed {
        Proposed::Committed {
            index: LogIndex(index),
        }
    }

    /// What a proposal is told whose parts end so, in this order. `None` drops a part.
    #[track_caller]
    fn check(outcomes: &[Option<Proposed>], expected: &Proposed) {
        let (done, told) = mpsc::channel();
        let share = Budget::new(100, 100).take(1).expect("fits");
        let promise = Promise::new(move |outcome| done.send(outcome).expect("heard"), share);
        let parts = promises(promise, outcomes.len());
        for (part, outcome) in parts.into_iter().zip(outcomes) {
            match outcome {
                Some(outcome) => part.keep(outcome.clone()),
                None => drop(part),
            }
        }
        let told: Vec<_> = told.iter().collect();
        assert_eq!(told, std::slice::from_ref(expected), "{outcomes:?}");
    }

    #[test]
    fn a_proposal_in_parts_has_one_outcome_whatever_becomes_of_them() {
        let one_of = [Some(committed(7)), Some(UNKNOWN), Some(REFUSED), None];
        for first in &one_of {
            for second in &one_of {
                for third in &one_of {
                    let all = [first.clone(), second.clone(), third.clone()];
                    let any = |of: &Proposed| all.iter().flatten().any(|outcome| outcome == of);
                    let expected = if any(&REFUSED) {
                        REFUSED
                    } else if any(&UNKNOWN) || all.contains(&None) {
                        UNKNOWN
                    } else {
                        committed(7)
                    };
                    check(&all, &expected);
                }
            }
        }
        check(&[Some(committed(5)), Some(committed(6))], &committed(6));
    }

    #[test]
    fn a_refused_part_settles_it_at_once() {
        let (done, told) = mpsc::channel();
        let share = Budget::new(100, 100).take(1).expect("fits");
        let promise = Promise::new(move |outcome| done.send(outcome).expect("heard"), share);
        let mut parts = promises(promise, 3);
        let (third, second) = (parts.pop(), parts.pop());
        assert!(!second.as_ref().expect("there").is_settled());
        second.expect("there").keep(REFUSED);
        assert_eq!(told.recv(), Ok(REFUSED));
        assert!(third.expect("there").is_settled());
        drop(parts);
        assert_eq!(told.recv().ok(), None, "told once");
    }
}
