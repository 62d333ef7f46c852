//! Appends overlap, and one that is lost is sent again.

use std::sync::atomic::Ordering;

use tidemark_protocol::NodeId;
use tokio::sync::mpsc;

use super::harness::*;
use super::wires::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_append_leaves_before_the_first_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    let first = commit(&wires, 1).await;
    let (node, leader, term) = wires.leader().await;
    // One follower is enough to be waited for, and to be watched.
    let others: Vec<NodeId> = recorders.keys().copied().filter(|n| *n != node).collect();
    wires.cut_off(others[0]);
    let commits = || (leader.metrics().committed >= Some(first)).then_some(());
    wait_until(commits).await;

    wires.0.hold_answers.send_replace(true);
    let (done, mut outcomes) = mpsc::unbounded_channel();
    for seq in 2..=5 {
        let before = wires.0.appends.load(Ordering::Relaxed);
        let done = done.clone();
        leader.propose(term, command(seq), move |outcome| {
            done.send((seq, outcome)).unwrap()
        });
        wait_until(|| (wires.0.appends.load(Ordering::Relaxed) > before).then_some(())).await;
    }
    drop(done);
    assert!(outcomes.try_recv().is_err(), "nothing was answered");
    wires.0.hold_answers.send_replace(false);
    for expected in 2..=5 {
        let (seq, outcome) = outcomes.recv().await.unwrap();
        assert_eq!(seq, expected);
        index(&outcome);
    }
    wires.heal();
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == [1, 2, 3, 4, 5]).then_some(())).await;
    }
    stop(&wires).await;
}

/// More than is let in flight, over a connection that breaks again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_loses_and_repeats_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    let mut seq = 0;
    for _ in 0..5 {
        let (node, ..) = wires.leader().await;
        let other = *recorders.keys().find(|other| **other != node).unwrap();
        for _ in 0..40 {
            seq += 1;
            commit(&wires, seq).await;
        }
        wires.cut_off(other);
        for _ in 0..40 {
            seq += 1;
            commit(&wires, seq).await;
        }
        wires.heal();
    }
    let expected: Vec<_> = (1..=seq).collect();
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == expected).then_some(())).await;
    }
    stop(&wires).await;
}
