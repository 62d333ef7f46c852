//! A session: reads and writes at one node after another, each with the newest bookmark before it.

use tidemark_client::SessionStart;

use super::Carried;
use super::worker::Worker;
use crate::history::Asked;

/// Reads per write, on average.
const READS: u32 = 3;

/// Goes on until told to stop.
pub(super) async fn run(mut worker: Worker) -> Carried {
    while !worker.stopped() {
        let newest = worker.carried.newest;
        let start = newest.map_or(SessionStart::Unconstrained, |bookmark| {
            SessionStart::Bookmark(bookmark.to_string())
        });
        let reached = if worker.random.u32(..=READS) == 0 {
            let value = worker.value();
            worker.write(None, Some(&start), value).await
        } else {
            let asked = newest.map_or(Asked::Anything, |bookmark| Asked::From(bookmark.claimed()));
            worker.read(Some(start), asked, true).await
        };
        worker.carried.newest = reached.or(newest);
        worker.rest().await;
    }
    worker.carried
}
