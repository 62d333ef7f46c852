//! What a primary counts. Names start with `tidemark_primary_`, those of the log with `tidemark_log_`.
//!
//! Labels are of bounded cardinality: stages are fixed words, only the first [`METERED_DATABASES_MAX`] databases
//! that are open get a counter of their own and the others share one, and of replicas the first [`METERED_REPLICAS_MAX`] that
//! are connected are shown.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tidemark_protocol::DatabaseId;

use crate::consensus::{Consensus, LogIndex};
use crate::ship::followers::Followers;

/// Databases with a counter of commits of their own.
const METERED_DATABASES_MAX: usize = 64;
/// Replicas with gauges of their own.
const METERED_REPLICAS_MAX: usize = 256;
/// How a wait for a bookmark ended.
const MET: &str = "met";
const MISSED: &str = "missed";
/// Where the databases beyond are counted.
const OTHER_DATABASES: &str = "other";

type DatabaseLabel = [(&'static str, String); 1];
type ReplicaLabels = [(&'static str, String); 2];

/// What a write waits for, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Writes of the same database before it.
    Queue,
    /// Its own statements.
    Execute,
    /// A majority to have it on disk, and everything before it in the log.
    Replicate,
    /// The database's own WAL, together with what else was committed meanwhile.
    Flush,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Queue, Self::Execute, Self::Replicate, Self::Flush];

    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Execute => "execute",
            Self::Replicate => "replicate",
            Self::Flush => "flush",
        }
    }
}

/// What a primary counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    commits: Counter,
    commit_seconds: Histogram,
    /// One per [`Stage::ALL`], in that order: no look-up on the way of a write.
    stages: Vec<Histogram>,
    flush_batch: Histogram,
    metered: Arc<Metered>,
    queued: Gauge,
    waits: Family<[(&'static str, &'static str); 1], Counter>,
    wait_seconds: Histogram,
    overlay_bytes: Gauge,
    damaged: Counter,
    pub(crate) open_databases: Gauge,
    pub(crate) followers: Gauge,
    pub(crate) shipped: Counter,
    pub(crate) shipped_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) images: Counter,
    taken_over: Counter,
    fetched_pages: Counter,
    kept_pages: Counter,
}

/// Databases with a counter of their own.
#[derive(Debug, Default)]
struct Metered {
    commits: Family<DatabaseLabel, Counter>,
    /// And how many meters each has: one that is opened anew may have two for a moment.
    meters: Mutex<HashMap<DatabaseId, u32>>,
}

impl Metrics {
    /// Counts, from zero, as part of `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let stages = Family::<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>::new_with_constructor(
            || Histogram::new(exponential_buckets(0.000_01, 2.0, 21)),
        );
        let metrics = Self {
            commits: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 18)),
            stages: Stage::ALL
                .map(|stage| stages.get_or_create_owned(&[("stage", stage.name())]))
                .to_vec(),
            flush_batch: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            metered: Arc::default(),
            queued: Gauge::default(),
            waits: Family::default(),
            wait_seconds: Histogram::new(exponential_buckets(100e-6, 2.0, 20)),
            overlay_bytes: Gauge::default(),
            damaged: Counter::default(),
            open_databases: Gauge::default(),
            followers: Gauge::default(),
            shipped: Counter::default(),
            shipped_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            images: Counter::default(),
            taken_over: Counter::default(),
            fetched_pages: Counter::default(),
            kept_pages: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("tidemark_primary");
        registry.register(
            "commits",
            "Transactions answered as committed",
            metrics.commits.clone(),
        );
        registry.register(
            "commit_duration_seconds",
            "Time from execution to the answer of a committed transaction",
            metrics.commit_seconds.clone(),
        );
        registry.register(
            "write_stage_duration_seconds",
            "Time of a write in each stage: queue, execute, replicate, flush",
            stages,
        );
        registry.register(
            "flush_batch_transactions",
            "Committed transactions that reached a database's files in one go",
            metrics.flush_batch.clone(),
        );
        registry.register(
            "database_commits",
            "Transactions answered as committed, of the first databases; 'other': of all others",
            metrics.metered.commits.clone(),
        );
        registry.register(
            "queued_writes",
            "Writes that were let in and have not begun",
            metrics.queued.clone(),
        );
        // A rate needs something to start from.
        for outcome in [MET, MISSED] {
            let _ = metrics.waits.get_or_create(&[("outcome", outcome)]);
        }
        registry.register(
            "waits",
            "Reads that waited for a bookmark on a voter that does not lead, by outcome",
            metrics.waits.clone(),
        );
        registry.register(
            "wait_duration_seconds",
            "Time that reads waited for a bookmark there, whatever the outcome",
            metrics.wait_seconds.clone(),
        );
        registry.register(
            "overlay_bytes",
            "Bytes of executed transactions that are not acknowledged, in memory",
            metrics.overlay_bytes.clone(),
        );
        registry.register(
            "damaged_databases",
            "Databases whose files failed while committed transactions were flushed",
            metrics.damaged.clone(),
        );
        registry.register(
            "open_databases",
            "Databases whose files are open, as of the last look, once a second",
            metrics.open_databases.clone(),
        );
        registry.register("replicas", "Replicas connected", metrics.followers.clone());
        registry.register(
            "shipped_transactions",
            "Transactions sent",
            metrics.shipped.clone(),
        );
        registry.register(
            "shipped_bytes",
            "Bytes of records sent",
            metrics.shipped_bytes.clone(),
        );
        registry.register(
            "sent_bytes",
            "Bytes of messages given to replicas' connections, packed as they go out",
            metrics.sent_bytes.clone(),
        );
        registry.register(
            "images",
            "Whole states sent to replicas and voters, as far as theirs differed",
            metrics.images.clone(),
        );
        registry.register(
            "taken_over_databases",
            "Databases whose copy another voter's took the place of",
            metrics.taken_over.clone(),
        );
        registry.register(
            "fetched_pages",
            "Pages fetched from another voter for that",
            metrics.fetched_pages.clone(),
        );
        registry.register(
            "kept_pages",
            "Pages that were the same and came from the old copy",
            metrics.kept_pages.clone(),
        );
        metrics
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.commits.inc();
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// A write was so long in this stage.
    pub(crate) fn stage(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].observe(took.as_secs_f64());
    }

    /// So many transactions reached the files in one go.
    pub(crate) fn flushed(&self, transactions: usize, took: Duration) {
        self.flush_batch.observe(transactions as f64);
        self.stage(Stage::Flush, took);
    }

    /// What one database adds to.
    pub(crate) fn meter(&self, database: DatabaseId) -> DatabaseMeter {
        let (slot, commits) = Metered::take(&self.metered, database);
        DatabaseMeter {
            commits,
            _slot: slot,
            overlay: self.overlay_bytes.clone(),
            overlay_bytes: 0,
        }
    }

    /// A write was let in. It has begun, or never will, when what this gives is dropped.
    pub(crate) fn queue(&self) -> Queued {
        self.queued.inc();
        Queued(self.queued.clone())
    }

    /// A read waited for a bookmark, in vain or not.
    pub(crate) fn waited(&self, is_met: bool, took: Duration) {
        let outcome = if is_met { MET } else { MISSED };
        self.waits.get_or_create(&[("outcome", outcome)]).inc();
        self.wait_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn took_over(&self, fetched: u64, kept: u64) {
        self.taken_over.inc();
        self.fetched_pages.inc_by(fetched);
        self.kept_pages.inc_by(kept);
    }

    pub(crate) fn damaged(&self) {
        self.damaged.inc();
    }
}

impl Metered {
    /// A counter for a database: its own, while there is room.
    fn take(metered: &Arc<Self>, database: DatabaseId) -> (Option<Slot>, Counter) {
        let mut meters = metered.lock();
        let own = meters.contains_key(&database) || meters.len() < METERED_DATABASES_MAX;
        let slot = own.then(|| {
            *meters.entry(database).or_default() += 1;
            Slot {
                metered: Arc::clone(metered),
                database,
            }
        });
        let label = match own {
            true => database.to_string(),
            false => OTHER_DATABASES.to_owned(),
        };
        let commits = metered.commits.get_or_create_owned(&[("database", label)]);
        (slot, commits)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, u32>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The room that a database's own counter takes.
#[derive(Debug)]
struct Slot {
    metered: Arc<Metered>,
    database: DatabaseId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut meters = self.metered.lock();
        let Some(count) = meters.get_mut(&self.database) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            meters.remove(&self.database);
            let label = [("database", self.database.to_string())];
            self.metered.commits.remove(&label);
        }
    }
}

/// One of the writes that were let in and have not begun.
#[derive(Debug)]
pub(crate) struct Queued(Gauge);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What one database adds to the metrics of all. What it holds is taken off when it is closed, and its own counter
/// goes.
#[derive(Debug)]
pub(crate) struct DatabaseMeter {
    commits: Counter,
    _slot: Option<Slot>,
    overlay: Gauge,
    overlay_bytes: i64,
}

impl DatabaseMeter {
    pub(crate) fn committed(&self) {
        self.commits.inc();
    }

    /// It holds so much now.
    pub(crate) fn overlay(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.overlay.inc_by(bytes - self.overlay_bytes);
        self.overlay_bytes = bytes;
    }
}

impl Drop for DatabaseMeter {
    fn drop(&mut self) {
        self.overlay.dec_by(self.overlay_bytes);
    }
}

/// How far each connected replica is, asked for when somebody looks.
#[derive(Debug)]
pub(crate) struct ReplicaCollector(pub(crate) Arc<Followers>);

impl Collector for ReplicaCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let replicas = self.0.status();
        let seconds = Family::<ReplicaLabels, Gauge<f64, AtomicU64>>::default;
        let (lag, round_trip) = (seconds(), seconds());
        let behind = Family::<ReplicaLabels, Gauge>::default();
        for replica in replicas.iter().take(METERED_REPLICAS_MAX) {
            let labels = [
                ("region", replica.region.to_string()),
                ("node", replica.node.to_string()),
            ];
            lag.get_or_create(&labels)
                .set(replica.confirm_lag_ms as f64 / 1e3);
            behind
                .get_or_create(&labels)
                .set(i64::try_from(replica.behind).unwrap_or(i64::MAX));
            if let Some(us) = replica.round_trip_us {
                round_trip.get_or_create(&labels).set(us as f64 / 1e6);
            }
        }
        let mut put = |name: &str, help: &str, metric: &dyn Encode| {
            let name = format!("tidemark_primary_replica_{name}");
            metric.encode_into(&mut encoder, &name, help)
        };
        put(
            "confirm_lag_seconds",
            "Age of the oldest transaction that the replica has not confirmed; 0: it has all",
            &lag,
        )?;
        put(
            "behind_transactions",
            "Transactions that the replica has not confirmed",
            &behind,
        )?;
        put(
            "round_trip_seconds",
            "Time that the newest message which the replica answered took there and back",
            &round_trip,
        )
    }
}

/// What consensus says of itself, asked for when somebody looks.
#[derive(Debug)]
pub(crate) struct ConsensusCollector(pub(crate) Consensus);

impl Collector for ConsensusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let now = self.0.metrics();
        let mut put = |name: &str, help: &str, metric: &dyn Encode| {
            let name = format!("tidemark_log_{name}");
            metric.encode_into(&mut encoder, &name, help)
        };
        let index = |index: Option<LogIndex>| gauge(index.map_or(0, |index| index.0));
        let leading = self.0.leadership().borrow().leading;
        put(
            "leading",
            "Whether this node leads its cell: 1 or 0",
            &gauge(leading.into()),
        )?;
        put("term", "Newest term known", &gauge(now.term.0))?;
        put(
            "appended_index",
            "Last entry appended, flushed or not",
            &index(now.appended),
        )?;
        put(
            "committed_index",
            "Last entry known to be committed",
            &index(now.committed),
        )?;
        put(
            "applied_index",
            "Last entry handed to the databases",
            &index(now.applied),
        )?;
        put(
            "durable_index",
            "Last entry durable without the log",
            &index(now.durable),
        )?;
        put(
            "purged_index",
            "Last entry removed from the log",
            &index(now.purged),
        )?;
        put(
            "in_flight",
            "Proposals without an outcome",
            &gauge(now.in_flight),
        )?;
        put(
            "in_flight_bytes",
            "Bytes of proposals without an outcome",
            &gauge(now.in_flight_bytes),
        )?;
        put(
            "unflushed_bytes",
            "Bytes appended and not yet flushed",
            &gauge(now.unflushed_bytes),
        )?;
        put(
            "size_bytes",
            "Size of the log on disk",
            &gauge(now.log_bytes),
        )?;
        put("segments", "Segments of the log", &gauge(now.log_segments))?;
        put(
            "cache_bytes",
            "Payloads in memory",
            &gauge(now.log_cache_bytes),
        )?;
        put(
            "fsyncs",
            "Fsyncs of the log",
            &ConstCounter::new(now.fsyncs),
        )?;
        let flushes = self.0.flushes();
        put(
            "flush_entries",
            "Entries that one flush of the log made durable",
            &flushes.entries,
        )?;
        put(
            "flush_duration_seconds",
            "Time from when a flush of the log was asked for to when it was done",
            &flushes.seconds,
        )?;
        put(
            "written_bytes",
            "Bytes written to the log",
            &ConstCounter::new(now.written_bytes),
        )?;
        put(
            "cache_misses",
            "Entries that had to be read from disk",
            &ConstCounter::new(now.log_cache_misses),
        )?;
        let seconds = |duration: Duration| ConstGauge::new(duration.as_secs_f64());
        put(
            "fsync_p50_seconds",
            "Median time of an fsync",
            &seconds(now.fsync_p50),
        )?;
        put(
            "fsync_p99_seconds",
            "99th percentile of the time of an fsync",
            &seconds(now.fsync_p99),
        )
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// [`EncodeMetric`] behind a reference to any of the constant metrics.
trait Encode {
    fn encode_into(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error>;
}

impl<M: EncodeMetric> Encode for M {
    fn encode_into(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error> {
        let encoder = encoder.encode_descriptor(name, help, None, self.metric_type())?;
        self.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("it is a string");
        text
    }

    fn database(number: usize) -> DatabaseId {
        DatabaseId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn counter_of_a_closed_database_goes_and_another_gets_its_room() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let mut meters: Vec<_> = (0..METERED_DATABASES_MAX)
            .map(|number| metrics.meter(database(number)))
            .collect();
        let late = database(METERED_DATABASES_MAX);
        metrics.meter(late).committed();
        assert!(shown(&registry).contains(r#"commits_total{database="other"} 1"#));

        let first = format!(r#"{{database="{}"}}"#, database(0));
        let again = metrics.meter(database(0));
        drop(meters.remove(0));
        assert!(shown(&registry).contains(&first), "open once more");
        drop(again);
        assert!(!shown(&registry).contains(&first));
        let meter = metrics.meter(late);
        meter.committed();
        let own = format!(r#"commits_total{{database="{late}"}} 1"#);
        assert!(shown(&registry).contains(&own), "{}", shown(&registry));
    }

    #[test]
    fn write_that_never_has_its_turn_leaves_the_queue() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let (begun, dropped) = (metrics.queue(), metrics.queue());
        let job = move || drop(dropped);
        assert!(shown(&registry).contains("queued_writes 2"));
        drop(begun);
        drop(job);
        assert!(shown(&registry).contains("queued_writes 0"));
    }
}
