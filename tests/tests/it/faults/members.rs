//! Voters that are replaced while leaders die: at any moment of it, the one that was asked to see to it among them.
//! And replicas that must find the cell behind it.

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

/// It is told who votes: of those that it was set up with none is left when the leader dies.
#[tokio::test(flavor = "multi_thread")]
async fn replica_finds_a_cell_whose_voters_were_all_replaced() {
    let test = "replica_finds_a_cell_whose_voters_were_all_replaced";
    let (mut cell, mut workload, _) = at_work(test, Layout::default()).await;
    let first: Vec<_> = cell.members().collect();
    for victim in first {
        workload.progress(1, PATIENCE).await;
        workload.fault((victim == cell.leader().await).then_some(victim));
        cell.voters[victim].kill();
        // The next of the first, and at last one of those that took a place.
        cell.join(victim + 1, Some(victim));
        cell.let_go(victim);
        cell.all_vote(PATIENCE).await;
    }
    workload.progress(1, PATIENCE).await;
    let leader = cell.leader().await;
    workload.fault(Some(leader));
    cell.voters[leader].kill_and_restart().await;
    workload.progress(PROGRESS, PATIENCE).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}
