//! Three voters: the same log everywhere, and no outcome that is not so.

use std::time::Duration;

use tokio::sync::mpsc;

use super::harness::*;
use super::wires::*;
use crate::consensus::*;

#[tokio::test(flavor = "multi_thread")]
async fn three_voters_apply_the_same_log() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of_three(root.path()).await;
    for seq in 1..=30 {
        commit(&wires, seq).await;
    }
    let expected: Vec<_> = (1..=30).collect();
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == expected).then_some(())).await;
    }
    let (node, leader, term) = wires.leader().await;
    leader.confirm(DEADLINE).await.unwrap();
    for other in recorders.keys().filter(|other| **other != node) {
        let follower = wires.voter(*other);
        let refused = propose(&follower, term, command(31)).await;
        let Proposed::Refused(Refusal::NotLeader { leader: Some(hint) }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            hint,
            Leader {
                node,
                address: format!("http://voter-{node}")
            }
        );
        let confirmed = follower.confirm(DEADLINE).await;
        assert!(
            matches!(confirmed, Err(ConfirmError::NotLeader { .. })),
            "{confirmed:?}"
        );
    }
    stop(&wires).await;
}

/// The leader's last proposals are on its disk only. They were never acknowledged, and never appear.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_loses_its_tail_and_says_that_it_does_not_know() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of_three(root.path()).await;
    commit(&wires, 1).await;
    let (old, deposed, old_term) = wires.leader().await;

    wires.cut_off(old);
    let (done, mut outcomes) = mpsc::unbounded_channel();
    for seq in 100..110 {
        let done = done.clone();
        deposed.propose(old_term, command(seq), move |outcome| {
            done.send(outcome).unwrap()
        });
    }
    drop(done);
    let (new, _, new_term) = wires.leader().await;
    assert!(new != old && new_term > old_term);
    commit(&wires, 2).await;
    assert!(
        deposed.confirm(Duration::from_millis(300)).await.is_err(),
        "no quorum"
    );

    wires.heal();
    wait_until(|| (!deposed.fence().holds(old_term)).then_some(())).await;
    while let Some(outcome) = outcomes.recv().await {
        assert!(
            matches!(outcome, Proposed::Unknown | Proposed::Refused(_)),
            "{outcome:?}"
        );
    }
    commit(&wires, 3).await;
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == [1, 2, 3]).then_some(())).await;
    }
    let refused = propose(&deposed, old_term, command(4)).await;
    assert!(
        matches!(refused, Proposed::Refused(Refusal::NotLeader { .. })),
        "{refused:?}"
    );
    stop(&wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_keeps_in_its_log_what_a_voter_lacks() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of_three(root.path()).await;
    commit(&wires, 1).await;
    let (node, leader, _) = wires.leader().await;
    let behind = *recorders.keys().find(|other| **other != node).unwrap();
    wires.cut_off(behind);
    let mut last = LogIndex(0);
    for seq in 2..=40 {
        last = commit(&wires, seq).await;
    }
    let durable = leader.snapshot(DEADLINE).await.unwrap();
    assert!(durable >= Some(last));
    assert!(
        leader.metrics().purged < Some(LogIndex(10)),
        "{:?}",
        leader.metrics()
    );
    wires.heal();
    let expected: Vec<_> = (1..=40).collect();
    wait_until(|| (recorders[&behind].seqs() == expected).then_some(())).await;
    stop(&wires).await;
}
