//! A way that damages what it carries: one byte in so many becomes another.
//!
//! TCP's checksum of 16 bits lets some damage through, and what a network card or a middlebox turns over behind it,
//! all. Who speaks over such a way must find out by itself.

use std::num::NonZeroU64;

/// Where the next byte is damaged.
#[derive(Debug)]
pub(crate) struct Damage {
    /// Bytes from one to the next, on average. `None`: all arrive as they were sent.
    every: Option<NonZeroU64>,
    /// Bytes that pass before the next.
    left: u64,
    /// Bytes damaged so far.
    count: u64,
    random: fastrand::Rng,
}

impl Damage {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            every: None,
            left: 0,
            count: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(crate) fn set_every(&mut self, every: Option<NonZeroU64>) {
        self.every = every;
        self.draw();
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Damages what is due of the next bytes on the way.
    pub(crate) fn strike(&mut self, bytes: &mut [u8]) {
        let mut from = 0;
        while self.every.is_some() {
            let rest = (bytes.len() - from) as u64;
            if self.left >= rest {
                self.left -= rest;
                return;
            }
            let at = from + usize::try_from(self.left).expect("less than what is in memory");
            bytes[at] ^= self.random.u8(1..);
            self.count += 1;
            from = at + 1;
            self.draw();
        }
    }

    fn draw(&mut self) {
        let every = self.every.map_or(0, NonZeroU64::get);
        self.left = self.random.u64(0..=every.saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_in_so_many_is_damaged_however_they_come_and_the_seed_says_which() {
        let of = |seed, piece: usize| {
            let mut damage = Damage::new(seed);
            damage.set_every(NonZeroU64::new(1000));
            let mut bytes = vec![7; 1_000_000];
            bytes
                .chunks_mut(piece)
                .for_each(|piece| damage.strike(piece));
            let damaged = bytes.iter().filter(|byte| **byte != 7).count() as u64;
            assert_eq!(damaged, damage.count());
            assert!((800..1200).contains(&damaged), "{damaged} of a million");
            bytes
        };
        let whole = of(1, usize::MAX);
        assert!(whole == of(1, 1) && whole == of(1, 4096));
        assert!(whole != of(2, 1));
    }

    #[test]
    fn nothing_is_damaged_before_it_is_asked_for_and_after() {
        let mut damage = Damage::new(1);
        let mut bytes = [7; 64];
        damage.strike(&mut bytes);
        damage.set_every(NonZeroU64::new(4));
        damage.set_every(None);
        damage.strike(&mut bytes);
        assert_eq!((bytes, damage.count()), ([7; 64], 0));
    }
}
