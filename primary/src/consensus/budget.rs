//! How much may be in flight between a proposal and its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds proposals in flight, by bytes and by number.
///
/// The log's queue blocks the core task when it is full, and with it heartbeats and votes. So it is bounded
/// here, before anything is proposed. A full budget refuses; the caller decides whether to wait.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
    bytes_max: u64,
    count_max: u64,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(bytes_max: u64, count_max: u64) -> Self {
        Self {
            bytes: Arc::default(),
            count: Arc::default(),
            bytes_max,
            count_max,
        }
    }

    /// Takes `bytes`, or nothing. One that is larger than the whole budget gets through when it is alone:
    /// it could never otherwise.
    pub(super) fn take(&self, bytes: u64) -> Option<Share> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Owns both from here on, so that a refusal gives them back.
        let share = Share {
            budget: self.clone(),
            bytes,
        };
        let fits = taken.saturating_add(bytes) <= self.bytes_max || taken == 0;
        (fits && count < self.count_max).then_some(share)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_the_bytes_is_refused_and_costs_nothing() {
        let budget = Budget::new(100, 10);
        let first = budget.take(80).expect("fits");
        assert!(budget.take(21).is_none());
        assert_eq!((budget.bytes(), budget.count()), (80, 1));
        drop(first);
        assert_eq!((budget.bytes(), budget.count()), (0, 0));
    }

    #[test]
    fn over_the_count_is_refused() {
        let budget = Budget::new(100, 1);
        let _first = budget.take(1).expect("fits");
        assert!(budget.take(1).is_none());
    }

    #[test]
    fn larger_than_the_whole_budget_passes_alone() {
        let budget = Budget::new(100, 10);
        let large = budget.take(1000).expect("alone");
        assert!(budget.take(1).is_none());
        drop(large);
        let _small = budget.take(1).expect("fits");
        assert!(budget.take(1000).is_none());
    }
}
