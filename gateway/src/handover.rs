//! Handing a change to the node: from then on only the node can say that nothing happened.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tidemark_protocol::{Failure, FailureKind};
use tokio::time::timeout;
use tracing::error;

use crate::gateway::panic_text;

/// A node answers by the deadline that it was given. One that has not done so this much later will
/// not.
const LATENESS_MAX: Duration = Duration::from_secs(1);

/// What became of `work`, which may change something and promised to end within `deadline`.
///
/// Boxes it before anything is awaited: a node's future is large, and each frame around it would hold it once more.
pub(crate) fn settled<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> impl Future<Output = Result<T, Failure>> {
    let guarded = AssertUnwindSafe(Box::pin(work)).catch_unwind();
    async move {
        match timeout(deadline.saturating_add(LATENESS_MAX), guarded).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => {
                error!(panic = panic_text(&*panic), "node panicked at work");
                Err(unknown("the node failed during the request"))
            }
            Err(_) => Err(unknown("the node did not answer by the deadline")),
        }
    }
}

/// A failure that says that the outcome is not known, and why.
pub(crate) fn unknown(reason: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Unknown,
        format!("{reason}; whether it took effect is unknown"),
    )
}
