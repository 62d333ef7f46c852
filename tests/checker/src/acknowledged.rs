//! How many rows had been acknowledged by each moment.

use super::seen::Seen;
use super::{Fate, History};

/// The greatest place that had been acknowledged by each moment of an acknowledgement.
pub(super) fn acknowledged(history: &History) -> Seen {
    Seen::of(history.writes.iter().filter_map(|write| match &write.fate {
        Fate::Committed(told) => told.place.map(|place| (write.returned, place)),
        Fate::Failed | Fate::Unknown => None,
    }))
}
