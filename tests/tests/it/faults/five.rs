//! Cells of five.

use tidemark_tests::{Cell, Layout, Load, Seed, Workload};

use super::{PATIENCE, PROGRESS, at_work, rounds};
use crate::PROGRAM;

const FIVE: Layout = Layout {
    voters: 5,
    replicas: 1,
    relays: false,
};

#[tokio::test(flavor = "multi_thread")]
async fn five_voters_go_on_with_two_dead() {
    let test = "five_voters_go_on_with_two_dead";
    let (mut cell, mut workload, mut random) = at_work(test, FIVE).await;
    for _ in 0..rounds(2) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let first = cell.leader().await;
        workload.fault(Some(first));
        cell.voters[first].kill();
        // At any time of the change of leader, or after it.
        workload
            .progress(random.usize(0..=PROGRESS), PATIENCE)
            .await;
        let second = (first + random.usize(1..5)) % 5;
        workload.fault(None);
        cell.voters[second].kill();
        workload.progress(PROGRESS, PATIENCE).await;
        for dead in [first, second] {
            cell.voters[dead].start();
        }
        for dead in [first, second] {
            cell.voters[dead].ready().await;
        }
    }
    workload.progress(PROGRESS, PATIENCE).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_of_five_fails_no_request_of_a_client() {
    let test = "rolling_restart_of_five_fails_no_request_of_a_client";
    let seed = Seed::of(test);
    let mut random = seed.stream(0);
    let mut cell = Cell::of(PROGRAM, FIVE).await;
    let mut workload = Workload::of_applications(&cell, seed, Load::default()).await;
    for _ in 0..rounds(1) {
        for at in 0..cell.voters.len() {
            workload
                .progress(random.usize(1..=PROGRESS), PATIENCE)
                .await;
            let leader = cell.leader().await;
            workload.fault((at == leader).then_some(leader));
            cell.voters[at].stop().await;
            workload
                .progress(random.usize(1..=PROGRESS), PATIENCE)
                .await;
            cell.voters[at].start();
            cell.voters[at].ready().await;
        }
    }
    workload.progress(PROGRESS, PATIENCE).await;
    let summary = workload.judged(&cell, PATIENCE).await;
    assert_eq!(summary.refused_tries(), 0, "{summary}");
    cell.stop().await;
}
