//! Pauses between tries to connect: doubling between two bounds, spread so that replicas that lost
//! their source together do not come back together.

use std::time::Duration;

use tidemark_protocol::env::Random;

/// The pauses of one series of tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration) -> Self {
        Self { min, next: min }
    }

    /// The next pause: between half of the current step and the whole of it, which is at most `max`.
    pub(crate) fn pause(&mut self, max: Duration, random: &dyn Random) -> Duration {
        let step = self.next.min(max);
        self.next = (step * 2).min(max);
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
        let mut backoff = Backoff::new(ms(50));
        let pauses = [(); 4].map(|()| backoff.pause(ms(150), &Fixed(255)));
        assert_eq!(pauses, [ms(50), ms(100), ms(150), ms(150)]);
        let least = backoff.pause(ms(150), &Fixed(0));
        assert_eq!(least, ms(75), "never less than half");
        assert_eq!(backoff.pause(ms(80), &Fixed(255)), ms(80));
        backoff.reset();
        assert_eq!(backoff.pause(ms(150), &Fixed(255)), ms(50));
    }
}
