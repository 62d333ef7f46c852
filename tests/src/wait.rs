//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Time within which anything that does not depend on much work must have happened.
pub const SOON: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` finds something. Panics, naming `what`, after `deadline`.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        let waited = started.elapsed();
        assert!(waited < deadline, "waited {waited:?} in vain for: {what}");
    }
}

/// [`until`] with the deadline [`SOON`].
pub async fn soon<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until(what, SOON, look).await
}
