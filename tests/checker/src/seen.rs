//! How far anybody had come by each moment.

use super::Moment;

/// The greatest number that had been known by each moment of an answer.
pub(super) struct Seen(Vec<(Moment, u64)>);

impl Seen {
    pub(super) fn of(answers: impl Iterator<Item = (Moment, u64)>) -> Self {
        let mut known: Vec<_> = answers.collect();
        known.sort_unstable();
        let mut greatest = 0;
        for (_, number) in &mut known {
            greatest = greatest.max(*number);
            *number = greatest;
        }
        Self(known)
    }

    /// What whoever sends a request at `moment` may rely on; 0 if nothing was answered before.
    pub(super) fn before(&self, moment: Moment) -> u64 {
        let before = self.0.partition_point(|(returned, _)| *returned < moment);
        before.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
