//! What was made in one term takes no effect in another, and what nobody acknowledged may vanish.

use std::time::Duration;

use tidemark_protocol::NodeId;
use tokio::sync::{mpsc, oneshot};

use super::harness::*;
use super::wires::*;
use crate::consensus::cell::CommittedLeaderId;
use crate::consensus::completion::{Completion, outcome};
use crate::consensus::proposal::Proposal;
use crate::consensus::*;

/// The fence would refuse it first. Should it ever not, the log still does; and the refusal names the node that
/// was asked, since it leads again: whoever follows it must ask in the new term, not again in the old one.
#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_term_is_not_appended_two_terms_later_by_the_same_leader() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    commit(&wires, 1).await;
    let (node, leader, old) = wires.leader().await;
    let between = leader.transfer(None, DEADLINE).await.unwrap().node;
    let other = wires.voter(between);
    leading(&other).await;
    let back = other.transfer(Some(node), DEADLINE).await.unwrap();
    assert_eq!(back.node, node);
    let new = leading(&leader).await;
    assert!(new.0 >= old.0 + 2, "{old} -> {new}");

    let refused = propose(&leader, old, command(2)).await;
    assert!(
        matches!(refused, Proposed::Refused(Refusal::NotLeader { .. })),
        "{refused:?}"
    );
    let (done, answer) = oneshot::channel();
    let write = leader.inner.raft.write(Proposal::Whole(command(3)));
    let write = write.responder(Completion::new(|result| {
        done.send(outcome(result)).unwrap()
    }));
    let stale = CommittedLeaderId::new(old.0);
    write.with_leader(stale).await.unwrap();
    let Proposed::Refused(Refusal::NotLeader { leader: Some(hint) }) = answer.await.unwrap() else {
        panic!("appended in another term");
    };
    assert_eq!(hint.node, node);
    index(&propose(&leader, new, command(4)).await);
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == [1, 4]).then_some(())).await;
    }
    stop(&wires).await;
}

/// Flushed by the leader alone, then the process is gone: a successor never had it, so it goes from the disk too.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_a_majority_lacks_is_gone_after_the_leader_restarts() {
    let root = tempfile::tempdir().unwrap();
    let (wires, mut recorders) = cell_of(3, root.path()).await;
    commit(&wires, 1).await;
    let (old, deposed, term) = wires.leader().await;
    wires.cut_off(old);
    let (done, mut outcomes) = mpsc::unbounded_channel();
    for seq in 100..110 {
        let done = done.clone();
        deposed.propose(term, command(seq), move |outcome| drop(done.send(outcome)));
    }
    drop(done);
    let appended = deposed.metrics().appended;
    let flushed = || (deposed.metrics().unflushed_bytes == 0).then_some(());
    wait_until(flushed).await;
    wires.0.voters.lock().unwrap().remove(&old);
    deposed.stop().await;
    drop(deposed);
    while let Some(outcome) = outcomes.recv().await {
        assert!(
            matches!(outcome, Proposed::Unknown | Proposed::Refused(_)),
            "{outcome:?}"
        );
    }
    assert!(appended > Some(LogIndex(0)));
    commit(&wires, 2).await;

    wires.heal();
    let recorder = start_voter(&wires, voter_config(root.path(), old)).await;
    recorders.insert(old, recorder);
    commit(&wires, 3).await;
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == [1, 2, 3]).then_some(())).await;
    }
    stop(&wires).await;
}

/// The chain check exists because of this: one proposal is refused, and the next is accepted in the same term.
#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_refused_while_the_lease_is_old_and_the_next_accepted_in_the_same_term() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    let mut seq = 1;
    let seen = async {
        loop {
            commit(&wires, seq).await;
            seq += 1;
            let (node, leader, term) = wires.leader().await;
            let others = recorders.keys().copied().filter(|other| *other != node);
            others.for_each(|other: NodeId| wires.cut_off(other));
            let refused = loop {
                let (done, answer) = oneshot::channel();
                let send = move |proposed| drop(done.send(proposed));
                leader.propose(term, command(seq), send);
                seq += 1;
                // One that was accepted has no outcome as long as the others are cut off.
                let answer = tokio::time::timeout(Duration::from_millis(10), answer).await;
                if let Ok(Ok(Proposed::Refused(refusal))) = answer {
                    break refusal;
                }
            };
            wires.heal();
            if refused != Refusal::Lease {
                continue;
            }
            let accepted = loop {
                match propose(&leader, term, command(seq)).await {
                    Proposed::Committed { .. } => break true,
                    Proposed::Refused(Refusal::Lease) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Proposed::Refused(_) | Proposed::Unknown => break false,
                }
                seq += 1;
            };
            seq += 1;
            // The others may have been quicker to elect one of them.
            if accepted {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.unwrap();
    stop(&wires).await;
}
