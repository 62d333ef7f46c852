//! Wall time and randomness.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidemark_protocol::env::{Clock, Random};

/// When simulations begin: 2026-01-01, in milliseconds.
const BEGINNING_MS: u64 = 1_767_225_600_000;

/// The time of the simulation, for all nodes.
#[derive(Debug, Default)]
pub(crate) struct Time(AtomicU64);

impl Time {
    /// It is this many milliseconds after the beginning.
    pub(crate) fn set_ms(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The clock on one node's wall, which may be wrong.
#[derive(Debug)]
pub(crate) struct SkewedClock {
    pub(crate) time: Arc<Time>,
    /// Milliseconds that it is ahead.
    pub(crate) ahead_ms: Arc<AtomicI64>,
}

impl Clock for SkewedClock {
    fn unix_ms(&self) -> u64 {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        (BEGINNING_MS + self.time.ms()).saturating_add_signed(ahead)
    }
}

/// What one life of a node draws.
#[derive(Debug)]
pub(crate) struct Drawn(pub(crate) Mutex<fastrand::Rng>);

impl Random for Drawn {
    fn bytes16(&self) -> [u8; 16] {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        random.u128(..).to_be_bytes()
    }
}
