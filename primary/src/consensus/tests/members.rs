//! The cell changes while it works: what is acknowledged stays, whoever joins has it, whoever leaves decides
//! nothing any more, and every proposal has one outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::EntryPayload;
use tidemark_protocol::{Incarnation, NodeId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::harness::*;
use super::wires::*;
use crate::consensus::cell::Membership;
use crate::consensus::*;

const NOBODY: BTreeSet<NodeId> = BTreeSet::new();

fn only(node: NodeId) -> BTreeSet<NodeId> {
    BTreeSet::from([node])
}

/// Proposes without end, each number once, to whoever leads, and writes down what became of it.
struct Writers {
    stop: Arc<AtomicBool>,
    record: Arc<Mutex<BTreeMap<u64, Proposed>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(wires: &Wires, tasks: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let record = Arc::<Mutex<BTreeMap<u64, Proposed>>>::default();
        let next = Arc::new(AtomicU64::new(1));
        let task = |_| {
            let (wires, stop) = (wires.clone(), Arc::clone(&stop));
            let (record, next) = (Arc::clone(&record), Arc::clone(&next));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (_, leader, term) = wires.leader().await;
                    let seq = next.fetch_add(1, Ordering::Relaxed);
                    let (done, outcome) = oneshot::channel();
                    leader.propose(term, command(seq), |proposed| done.send(proposed).unwrap());
                    let outcome = tokio::time::timeout(DEADLINE, outcome).await;
                    let outcome = outcome.expect("an outcome in time").expect("an outcome");
                    if matches!(outcome, Proposed::Refused(_)) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    record.lock().unwrap().insert(seq, outcome);
                }
            })
        };
        Self {
            tasks: (0..tasks).map(task).collect(),
            stop,
            record,
        }
    }

    fn committed(&self) -> usize {
        let record = self.record.lock().unwrap();
        let committed = |outcome: &&Proposed| matches!(outcome, Proposed::Committed { .. });
        record.values().filter(committed).count()
    }

    /// Waits until so many more are committed.
    async fn more(&self, count: usize) {
        let before = self.committed();
        wait_until(|| (self.committed() >= before + count).then_some(())).await;
    }

    async fn finish(self) -> BTreeMap<u64, Proposed> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        Arc::into_inner(self.record).unwrap().into_inner().unwrap()
    }
}

/// Waits until every one of them has applied the same, and checks it against the record.
async fn check(record: &BTreeMap<u64, Proposed>, recorders: &[&Recorder]) {
    let committed: BTreeSet<u64> = of(record, |o| matches!(o, Proposed::Committed { .. }));
    let refused: BTreeSet<u64> = of(record, |o| matches!(o, Proposed::Refused(_)));
    for recorder in recorders {
        wait_until(|| {
            let applied: BTreeSet<u64> = recorder.seqs().into_iter().collect();
            committed.is_subset(&applied).then_some(())
        })
        .await;
        let seqs = recorder.seqs();
        let applied: BTreeSet<u64> = seqs.iter().copied().collect();
        assert_eq!(applied.len(), seqs.len(), "nothing is applied twice");
        assert!(applied.is_disjoint(&refused), "a refused one is in the log");
    }
    let first = recorders[0];
    for other in &recorders[1..] {
        wait_until(|| (first.seqs() == other.seqs()).then_some(())).await;
    }
}

fn of(record: &BTreeMap<u64, Proposed>, is: impl Fn(&Proposed) -> bool) -> BTreeSet<u64> {
    let found = record.iter().filter(|(_, outcome)| is(outcome));
    found.map(|(seq, _)| *seq).collect()
}

/// Tries until the change is made: the leader may not be sure of itself yet.
async fn change(wires: &Wires, add: BTreeSet<NodeId>, remove: BTreeSet<NodeId>) {
    let (_, leader, _) = wires.leader().await;
    let changed = leader.change_voters(add, remove, DEADLINE).await;
    changed.unwrap();
}

/// Starts a node on an empty disk and takes it in as a learner; returns when it has about everything.
async fn learn(wires: &Wires, root: &std::path::Path, node: NodeId) -> Recorder {
    let recorder = start_voter(wires, voter_config(root, node)).await;
    let (_, leader, _) = wires.leader().await;
    let added = leader.add_learner(node, member(node), DEADLINE).await;
    added.unwrap();
    wait_until(|| {
        let status = status(&leader, node)?;
        assert!(!status.voter);
        let behind = leader.metrics().appended?.0 - status.matched?.0;
        (behind < 100).then_some(())
    })
    .await;
    recorder
}

fn status(voter: &Consensus, node: NodeId) -> Option<MemberStatus> {
    let members = voter.members().members;
    members.into_iter().find(|status| status.node == node)
}

fn voters(voter: &Consensus) -> BTreeSet<NodeId> {
    let members = voter.members().members.into_iter();
    members.filter(|m| m.voter).map(|m| m.node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_under_writes_and_its_vote_counts() {
    let root = tempfile::tempdir().unwrap();
    let (wires, mut recorders) = cell_of(1, root.path()).await;
    let writers = Writers::start(&wires, 4);
    writers.more(50).await;
    for node in [2, 3].map(NodeId) {
        recorders.insert(node, learn(&wires, root.path(), node).await);
        change(&wires, only(node), NOBODY).await;
        writers.more(20).await;
    }
    let (_, leader, _) = wires.leader().await;
    assert_eq!(voters(&leader), [1, 2, 3].map(NodeId).into());
    assert!(!leader.members().changing);
    check(
        &writers.finish().await,
        &recorders.values().collect::<Vec<_>>(),
    )
    .await;

    // Without the two that joined there is no majority, with one of them there is.
    wires.cut_off(NodeId(2));
    commit(&wires, 1_000_000).await;
    wires.heal();
    wires.cut_off(NodeId(1));
    let (successor, ..) = wires.leader().await;
    assert_ne!(successor, NodeId(1));
    commit(&wires, 1_000_001).await;
    stop(&wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_voter_is_replaced_in_one_change_under_writes() {
    let root = tempfile::tempdir().unwrap();
    let (wires, mut recorders) = cell_of(3, root.path()).await;
    let writers = Writers::start(&wires, 4);
    writers.more(20).await;
    let (leading, ..) = wires.leader().await;
    let dead = *recorders.keys().find(|node| **node != leading).unwrap();
    wires.cut_off(dead);
    let new = NodeId(4);
    recorders.insert(new, learn(&wires, root.path(), new).await);
    change(&wires, only(new), only(dead)).await;
    writers.more(20).await;
    let (_, leader, _) = wires.leader().await;
    assert!(!voters(&leader).contains(&dead) && voters(&leader).contains(&new));
    assert_eq!(status(&leader, dead), None);
    let record = writers.finish().await;
    recorders.remove(&dead);
    check(&record, &recorders.values().collect::<Vec<_>>()).await;

    // The one that was replaced comes back, and disturbs nobody.
    let (_, leader, term) = wires.leader().await;
    wires.heal();
    for seq in 1_000_000..1_000_050 {
        index(&propose(&leader, term, command(seq)).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop(&wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_to_go_hands_over_first() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    let writers = Writers::start(&wires, 4);
    writers.more(20).await;
    let (old, deposed, term) = wires.leader().await;
    let refused = deposed.change_voters(NOBODY, only(old), DEADLINE).await;
    let Err(MembersError::NotLeader { leader: Some(now) }) = refused else {
        panic!("{refused:?}");
    };
    assert_ne!(now.node, old);
    assert!(!deposed.fence().holds(term));
    let successor = wires.voter(now.node);
    wait_until(|| successor.leadership().borrow().leading.then_some(())).await;
    let removed = successor.change_voters(NOBODY, only(old), DEADLINE).await;
    assert_eq!(removed, Ok(()));
    assert!(!voters(&successor).contains(&old));
    writers.more(20).await;
    let record = writers.finish().await;
    let left = recorders.iter().filter(|(node, _)| **node != old);
    check(&record, &left.map(|(_, r)| r).collect::<Vec<_>>()).await;
    stop(&wires).await;
}

async fn hand_over(count: u64, named: bool) {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(count, root.path()).await;
    let writers = Writers::start(&wires, 16);
    for _ in 0..4 {
        writers.more(100).await;
        let (old, leader, term) = wires.leader().await;
        let to = recorders.keys().find(|node| **node != old).copied();
        let to = to.filter(|_| named);
        let begun = std::time::Instant::now();
        let handed_over = leader.transfer(to, DEADLINE).await.unwrap();
        assert_ne!(handed_over.node, old);
        assert!(
            to.is_none_or(|to| to == handed_over.node),
            "{handed_over:?}"
        );
        assert!(!leader.fence().holds(term));
        writers.more(1).await;
        let pause = begun.elapsed();
        assert!(
            pause < Duration::from_secs(2),
            "writes go on {pause:?} after"
        );
    }
    let record = writers.finish().await;
    let unknown = of(&record, |o| matches!(o, Proposed::Unknown));
    assert_eq!(unknown, BTreeSet::new(), "none is in doubt");
    check(&record, &recorders.values().collect::<Vec<_>>()).await;
    stop(&wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leadership_of_three_is_handed_over_under_writes_and_no_proposal_is_in_doubt() {
    hand_over(3, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leadership_of_five_goes_to_whoever_has_most() {
    hand_over(5, false).await;
}

/// Proposals are not held back for ever for a successor that never gets there.
#[tokio::test(flavor = "multi_thread")]
async fn a_leadership_stays_when_the_successor_does_not_catch_up() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    commit(&wires, 1).await;
    let (old, leader, _) = wires.leader().await;
    let to = *recorders.keys().find(|node| **node != old).unwrap();
    wires.cut_off(to);
    commit(&wires, 2).await;
    // It lacks an entry.
    let handed_over = leader.transfer(Some(to), Duration::from_millis(600)).await;
    assert!(
        matches!(handed_over, Err(MembersError::NoQuorum { .. })),
        "{handed_over:?}"
    );
    commit(&wires, 3).await;
    wires.heal();
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == [1, 2, 3]).then_some(())).await;
    }
    stop(&wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_cannot_be_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    commit(&wires, 1).await;
    let (node, leader, _) = wires.leader().await;
    let other = *recorders.keys().find(|other| **other != node).unwrap();
    let stranger = NodeId(9);
    let within = Duration::from_millis(300);

    let follower = wires.voter(other);
    let knows = || follower.leadership().borrow().leader.clone();
    wait_until(knows).await;
    let refused = follower.add_learner(stranger, member(stranger), within);
    let Err(MembersError::NotLeader { leader: hint }) = refused.await else {
        panic!("a follower changed the cell");
    };
    assert_eq!(hint.map(|leader| leader.node), Some(node));
    let handed_over = follower.transfer(None, within).await;
    assert!(matches!(handed_over, Err(MembersError::NotLeader { .. })));

    let unknown = Err(MembersError::UnknownNode { node: stranger });
    let added = leader.change_voters(only(stranger), NOBODY, within).await;
    assert_eq!(added, unknown);
    let handed_over = leader.transfer(Some(stranger), within).await;
    assert_eq!(handed_over.map(drop), unknown);
    let everybody = recorders.keys().copied().collect();
    let removed = leader.change_voters(NOBODY, everybody, within).await;
    assert_eq!(removed, Err(MembersError::NobodyElse));
    let itself = leader.transfer(Some(node), within).await;
    assert_eq!(itself, Err(MembersError::NobodyElse));

    let on_a_new_disk = Member {
        incarnation: Incarnation(99),
        ..member(other)
    };
    let known = member(other);
    let added = leader.add_learner(other, on_a_new_disk, within).await;
    assert_eq!(added, Err(MembersError::OtherMember { node: other, known }));

    // What is so already needs no change.
    let done = leader.add_learner(other, member(other), within).await;
    assert_eq!(done, Ok(()));
    let done = leader
        .change_voters(only(other), only(stranger), within)
        .await;
    assert_eq!(done, Ok(()));

    // Without a quorum a change does not happen, and while it does not a second one has to wait.
    for other in recorders.keys().filter(|other| **other != node) {
        wires.cut_off(*other);
    }
    let first = leader.add_learner(stranger, member(stranger), within);
    let second = leader.add_learner(NodeId(10), member(NodeId(10)), within);
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first, Err(MembersError::NoQuorum { waited: within }));
    assert_eq!(second, Err(MembersError::UnderWay));
    stop(&wires).await;
}

/// The leader that began it died, or nobody waited for it: the cell must not stay between the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_left_half_way_is_finished() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    commit(&wires, 1).await;
    let (node, leader, _) = wires.leader().await;
    let leaving = recorders.keys().find(|other| **other != node).unwrap();
    let all: BTreeSet<u64> = recorders.keys().map(|node| node.0).collect();
    let rest: BTreeSet<u64> = all.iter().copied().filter(|id| *id != leaving.0).collect();
    let nodes: BTreeMap<_, _> = recorders
        .keys()
        .map(|node| (node.0, member(*node)))
        .collect();
    let joint = Membership::new(vec![all, rest.clone()], nodes).unwrap();
    let raft = &leader.inner.raft;
    raft.append_membership(joint, EntryPayload::Blank, [])
        .await
        .unwrap();
    wait_until(|| {
        let (members, voters) = (leader.members(), voters(&leader));
        let rest = rest.iter().copied().map(NodeId).collect();
        (!members.changing && voters == rest).then_some(())
    })
    .await;
    commit(&wires, 2).await;
    stop(&wires).await;
}

/// What it had promised was on that disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_on_another_disk_takes_no_part() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    commit(&wires, 1).await;
    let (leading, ..) = wires.leader().await;
    let lost = *recorders.keys().find(|node| **node != leading).unwrap();
    let voter = wires.0.voters.lock().unwrap().remove(&lost).unwrap();
    voter.stop().await;
    drop(voter);

    // Its log on another disk: a copy, or a directory half restored.
    let copied = ConsensusConfig {
        incarnation: Incarnation(99),
        ..voter_config(root.path(), lost)
    };
    let started = Consensus::start(
        copied.clone(),
        disk(),
        Arc::new(NoTransport),
        Recorder::default(),
    );
    let error = started.await.expect_err("another incarnation");
    let ConsensusError::OtherIncarnation { got, expected, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((got, expected), (Incarnation(99), incarnation(lost)));

    std::fs::remove_dir_all(&copied.directory).unwrap();
    let recorder = start_voter(&wires, copied).await;
    for seq in 2..=30 {
        commit(&wires, seq).await;
    }
    let returned = wires.voter(lost);
    assert_eq!(returned.metrics().appended, None);
    assert_eq!(recorder.seqs(), Vec::<u64>::new());
    // Nor does it count for a majority.
    let third = recorders.keys().find(|n| **n != lost && **n != leading);
    let (_, leader, term) = wires.leader().await;
    wires.cut_off(*third.unwrap());
    let (done, outcome) = oneshot::channel();
    // Dropped at the end of the test, when nobody waits any more.
    leader.propose(term, command(31), |proposed| drop(done.send(proposed)));
    let outcome = tokio::time::timeout(Duration::from_secs(1), outcome).await;
    assert!(
        !matches!(outcome, Ok(Ok(Proposed::Committed { .. }))),
        "{outcome:?}"
    );
    stop(&wires).await;
}
