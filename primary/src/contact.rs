//! When this node was last in touch with a majority: what tells an election, which is worth waiting for,
//! from an outage, which is not.
//!
//! As leader it is in touch while a majority answers it, as follower while the leader gives signs of life.
//! Consensus is asked a few times a second and at each change of leadership, so what is known here trails by
//! [`LOOK`] at most. Errors go one way: it may seem out of touch a little early, never for longer than it is
//! in truth. Nothing that must be right rests on it: whether an answer may leave as the leader's is decided by
//! [`Consensus::confirm`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::consensus::Consensus;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Silence from which on another node may have been elected: the lease and the shortest wait after it.
const ALONE_AFTER: Duration = Duration::from_millis(900);
/// Silence after which a successor should be serving: one more try than an election usually needs.
const ELECTED_AFTER: Duration = Duration::from_secs(2);

/// When this node was last in touch with a majority.
#[derive(Debug)]
pub(crate) struct Contact {
    begun: Instant,
    /// Microseconds after that, rounded down. No lock: every request of every database asks.
    last_us: AtomicU64,
}

impl Contact {
    /// From now on: a node that starts waits for a first leader as for a next one.
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            last_us: AtomicU64::new(0),
        }
    }

    /// Keeps it true until `stop`.
    pub(crate) async fn follow(&self, consensus: &Consensus, stop: &CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leadership = consensus.leadership();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                changed = leadership.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
            self.look(consensus).await;
        }
    }

    async fn look(&self, consensus: &Consensus) {
        if let Some(ago) = consensus.quorum_seen_ago().await {
            let seen = self.begun.elapsed().saturating_sub(ago).as_micros();
            let seen_us = u64::try_from(seen).unwrap_or(u64::MAX);
            self.last_us.fetch_max(seen_us, Ordering::Relaxed);
        }
    }

    /// See [`Contact::is_fresh`]; asks consensus before it says no, whose view this one trails.
    pub(crate) async fn is_certainly_fresh(&self, consensus: &Consensus) -> bool {
        if self.is_fresh() {
            return true;
        }
        self.look(consensus).await;
        self.is_fresh()
    }

    /// Whether nobody can have been elected since this node last heard of a majority.
    pub(crate) fn is_fresh(&self) -> bool {
        // For a test that wants to see that it is noticed.
        fail::fail_point!("sabotage::lease", |_| true);
        self.silence() < ALONE_AFTER
    }

    /// How much longer it is worth waiting for a leader: nothing once an election should be over.
    pub(crate) fn patience(&self) -> Duration {
        ELECTED_AFTER.saturating_sub(self.silence())
    }

    fn silence(&self) -> Duration {
        let last = Duration::from_micros(self.last_us.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(last)
    }
}
