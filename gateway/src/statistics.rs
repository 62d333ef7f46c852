//! What was asked of this node's databases, by hour and by query: the figures of D1's analytics.
//!
//! Counted are requests that this node ran itself, on whichever role; what it passed on counts where it ran, and
//! an answer that was repeated counts nothing. A query is a text with its literals replaced ([`text`]); a batch
//! is one, of all its texts. Kept in memory, since the node started, for 31 days as D1 has it, and for fewer if
//! that takes more than [`BYTES_MAX`]: the oldest hours go first. Of an hour with more distinct queries than its
//! bound the others are in the totals alone.
//!
//! Every query passes here twice, so both ways are short: a text that was seen lately is looked up by its hash,
//! and counting touches one hour of one database, which has a lock of its own: databases do not wait for each
//! other, but for the first request of an hour.

mod figures;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use foldhash::fast::RandomState;
use tidemark_protocol::render::Tally;
use tidemark_protocol::{DatabaseId, Statement};

pub(crate) use self::figures::{HourFigures, QueryFigures};
#[cfg(feature = "fuzzing")]
pub(crate) use self::text::without_literals;

/// Hours that are kept.
const HOURS_MAX: u64 = 31 * 24;
/// Hours of which the distribution of durations is kept,
const DISTRIBUTIONS_HOURS_MAX: u64 = 25;
/// and of how many databases and hours: about two kilobytes each.
const DISTRIBUTIONS_MAX: usize = 4096;
/// Distinct queries of one database in one hour.
const QUERIES_PER_HOUR_MAX: usize = 250;
/// Figures and the texts of their queries, each text counted in every hour that has it.
const BYTES_MAX: usize = 64 << 20;
/// What is left of them once they are too many: so that not every new one drops another.
const BYTES_LEFT: usize = BYTES_MAX / 8 * 7;
/// What the figures of a query take besides its text, about; and those of an hour.
const FIGURES_BYTES: usize = 160;
const HOUR_BYTES: usize = 256;
/// Texts that were looked at before, of at most two kilobytes each. Emptied when full.
const TEXTS_KNOWN_MAX: usize = 4096;

/// Hours since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Hour(pub(crate) u64);

impl Hour {
    /// The one that this moment is in.
    pub(crate) fn of(unix_ms: u64) -> Self {
        Self(unix_ms / 3_600_000)
    }
}

/// The counting of one node.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    /// Queries by the hash of what they were asked as.
    known: RwLock<HashMap<u64, Arc<str>, RandomState>>,
    counts: RwLock<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// In the order in which they are dropped.
    hours: BTreeMap<(Hour, DatabaseId), Mutex<HourOfDatabase>>,
    newest: Option<Hour>,
    /// Of everything in `hours`, about.
    bytes: AtomicUsize,
    /// Of those in `hours`.
    distributions: AtomicUsize,
}

#[derive(Debug, Default)]
struct HourOfDatabase {
    total: HourFigures,
    queries: HashMap<Arc<str>, QueryFigures, RandomState>,
    bytes: usize,
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
    pub(crate) fn identify(&self, statements: &[Statement]) -> Arc<str> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let hash = hash(statements, known.hasher());
        if let Some(query) = known.get(&hash) {
            return Arc::clone(query);
        }
        drop(known);
        let query: Arc<str> = text::without_literals(statements).into();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TEXTS_KNOWN_MAX {
            known.clear();
        }
        known.insert(hash, Arc::clone(&query));
        query
    }

    /// Counts a request that ran in the hour of this moment.
    pub(crate) fn count(
        &self,
        database: DatabaseId,
        query: &Arc<str>,
        tally: &Tally,
        answer_bytes: usize,
        unix_ms: u64,
    ) {
        // A repeated answer.
        if tally.statements == 0 {
            return;
        }
        let hour = Hour::of(unix_ms);
        let counted = {
            let counts = self.read();
            let of_hour = counts.of(hour, database);
            of_hour.map(|of| counts.add(&mut lock(of), query, tally, answer_bytes))
        };
        let bytes = counted.unwrap_or_else(|| {
            let mut counts = self.write();
            counts.advance(hour);
            counts.hours.entry((hour, database)).or_default();
            let of_hour = &counts.hours[&(hour, database)];
            counts.add(&mut lock(of_hour), query, tally, answer_bytes)
        });
        if bytes > BYTES_MAX {
            self.write().shrink(BYTES_LEFT);
        }
    }

    /// The totals of each of these hours, of one database or of each.
    pub(crate) fn hours(
        &self,
        hours: RangeInclusive<Hour>,
        database: Option<DatabaseId>,
    ) -> Vec<(Hour, DatabaseId, HourFigures)> {
        let counts = self.read();
        let found = counts.within(hours, database);
        found
            .map(|(hour, database, of_hour)| (hour, database, lock(of_hour).total.clone()))
            .collect()
    }

    /// The queries of these hours, of one database or of each, in no order.
    pub(crate) fn queries(
        &self,
        hours: RangeInclusive<Hour>,
        database: Option<DatabaseId>,
    ) -> Vec<Query> {
        let counts = self.read();
        let mut sums: HashMap<(DatabaseId, Arc<str>), QueryFigures> = HashMap::new();
        for (_, database, of_hour) in counts.within(hours, database) {
            for (query, figures) in &lock(of_hour).queries {
                let key = (database, Arc::clone(query));
                sums.entry(key).or_default().merge(figures);
            }
        }
        drop(counts);
        let query = |((database, text), figures)| Query {
            text,
            database,
            figures,
        };
        sums.into_iter().map(query).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Counts> {
        // Counts are whole between any two statements above.
        self.counts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Counts> {
        self.counts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(of_hour: &Mutex<HourOfDatabase>) -> MutexGuard<'_, HourOfDatabase> {
    of_hour.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    /// What is counted of a database in this hour, if that has begun.
    fn of(&self, hour: Hour, database: DatabaseId) -> Option<&Mutex<HourOfDatabase>> {
        let begun = self.newest.is_some_and(|newest| newest >= hour);
        self.hours.get(&(hour, database)).filter(|_| begun)
    }

    /// Counts a request. Returns the bytes of everything.
    fn add(
        &self,
        of_hour: &mut HourOfDatabase,
        query: &Arc<str>,
        tally: &Tally,
        answer_bytes: usize,
    ) -> usize {
        let has_room = self.distributions.load(Ordering::Relaxed) < DISTRIBUTIONS_MAX;
        if of_hour.total.add(tally, answer_bytes as u64, has_room) {
            self.distributions.fetch_add(1, Ordering::Relaxed);
        }
        let before = of_hour.bytes;
        if before == 0 {
            of_hour.bytes = HOUR_BYTES;
        }
        if let Some(figures) = of_hour.queries.get_mut(query) {
            figures.add(tally);
        } else if of_hour.queries.len() < QUERIES_PER_HOUR_MAX {
            let mut figures = QueryFigures::default();
            figures.add(tally);
            of_hour.bytes += query.len() + FIGURES_BYTES;
            of_hour.queries.insert(Arc::clone(query), figures);
        }
        let grown = of_hour.bytes - before;
        if grown == 0 {
            return self.bytes.load(Ordering::Relaxed);
        }
        self.bytes.fetch_add(grown, Ordering::Relaxed) + grown
    }

    fn within(
        &self,
        hours: RangeInclusive<Hour>,
        database: Option<DatabaseId>,
    ) -> impl Iterator<Item = (Hour, DatabaseId, &Mutex<HourOfDatabase>)> {
        self.hours
            .iter()
            .filter(move |((hour, of), _)| {
                hours.contains(hour) && database.is_none_or(|database| database == *of)
            })
            .map(|((hour, database), of_hour)| (*hour, *database, of_hour))
    }

    /// At the first request of an hour: drops what is too old by then.
    fn advance(&mut self, now: Hour) {
        if self.newest.is_some_and(|newest| newest >= now) {
            return;
        }
        self.newest = Some(now);
        while let Some((hour, _)) = self.hours.keys().next()
            && hour.0 + HOURS_MAX <= now.0
        {
            self.drop_first();
        }
        for ((hour, _), of_hour) in &self.hours {
            if hour.0 + DISTRIBUTIONS_HOURS_MAX <= now.0 && lock(of_hour).total.drop_distribution()
            {
                self.distributions.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Drops the oldest hours until no more than this is left.
    fn shrink(&mut self, bytes: usize) {
        while *self.bytes.get_mut() > bytes && !self.hours.is_empty() {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, dropped)) = self.hours.pop_first() {
            let mut dropped = dropped.into_inner().unwrap_or_else(PoisonError::into_inner);
            *self.bytes.get_mut() -= dropped.bytes;
            *self.distributions.get_mut() -= usize::from(dropped.total.drop_distribution());
        }
    }
}

/// Of as much as decides which query it is.
fn hash(statements: &[Statement], state: &RandomState) -> u64 {
    let mut hasher = state.build_hasher();
    statements.len().hash(&mut hasher);
    let mut budget = text::LOOKED_AT_BYTES_MAX;
    for Statement { sql, .. } in statements {
        let looked_at = &sql.as_bytes()[..sql.len().min(budget)];
        (sql.len(), looked_at).hash(&mut hasher);
        budget -= looked_at.len();
        if budget == 0 {
            break;
        }
    }
    hasher.finish()
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
            statistics.count(database(1), &query, &tally(3, false), 2, 5 * HOUR_MS);
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
        statistics.count(database(1), &query, &tally(1, false), 2, HOUR_MS);
        statistics.count(database(1), &query, &tally(2, true), 2, 2 * HOUR_MS);
        statistics.count(database(2), &query, &tally(4, false), 2, 2 * HOUR_MS);
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
        statistics.count(database(1), &query, &Tally::default(), 2, HOUR_MS);
        assert!(statistics.hours(Hour(0)..=Hour(9), None).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let statistics = Statistics::default();
        for n in 0..QUERIES_PER_HOUR_MAX + 10 {
            let query = statistics.identify(&[statement(&format!("SELECT a{n} FROM t"))]);
            statistics.count(database(1), &query, &tally(1, false), 2, HOUR_MS);
        }
        let all = Hour(0)..=Hour(u64::MAX);
        let queries = statistics.queries(all.clone(), None);
        assert_eq!(queries.len(), QUERIES_PER_HOUR_MAX);
        let (.., total) = statistics.hours(all.clone(), None).remove(0);
        assert_eq!(total.read_queries, QUERIES_PER_HOUR_MAX as u64 + 10);

        let query = statistics.identify(&[statement("SELECT 1")]);
        let later = (1 + HOURS_MAX) * HOUR_MS;
        statistics.count(database(1), &query, &tally(1, false), 2, later);
        let kept: Vec<Hour> = statistics.hours(all, None).iter().map(|of| of.0).collect();
        assert_eq!(kept, [Hour(1 + HOURS_MAX)]);
        let mut counts = statistics.write();
        assert_eq!(*counts.distributions.get_mut(), 1);
        let bytes = HOUR_BYTES + FIGURES_BYTES + "SELECT ?".len();
        assert_eq!(*counts.bytes.get_mut(), bytes);
    }

    #[test]
    fn the_oldest_hours_make_room() {
        let statistics = Statistics::default();
        let long = "a".repeat(2000);
        for n in 0..BYTES_MAX as u64 / 2000 {
            let query: Arc<str> = format!("{long}{n}").into();
            let hour = n / (QUERIES_PER_HOUR_MAX as u64 - 1);
            statistics.count(database(1), &query, &tally(1, false), 2, hour * HOUR_MS);
        }
        let mut counts = statistics.write();
        let bytes = *counts.bytes.get_mut();
        assert!(bytes <= BYTES_MAX, "{bytes}");
        let summed: usize = counts.hours.values().map(|of| lock(of).bytes).sum();
        assert_eq!(bytes, summed);
        assert!(!counts.hours.contains_key(&(Hour(0), database(1))));
        let distributed = counts
            .hours
            .values()
            .filter(|of| lock(of).total.duration_p90().is_some());
        let distributed = distributed.count();
        assert_eq!(*counts.distributions.get_mut(), distributed);
    }
}
