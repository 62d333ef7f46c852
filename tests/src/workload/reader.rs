//! A reader outside sessions.

use tidemark_client::SessionStart;

use super::Carried;
use super::worker::Worker;
use crate::history::Asked;

/// Reads until told to stop: whatever a node has, or everything that was acknowledged before.
pub(super) async fn run(mut worker: Worker, everything: bool) -> Carried {
    while !worker.stopped() {
        let (start, asked) = match (everything, worker.random.bool()) {
            (false, _) => (Some(SessionStart::Unconstrained), Asked::Anything),
            (true, true) => (Some(SessionStart::Primary), Asked::Everything),
            (true, false) => (None, Asked::Acknowledged),
        };
        worker.read(start, asked, false).await;
        worker.rest().await;
    }
    worker.carried
}
