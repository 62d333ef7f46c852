//! What a replica counts. Names start with `tidemark_replica_`.
//!
//! Labels are of bounded cardinality: reasons and outcomes are fixed words, and only the first
//! [`METERED_DATABASES_MAX`] databases that are here get a gauge of their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tidemark_protocol::{DatabaseId, Position};
use tokio::sync::Semaphore;

use crate::audit::AuditAge;

/// Databases with an `applied_seq` gauge of their own.
pub(crate) const METERED_DATABASES_MAX: usize = 64;

/// Words of labels that are shown from the start, at zero: a rate needs something to start from.
const LABELS: [(&str, &[&str]); 4] = [
    (
        RESYNCS,
        &["base", "diverged", "damaged", "source", "failed"],
    ),
    (DISCONNECTS, &["connect", "closed", "silent", "redirect"]),
    (WAITS, &["met", "missed", "hopeless"]),
    (FORWARDS, &["write", "contract", "behind"]),
];
const RESYNCS: &str = "resyncs";
const DISCONNECTS: &str = "disconnects";
const WAITS: &str = "waits";
const FORWARDS: &str = "forwards";

type Label = [(&'static str, &'static str); 1];
type DatabaseLabel = [(&'static str, String); 1];

/// How long requests waited for a bookmark: 100 us to 52 s.
#[derive(Clone, Debug)]
struct WaitSeconds(Histogram);

impl Default for WaitSeconds {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(100e-6, 2.0, 20)))
    }
}

/// What a replica counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) applied_transactions: Counter,
    pub(crate) applied_batches: Counter,
    pub(crate) databases: Gauge,
    pub(crate) old_terms: Counter,
    pub(crate) reads: Counter,
    pub(crate) resync_pages_received: Counter,
    pub(crate) resync_pages_kept: Counter,
    pub(crate) storage_failures: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) wakes: Counter,
    pub(crate) audits: Counter,
    pub(crate) audited_bytes: Counter,
    pub(crate) audit_violations: Counter,
    resyncs: Family<Label, Counter>,
    disconnects: Family<Label, Counter>,
    waits: Family<Label, Counter>,
    wait_seconds: WaitSeconds,
    forwards: Family<Label, Counter>,
    metered: Arc<Metered>,
}

/// Databases with a gauge of their own.
#[derive(Debug, Default)]
struct Metered {
    applied_seq: Family<DatabaseLabel, Gauge>,
    /// And how many meters each has: a copy may still be closing when the next begins.
    meters: Mutex<HashMap<DatabaseId, u32>>,
}

impl Metered {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, u32>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tidemark_replica");
        let Self {
            applied_transactions,
            applied_batches,
            databases,
            old_terms,
            reads,
            resync_pages_received,
            resync_pages_kept,
            storage_failures,
            sleeps,
            wakes,
            audits,
            audited_bytes,
            audit_violations,
            resyncs,
            disconnects,
            waits,
            wait_seconds: WaitSeconds(wait_seconds),
            forwards,
            metered,
        } = self;
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        add(
            "applied_transactions",
            "Transactions applied",
            applied_transactions,
        );
        add(
            "applied_batches",
            "WAL transactions they were merged into",
            applied_batches,
        );
        add(
            "old_terms",
            "Messages refused because their term is old",
            old_terms,
        );
        add("reads", "Requests answered from this node's copies", reads);
        add(
            "resync_pages_received",
            "Pages received to resynchronise",
            resync_pages_received,
        );
        add(
            "resync_pages_kept",
            "Pages kept when resynchronising",
            resync_pages_kept,
        );
        add(
            "sleeps",
            "Databases closed because nobody used them",
            sleeps,
        );
        add(
            "wakes",
            "Databases opened again because somebody did",
            wakes,
        );
        add(
            "audits",
            "Copies read again and found to be what their position says",
            audits,
        );
        add("audited_bytes", "Bytes read for that", audited_bytes);
        add(
            "audit_violations",
            "Copies read again and found to be something else",
            audit_violations,
        );
        add(
            "storage_failures",
            "Failures of a database's files",
            storage_failures,
        );
        let mut add =
            |name: &str, label: &'static str, help: &str, family: &Family<Label, Counter>| {
                let known = LABELS.iter().filter(|(of, _)| *of == name);
                for word in known.flat_map(|(_, words)| *words) {
                    let _ = family.get_or_create(&[(label, *word)]);
                }
                registry.register(name, help, family.clone());
            };
        add(
            RESYNCS,
            "reason",
            "Databases that had to be resynchronised, by reason",
            resyncs,
        );
        add(
            DISCONNECTS,
            "reason",
            "Connections to the source lost or not made, by reason",
            disconnects,
        );
        add(
            WAITS,
            "outcome",
            "Requests that waited for a bookmark, by outcome",
            waits,
        );
        add(
            FORWARDS,
            "reason",
            "Requests handed to the primary, by reason",
            forwards,
        );
        registry.register(
            "wait_duration_seconds",
            "Time that requests waited for a bookmark, whatever the outcome",
            wait_seconds.clone(),
        );
        registry.register("databases", "Databases held", databases.clone());
        registry.register(
            "applied_seq",
            "Sequence number that readers see, of the first databases",
            metered.applied_seq.clone(),
        );
    }

    pub(crate) fn resync(&self, reason: &'static str) {
        self.resyncs.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn disconnect(&self, reason: &'static str) {
        self.disconnects.get_or_create(&[("reason", reason)]).inc();
    }

    pub(crate) fn wait(&self, outcome: &'static str, took: Duration) {
        self.waits.get_or_create(&[("outcome", outcome)]).inc();
        self.wait_seconds.0.observe(took.as_secs_f64());
    }

    pub(crate) fn forward(&self, reason: &'static str) {
        self.forwards.get_or_create(&[("reason", reason)]).inc();
    }

    /// The gauge of one more database, while there is room.
    pub(crate) fn meter(&self, database: DatabaseId) -> Option<DatabaseMeter> {
        let mut meters = self.metered.lock();
        if !meters.contains_key(&database) && meters.len() >= METERED_DATABASES_MAX {
            return None;
        }
        *meters.entry(database).or_default() += 1;
        let label = [("database", database.to_string())];
        Some(DatabaseMeter {
            gauge: self.metered.applied_seq.get_or_create_owned(&label),
            metered: Arc::clone(&self.metered),
            database,
        })
    }
}

/// The gauge of one database, which goes with its last copy.
#[derive(Debug)]
pub(crate) struct DatabaseMeter {
    gauge: Gauge,
    metered: Arc<Metered>,
    database: DatabaseId,
}

impl DatabaseMeter {
    pub(crate) fn set(&self, position: Position) {
        self.gauge
            .set(i64::try_from(position.seq.0).unwrap_or(i64::MAX));
    }
}

impl Drop for DatabaseMeter {
    fn drop(&mut self) {
        let mut meters = self.metered.lock();
        let Some(count) = meters.get_mut(&self.database) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            meters.remove(&self.database);
            let label = [("database", self.database.to_string())];
            self.metered.applied_seq.remove(&label);
        }
    }
}

/// When the source was last heard of; read at each scrape.
#[derive(Debug)]
pub(crate) struct HeartbeatAge {
    started: Instant,
    /// Milliseconds after `started`.
    heard_ms: AtomicU64,
}

impl HeartbeatAge {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
        }
    }

    /// A heartbeat came.
    pub(crate) fn heard(&self) {
        self.heard_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since the last heartbeat, or since the start if none came.
    pub(crate) fn age_ms(&self) -> u64 {
        self.elapsed_ms()
            .saturating_sub(self.heard_ms.load(Ordering::Relaxed))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is measured when it is asked for.
#[derive(Debug)]
pub(crate) struct AtScrape {
    pub(crate) heartbeat: Arc<HeartbeatAge>,
    pub(crate) audit: Arc<AuditAge>,
    /// Its permits are the bytes that may still queue.
    pub(crate) queue: Arc<Semaphore>,
    pub(crate) queue_bytes_max: usize,
}

impl Collector for AtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "tidemark_replica_heartbeat_age_seconds",
            "Time since the source's last heartbeat",
            self.heartbeat.age_ms() as f64 / 1e3,
        )?;
        gauge(
            "tidemark_replica_audit_age_seconds",
            "Seconds since the copy was audited that was audited longest ago",
            self.audit.seconds() as f64,
        )?;
        let queued = self
            .queue_bytes_max
            .saturating_sub(self.queue.available_permits());
        let help = "Bytes received and not yet applied";
        gauge("tidemark_replica_queue_bytes", help, queued as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(number: usize) -> DatabaseId {
        DatabaseId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn gauge_of_a_deleted_database_goes_and_another_gets_its_room() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let shown = |id: DatabaseId| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry)
                .expect("it is a string");
            text.contains(&id.to_string())
        };
        let mut meters: Vec<_> = (0..METERED_DATABASES_MAX)
            .map(|number| metrics.meter(database(number)))
            .collect();
        let late = database(METERED_DATABASES_MAX);
        assert!(metrics.meter(late).is_none());
        let next_copy = metrics.meter(database(0));
        drop(meters.remove(0));
        assert!(shown(database(0)), "its next copy is here");
        drop(next_copy);
        assert!(!shown(database(0)));
        let meter = metrics.meter(late);
        assert!(meter.is_some() && shown(late));
    }
}
