//! A histogram of durations that is counted into without a lock.
//!
//! Every request of every database is counted in one: prometheus-client's own has a lock that they would share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bound of the first bucket, in nanoseconds. Each of the others has twice that of the one before.
const FIRST_NS: u64 = 50_000;
/// The last of them ends at 26 s,
const BOUNDED: usize = 20;
/// and one more has all that is longer.
const BUCKETS: usize = BOUNDED + 1;

/// Durations by how long they are. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Durations {
    pub(super) fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.0.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// The first bucket whose upper bound is not below.
fn bucket(ns: u64) -> usize {
    let times = ns.saturating_sub(1) / FIRST_NS;
    let doublings = u64::BITS - times.leading_zeros();
    (doublings as usize).min(BOUNDED)
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let seconds = |ns: u64| ns as f64 / 1e9;
        // What is counted meanwhile may be in one figure and not in another, as with any scrape.
        let counts = self.0.counts.each_ref();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        let bounds = (0..BOUNDED).map(|at| seconds(FIRST_NS << at));
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let sum = seconds(self.0.sum_ns.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
    use prometheus_client::registry::Registry;

    use super::*;

    /// The bounds of the buckets are part of what operators' queries rest on.
    #[test]
    fn it_is_told_as_the_librarys_own_histogram_would_be() {
        let (ours, theirs) = (
            Durations::default(),
            Histogram::new(exponential_buckets(50e-6, 2.0, 20)),
        );
        for us in [
            0, 1, 50, 51, 100, 101, 3_000, 6_400, 26_214_400, 30_000_000, 90_000_000,
        ] {
            ours.observe(Duration::from_micros(us));
            theirs.observe(Duration::from_micros(us).as_secs_f64());
        }
        let told = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).expect("a String takes every write");
            text
        };
        let mut registry = Registry::default();
        registry.register("took", "Time", ours);
        let ours = told(&registry);
        let mut registry = Registry::default();
        registry.register("took", "Time", theirs);
        // Of a sum only the last digits may differ.
        let counts = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with("took_sum"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(counts(&ours), counts(&told(&registry)));
    }
}
