//! kill -9 of the leader.

use std::time::Duration;

use tidemark_tests::{Blow, Layout};

use super::{PATIENCE, PROGRESS, at_work, hit_leaders, rounds};

/// Longest time from the last acknowledgement of a leader to the first of its successor. The aim is 2 s; this
/// machine may have more to do than that.
const SILENCE_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed_under_64_writers_lose_nothing_and_successors_are_quick() {
    let test = "leaders_killed_under_64_writers_lose_nothing_and_successors_are_quick";
    let (mut cell, mut workload, mut random) = at_work(test, Layout::default()).await;
    let kills = (Blow::Kill, rounds(4), PROGRESS);
    hit_leaders(&mut cell, &mut workload, &mut random, kills).await;
    let summary = workload.judged(&cell, PATIENCE).await;
    let silences = summary.gaps();
    assert!(
        silences.iter().all(|silence| *silence < SILENCE_MAX),
        "{silences:?}"
    );
    cell.stop().await;
}
