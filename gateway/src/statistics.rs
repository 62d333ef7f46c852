//! What was asked of this node's databases, by hour and by query: the figures of D1's analytics.
//!
//! Counted are requests that this node ran itself, on whichever role; what it passed on counts where it ran, and
//! an answer that was repeated counts nothing. A query is a text with its literals replaced ([`text`]); a batch
//! is one, of all its texts. Kept in memory, since the node started, for 31 days as D1 has it, and for fewer if
//! the bounds say so: the oldest hours go first. Of an hour with more distinct queries than its bound the
//! others are in the totals alone.

mod figures;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemark_protocol::render::Tally;
use tidemark_protocol::{DatabaseId, Statement};

pub(crate) use self::figures::{HourFigures, QueryFigures};

/// Hours that are kept.
const HOURS_MAX: u64 = 31 * 24;
/// Hours of which the distribution of durations is kept: a kilobyte each.
const DISTRIBUTIONS_HOURS_MAX: u64 = 25;
/// Distinct queries of one database in one hour.
const QUERIES_PER_HOUR_MAX: usize = 250;
/// Figures of queries, over all hours and databases: about a hundred bytes each.
const FIGURES_MAX: usize = 200_000;
/// Texts that were looked at before. Emptied when full.
const TEXTS_KNOWN_MAX: usize = 20_000;

/// Hours since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Hour(pub(crate) u64);

impl Hour {
    /// The one that this moment is in.
    pub(crate) fn of(unix_ms: u64) -> Self {
        Self(unix_ms / 3_600_000)
    }
}

/// A query, by the hash of its text without literals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct QueryId(u64);

/// The counting of one node.
#[derive(Debug, Default)]
pub(crate) struct Statistics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// In the order in which they are dropped.
    hours: BTreeMap<(Hour, DatabaseId), HourOfDatabase>,
    /// Figures of queries in `hours`.
    figures: usize,
    texts: HashMap<QueryId, Arc<str>>,
    /// What hashes of texts as they came stand for.
    known: HashMap<u64, QueryId>,
}

#[derive(Debug, Default)]
struct HourOfDatabase {
    total: HourFigures,
    queries: HashMap<QueryId, QueryFigures>,
}

/// A query of a database, over several hours.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Query {
    pub(crate) text: Arc<str>,
    pub(crate) database: DatabaseId,
    pub(crate) figures: QueryFigures,
}

impl Statistics {
    /// Which query these statements are. Before they run: who runs them takes them along.
    pub(crate) fn identify(&self, statements: &[Statement]) -> QueryId {
        let mut hasher = DefaultHasher::new();
        for statement in statements {
            statement.sql.hash(&mut hasher);
        }
        let hash = hasher.finish();
        if let Some(query) = self.lock().known.get(&hash) {
            return *query;
        }
        // Outside of the lock: it takes its time with a long text.
        let text = text::without_literals(statements);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let query = QueryId(hasher.finish());
        let mut counts = self.lock();
        if counts.known.len() >= TEXTS_KNOWN_MAX {
            counts.known.clear();
            counts.forget_texts();
        }
        counts.known.insert(hash, query);
        counts.texts.entry(query).or_insert_with(|| text.into());
        query
    }

    /// Counts a request that ran in the hour of this moment.
    pub(crate) fn count(
        &self,
        database: DatabaseId,
        query: QueryId,
        tally: &Tally,
        answer_bytes: usize,
        unix_ms: u64,
    ) {
        // A repeated answer.
        if tally.statements == 0 {
            return;
        }
        let hour = Hour::of(unix_ms);
        let mut counts = self.lock();
        let new_hour = !counts.hours.contains_key(&(hour, database));
        let of_hour = counts.hours.entry((hour, database)).or_default();
        of_hour.total.add(tally, answer_bytes as u64);
        let has_room = of_hour.queries.len() < QUERIES_PER_HOUR_MAX;
        let mut added = 0;
        if let Some(figures) = of_hour.queries.get_mut(&query) {
            figures.add(tally);
        } else if has_room {
            let mut figures = QueryFigures::default();
            figures.add(tally);
            of_hour.queries.insert(query, figures);
            added = 1;
        }
        counts.figures += added;
        if new_hour || counts.figures > FIGURES_MAX {
            counts.forget(hour);
        }
    }

    /// The totals of each of these hours, of one database or of each.
    pub(crate) fn hours(
        &self,
        hours: RangeInclusive<Hour>,
        database: Option<DatabaseId>,
    ) -> Vec<(Hour, DatabaseId, HourFigures)> {
        let counts = self.lock();
        let found = counts.within(hours, database);
        found
            .map(|(hour, database, of_hour)| (hour, database, of_hour.total.clone()))
            .collect()
    }

    /// The queries of these hours, of one database or of each, in no order.
    pub(crate) fn queries(
        &self,
        hours: RangeInclusive<Hour>,
        database: Option<DatabaseId>,
    ) -> Vec<Query> {
        let counts = self.lock();
        let mut sums: HashMap<(DatabaseId, QueryId), QueryFigures> = HashMap::new();
        for (_, database, of_hour) in counts.within(hours, database) {
            for (query, figures) in &of_hour.queries {
                sums.entry((database, *query)).or_default().merge(figures);
            }
        }
        let named = |((database, query), figures)| {
            let text = Arc::clone(counts.texts.get(&query)?);
            Some(Query {
                text,
                database,
                figures,
            })
        };
        sums.into_iter().filter_map(named).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are whole between any two statements above.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn within(
        &self,
        hours: RangeInclusive<Hour>,
        database: Option<DatabaseId>,
    ) -> impl Iterator<Item = (Hour, DatabaseId, &HourOfDatabase)> {
        self.hours
            .iter()
            .filter(move |((hour, of), _)| {
                hours.contains(hour) && database.is_none_or(|database| database == *of)
            })
            .map(|((hour, database), of_hour)| (*hour, *database, of_hour))
    }

    /// Drops what is too old, and the oldest of what is too much.
    fn forget(&mut self, now: Hour) {
        let mut dropped = false;
        while let Some(first) = self.hours.first_entry()
            && (first.key().0.0 + HOURS_MAX <= now.0 || self.figures > FIGURES_MAX)
        {
            self.figures -= first.remove().queries.len();
            dropped = true;
        }
        for ((hour, _), of_hour) in &mut self.hours {
            if hour.0 + DISTRIBUTIONS_HOURS_MAX <= now.0 {
                of_hour.total.drop_distribution();
            }
        }
        if dropped {
            self.known.clear();
            self.forget_texts();
        }
    }

    /// Drops texts without figures.
    fn forget_texts(&mut self) {
        let hours = &self.hours;
        self.texts
            .retain(|query, _| hours.values().any(|of| of.queries.contains_key(query)));
    }
}

/// Milliseconds with their fraction, as D1 gives durations.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn statement(sql: &str) -> Statement {
        Statement {
            sql: sql.to_owned(),
            params: Vec::new(),
        }
    }

    fn database(n: u128) -> DatabaseId {
        DatabaseId::new(uuid::Uuid::from_u128(n))
    }

    fn tally(rows_read: u64, wrote: bool) -> Tally {
        Tally {
            statements: 1,
            rows_read,
            wrote,
            duration: Duration::from_millis(2),
            ..Tally::default()
        }
    }

    #[test]
    fn queries_that_differ_in_literals_are_one() {
        let statistics = Statistics::default();
        for sql in [
            "SELECT * FROM t WHERE a = 1",
            "SELECT * FROM t WHERE a = 22",
        ] {
            let query = statistics.identify(&[statement(sql)]);
            statistics.count(database(1), query, &tally(3, false), 2, 5 * HOUR_MS);
        }
        let found = statistics.queries(Hour(0)..=Hour(9), None);
        assert_eq!(found.len(), 1);
        assert_eq!(&*found[0].text, "SELECT * FROM t WHERE a = ?");
        assert_eq!((found[0].figures.count, found[0].figures.rows_read), (2, 6));
    }

    #[test]
    fn hours_and_databases_are_told_apart() {
        let statistics = Statistics::default();
        let query = statistics.identify(&[statement("SELECT 1")]);
        statistics.count(database(1), query, &tally(1, false), 2, HOUR_MS);
        statistics.count(database(1), query, &tally(2, true), 2, 2 * HOUR_MS);
        statistics.count(database(2), query, &tally(4, false), 2, 2 * HOUR_MS);
        let reads = |hours, database| -> Vec<u64> {
            let found = statistics.hours(hours, database);
            found.iter().map(|(.., total)| total.rows_read).collect()
        };
        assert_eq!(reads(Hour(0)..=Hour(9), None), [1, 2, 4]);
        assert_eq!(reads(Hour(2)..=Hour(2), Some(database(1))), [2]);
        let (.., total) = statistics
            .hours(Hour(2)..=Hour(2), Some(database(1)))
            .remove(0);
        assert_eq!((total.read_queries, total.write_queries), (0, 1));
        assert!(total.duration_p90().is_some());
    }

    #[test]
    fn a_repeated_answer_counts_nothing() {
        let statistics = Statistics::default();
        let query = statistics.identify(&[statement("SELECT 1")]);
        statistics.count(database(1), query, &Tally::default(), 2, HOUR_MS);
        assert!(statistics.hours(Hour(0)..=Hour(9), None).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let statistics = Statistics::default();
        for n in 0..QUERIES_PER_HOUR_MAX + 10 {
            let query = statistics.identify(&[statement(&format!("SELECT a{n} FROM t"))]);
            statistics.count(database(1), query, &tally(1, false), 2, HOUR_MS);
        }
        let all = Hour(0)..=Hour(u64::MAX);
        assert_eq!(
            statistics.queries(all.clone(), None).len(),
            QUERIES_PER_HOUR_MAX
        );
        let (.., total) = statistics.hours(all.clone(), None).remove(0);
        assert_eq!(total.read_queries as usize, QUERIES_PER_HOUR_MAX + 10);

        let query = statistics.identify(&[statement("SELECT 1")]);
        let later = (1 + HOURS_MAX) * HOUR_MS;
        statistics.count(database(1), query, &tally(1, false), 2, later);
        let kept: Vec<Hour> = statistics.hours(all, None).iter().map(|of| of.0).collect();
        assert_eq!(kept, [Hour(1 + HOURS_MAX)]);
        let counts = statistics.lock();
        assert_eq!((counts.figures, counts.texts.len()), (1, 1));
    }
}
