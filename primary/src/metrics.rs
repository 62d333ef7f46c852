//! What a primary counts.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

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
            "Whole states sent to replicas",
            metrics.images.clone(),
        );
        metrics
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.commits.inc();
        self.commit_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn damaged(&self) {
        self.damaged.inc();
    }
}
