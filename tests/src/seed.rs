//! The seed of everything a test chooses.

/// The variable that fixes the seed.
const VARIABLE: &str = "TIDEMARK_SEED";

/// Where a test's choices come from: `TIDEMARK_SEED`, or a new number each time. Printed, so that a
/// failure can be had again as far as processes on a real machine repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(u64);

impl Seed {
    /// The seed of `test`. Panics when `TIDEMARK_SEED` is set to something else than a number.
    pub fn of(test: &str) -> Self {
        let (seed, origin) = match std::env::var(VARIABLE) {
            Ok(text) => (text.parse().expect("TIDEMARK_SEED is a number"), "given"),
            Err(_) => (fastrand::u64(..), "random"),
        };
        eprintln!("{test}: {VARIABLE}={seed} ({origin})");
        Self(seed)
    }

    /// This one.
    pub fn given(number: u64) -> Self {
        Self(number)
    }

    /// The number that makes the same choices again.
    pub fn number(self) -> u64 {
        self.0
    }

    /// A stream of choices, one of many: streams of different numbers are independent.
    pub fn stream(self, number: u64) -> fastrand::Rng {
        let mut all = fastrand::Rng::with_seed(self.0 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        all.fork()
    }
}
