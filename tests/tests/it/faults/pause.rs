//! A leader that stands still, as under a debugger or a hypervisor, and goes on when another leads.

use tidemark_tests::Layout;

use super::{PATIENCE, PROGRESS, at_work, rounds};

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_stood_still_while_another_led_answers_nothing_old() {
    let test = "leader_that_stood_still_while_another_led_answers_nothing_old";
    let (mut cell, mut workload, mut random) = at_work(test, Layout::default()).await;
    for _ in 0..rounds(3) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let leader = cell.leader().await;
        workload.fault(Some(leader));
        cell.voters[leader].freeze();
        let successor = cell.successor(leader).await;
        // The old one must find, when it wakes, that others have acted meanwhile.
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        cell.voters[leader].thaw();
        workload.progress(PROGRESS, PATIENCE).await;
        assert_ne!(leader, successor);
    }
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}
