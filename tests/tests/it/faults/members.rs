//! Voters that are replaced while leaders die: at any moment of it, the one that was asked to see to it among them.

use tidemark_tests::Layout;

use super::{PATIENCE, PROGRESS, at_work, rounds};

/// Times that a leader is killed, at most, while one voter is replaced.
const KILLS_MAX: usize = 2;
/// Writes between two such times, at most.
const MEANWHILE: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn voters_are_replaced_while_leaders_die() {
    let test = "voters_are_replaced_while_leaders_die";
    let (mut cell, mut workload, mut random) = at_work(test, Layout::default()).await;
    for _ in 0..rounds(2) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let leader = cell.leader().await;
        let members: Vec<_> = cell.members().collect();
        let victim = *random.choice(&members).expect("a cell has members");
        let other = members.iter().find(|at| **at != victim);
        let other = *other.expect("a cell of three has another");
        workload.fault((victim == leader).then_some(leader));
        cell.voters[victim].kill();
        cell.join(other, Some(victim));
        for _ in 0..random.usize(1..=KILLS_MAX) {
            workload
                .progress(random.usize(0..=MEANWHILE), PATIENCE)
                .await;
            let leader = cell.leader().await;
            workload.fault(Some(leader));
            cell.voters[leader].kill_and_restart().await;
        }
        cell.let_go(victim);
        cell.all_vote(PATIENCE).await;
        workload.progress(PROGRESS, PATIENCE).await;
    }
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}
