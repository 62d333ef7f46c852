//! How many rows had been acknowledged by each moment.

use super::{Fate, History, Moment};

/// The greatest place that had been acknowledged by each moment of an acknowledgement.
pub(super) struct Acknowledged(Vec<(Moment, u64)>);

impl Acknowledged {
    pub(super) fn of(history: &History) -> Self {
        let mut known: Vec<(Moment, u64)> = history
            .writes
            .iter()
            .filter_map(|write| match &write.fate {
                Fate::Committed(told) => told.place.map(|place| (write.returned, place)),
                Fate::Failed | Fate::Unknown => None,
            })
            .collect();
        known.sort_unstable();
        let mut greatest = 0;
        for (_, place) in &mut known {
            greatest = greatest.max(*place);
            *place = greatest;
        }
        Self(known)
    }

    /// Rows that whoever sends a request at `moment` may rely on.
    pub(super) fn before(&self, moment: Moment) -> u64 {
        let before = self.0.partition_point(|(returned, _)| *returned < moment);
        before.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}
