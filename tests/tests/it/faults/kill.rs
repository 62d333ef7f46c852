//! kill -9 of the leader.

use tidemark_tests::Layout;

use super::{PATIENCE, PROGRESS, at_work, rounds};

#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed_under_64_writers_lose_nothing() {
    let test = "leaders_killed_under_64_writers_lose_nothing";
    let (mut cell, mut workload, mut random) = at_work(test, Layout::default()).await;
    for _ in 0..rounds(4) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let leader = cell.leader().await;
        workload.fault(Some(leader));
        cell.voters[leader].kill();
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        cell.voters[leader].start();
        cell.voters[leader].ready().await;
    }
    workload.progress(PROGRESS, PATIENCE).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}
