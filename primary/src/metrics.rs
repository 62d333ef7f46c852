//! What a primary counts.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::consensus::{Consensus, LogIndex};

/// What a primary counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    commits: Counter,
    commit_seconds: Histogram,
    damaged: Counter,
    pub(crate) followers: Gauge,
    pub(crate) shipped: Counter,
    pub(crate) shipped_bytes: Counter,
    pub(crate) images: Counter,
    taken_over: Counter,
    fetched_pages: Counter,
    kept_pages: Counter,
}

impl Metrics {
    /// Counts, from zero, as part of `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            commits: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 18)),
            damaged: Counter::default(),
            followers: Gauge::default(),
            shipped: Counter::default(),
            shipped_bytes: Counter::default(),
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
            "damaged_databases",
            "Databases whose files failed while committed transactions were flushed",
            metrics.damaged.clone(),
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

    pub(crate) fn took_over(&self, fetched: u64, kept: u64) {
        self.taken_over.inc();
        self.fetched_pages.inc_by(fetched);
        self.kept_pages.inc_by(kept);
    }

    pub(crate) fn damaged(&self) {
        self.damaged.inc();
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
