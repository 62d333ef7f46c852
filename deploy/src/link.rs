//! What a way between two nodes is like: how long, how steady, how wide, and whether it is open.
//!
//! ```text
//! read <= sent (bandwidth) <= sent + delay + jitter <= written     (per chunk of bytes)
//! ```

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::damage::Damage;

/// A way from one end to the other. Both directions of a relay are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// One-way delay: every byte arrives this much later.
    pub delay: Duration,
    /// Up to this much more, drawn anew for each chunk. Order is kept: a late chunk holds up those
    /// behind it, as TCP does.
    pub jitter: Duration,
    /// Bytes per second that all connections share, per direction. `None`: as fast as the machine.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Link {
    /// A steady, wide way with this one-way delay.
    pub fn with_delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the side that connects to the relay towards its target.
    ToTarget,
    /// From the target back.
    FromTarget,
}

/// One direction of a relay, shared by all its connections.
#[derive(Debug)]
pub(crate) struct Lane {
    schedule: Mutex<Schedule>,
    damage: Mutex<Damage>,
    cut: watch::Sender<bool>,
}

#[derive(Debug)]
struct Schedule {
    link: Link,
    /// When the wire has sent all that was given to it.
    wire_free: Instant,
    random: fastrand::Rng,
}

impl Lane {
    pub(crate) fn new(link: Link, seed: u64) -> Self {
        let schedule = Schedule {
            link,
            wire_free: Instant::now(),
            random: fastrand::Rng::with_seed(seed),
        };
        Self {
            schedule: Mutex::new(schedule),
            damage: Mutex::new(Damage::new(seed)),
            cut: watch::Sender::new(false),
        }
    }

    pub(crate) fn link(&self) -> Link {
        self.schedule().link
    }

    pub(crate) fn set_link(&self, link: Link) {
        self.schedule().link = link;
    }

    /// What is done to the bytes on the way.
    pub(crate) fn damage(&self) -> std::sync::MutexGuard<'_, Damage> {
        // A panic elsewhere leaves it to damage other bytes than the seed says, at worst.
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    pub(crate) fn cut(&self) -> watch::Receiver<bool> {
        self.cut.subscribe()
    }

    /// When `bytes` that are sent at `sent` arrive.
    pub(crate) fn arrival(&self, sent: Instant, bytes: usize) -> Instant {
        let mut schedule = self.schedule();
        let Link {
            delay,
            jitter,
            bytes_per_second,
        } = schedule.link;
        let gone = match bytes_per_second {
            None => sent,
            Some(rate) => {
                let wire_time = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
                schedule.wire_free = schedule.wire_free.max(sent) + wire_time;
                schedule.wire_free
            }
        };
        gone + delay + jitter.mul_f64(schedule.random.f64())
    }

    fn schedule(&self) -> std::sync::MutexGuard<'_, Schedule> {
        // Every change to the schedule is a whole assignment, so a panic elsewhere leaves it usable.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn jitter_repeats_with_its_seed_and_stays_in_bounds() {
        let delay = Duration::from_millis(10);
        let jitter = Duration::from_millis(5);
        let link = Link {
            delay,
            jitter,
            bytes_per_second: None,
        };
        let sent = Instant::now();
        let draw = |seed| {
            let lane = Lane::new(link, seed);
            (0..1000)
                .map(|_| lane.arrival(sent, 1) - sent)
                .collect::<Vec<_>>()
        };
        let first = draw(7);
        assert_eq!(first, draw(7));
        assert_ne!(first, draw(8));
        assert!(
            first
                .iter()
                .all(|way| (delay..delay + jitter).contains(way))
        );
        let spread = *first.iter().max().unwrap() - *first.iter().min().unwrap();
        assert!(
            spread > jitter / 2,
            "1000 draws of up to {jitter:?} differ by {spread:?}"
        );
    }

    #[test]
    fn bandwidth_is_shared_by_all_that_is_sent() {
        let rate = NonZeroU64::new(1000);
        let lane = Lane::new(
            Link {
                bytes_per_second: rate,
                ..Link::default()
            },
            1,
        );
        let sent = Instant::now();
        assert_eq!(lane.arrival(sent, 500) - sent, Duration::from_millis(500));
        assert_eq!(lane.arrival(sent, 500) - sent, Duration::from_millis(1000));
        let later = sent + Duration::from_secs(9);
        assert_eq!(lane.arrival(later, 500) - later, Duration::from_millis(500));
    }
}
