//! Sums over requests.

use std::time::Duration;

use hdrhistogram::Histogram;
use tidemark_protocol::render::Tally;

/// Longest duration that is told from longer ones, in microseconds.
const DURATION_MAX_US: u64 = 600_000_000;
/// Digits of a duration that count. One: within ten of a hundred.
const DIGITS: u8 = 1;

/// All requests of a database in an hour.
#[derive(Clone, Debug, Default)]
pub(crate) struct HourFigures {
    /// Requests that wrote nothing.
    pub(crate) read_queries: u64,
    /// Requests that wrote.
    pub(crate) write_queries: u64,
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    /// Bytes of the answers.
    pub(crate) answer_bytes: u64,
    /// Time in SQLite.
    pub(crate) duration: Duration,
    /// Of the same, in microseconds; of recent hours.
    durations: Option<Histogram<u32>>,
}

impl HourFigures {
    /// Whether this began a distribution of durations, for which there is room or not.
    pub(super) fn add(&mut self, tally: &Tally, answer_bytes: u64, has_room: bool) -> bool {
        match tally.wrote {
            true => self.write_queries += 1,
            false => self.read_queries += 1,
        }
        self.rows_read = self.rows_read.saturating_add(tally.rows_read);
        self.rows_written = self.rows_written.saturating_add(tally.rows_written);
        self.answer_bytes = self.answer_bytes.saturating_add(answer_bytes);
        self.duration = self.duration.saturating_add(tally.duration);
        let begins = self.durations.is_none() && self.count() == 1 && has_room;
        if begins {
            let durations = Histogram::new_with_bounds(1, DURATION_MAX_US, DIGITS);
            self.durations = Some(durations.expect("sound bounds"));
        }
        if let Some(durations) = &mut self.durations {
            let micros = u64::try_from(tally.duration.as_micros()).unwrap_or(u64::MAX);
            durations.saturating_record(micros);
        }
        begins
    }

    /// Whether there was one.
    pub(super) fn drop_distribution(&mut self) -> bool {
        self.durations.take().is_some()
    }

    /// Requests.
    pub(crate) fn count(&self) -> u64 {
        self.read_queries + self.write_queries
    }

    /// What nine of ten requests stay under.
    pub(crate) fn duration_p90(&self) -> Option<Duration> {
        let durations = self.durations.as_ref()?;
        Some(Duration::from_micros(durations.value_at_quantile(0.9)))
    }
}

/// One query.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct QueryFigures {
    /// Times it ran.
    pub(crate) count: u64,
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    pub(crate) rows_returned: u64,
    /// Time in SQLite.
    pub(crate) duration: Duration,
}

impl QueryFigures {
    pub(super) fn add(&mut self, tally: &Tally) {
        self.merge(&Self {
            count: 1,
            rows_read: tally.rows_read,
            rows_written: tally.rows_written,
            rows_returned: tally.rows_returned,
            duration: tally.duration,
        });
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.rows_read = self.rows_read.saturating_add(other.rows_read);
        self.rows_written = self.rows_written.saturating_add(other.rows_written);
        self.rows_returned = self.rows_returned.saturating_add(other.rows_returned);
        self.duration = self.duration.saturating_add(other.duration);
    }
}
