//! Pauses between tries to connect: doubling between two bounds, spread so that replicas that lost
//! their source together do not come back together.

use std::time::Duration;

use tidemark_protocol::env::Random;

/// The pauses of one series of tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min,
        }
    }

    /// The next pause: between half of the current step and the whole of it.
    pub(crate) fn pause(&mut self, random: &dyn Random) -> Duration {
        let step = self.next.min(self.max);
        self.next = (step * 2).min(self.max);
        let bytes = random.bytes16();
        let draw = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        step.mul_f64(0.5 + 0.5 * f64::from(draw) / f64::from(u32::MAX))
    }

    /// The connection was good: the next loss starts over.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl Random for Fixed {
        fn bytes16(&self) -> [u8; 16] {
            [self.0; 16]
        }
    }

    #[test]
    fn pauses_double_up_to_the_bound_and_start_over_after_reset() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(150));
        let pauses = [(); 4].map(|()| backoff.pause(&Fixed(255)));
        assert_eq!(pauses, [ms(50), ms(100), ms(150), ms(150)]);
        assert_eq!(backoff.pause(&Fixed(0)), ms(75), "never less than half");
        backoff.reset();
        assert_eq!(backoff.pause(&Fixed(255)), ms(50));
    }
}
