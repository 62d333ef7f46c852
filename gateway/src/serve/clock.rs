//! The clock by which a connection waits for the head of its next request.
//!
//! A wait of a minute that begins and ends with every request: a timer of its own for each would be put into the
//! runtime's timer wheel and taken out again thousands of times a second. Here the connection keeps one, armed for
//! the earliest of its waits; when that fires and the wait has begun anew meanwhile, it is armed again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// The clock of one connection. All its waits are equally long, so that one that begins later ends later.
#[derive(Default)]
pub(crate) struct Clock {
    alarm: Arc<Mutex<Option<Alarm>>>,
}

/// The timer that waits share. It never fires after the one that is waited for now.
type Alarm = Pin<Box<tokio::time::Sleep>>;

struct Wait {
    alarm: Arc<Mutex<Option<Alarm>>>,
    until: Instant,
}

impl Timer for Clock {
    /// The runtime's, which a simulation stops and moves.
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Wait {
            alarm: Arc::clone(&self.alarm),
            until,
        })
    }
}

impl Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Only the connection's own task comes here.
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let until = self.until.into();
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            if alarm.deadline() >= until {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const WAIT: Duration = Duration::from_millis(40);

    async fn is_over(wait: &mut Pin<Box<dyn Sleep>>) -> bool {
        poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_wait_that_began_later_ends_later_and_not_with_the_first() {
        let clock = Clock::default();
        let mut first = clock.sleep(WAIT);
        assert!(!is_over(&mut first).await);
        drop(first);
        tokio::time::sleep(WAIT / 2).await;
        // The alarm is that of the first; then it has fired.
        for _ in 0..2 {
            let begun = Instant::now();
            clock.sleep(WAIT).await;
            assert!(begun.elapsed() >= WAIT, "{:?}", begun.elapsed());
        }
    }
}
