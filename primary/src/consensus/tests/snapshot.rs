//! A voter that the log no longer reaches: it gets the state, and nobody waits for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidemark_protocol::{NodeId, Term};
use tokio::sync::mpsc;

use super::harness::*;
use super::wires::*;
use crate::consensus::cell::{CellSnapshot, CellVote, CommittedLeaderId, LogId, SnapshotMeta};
use crate::consensus::snapshot::{Content, Receipt};
use crate::consensus::wire::{Answer, Request};
use crate::consensus::*;

/// Bytes of log kept for a voter that is away.
const KEPT: u64 = 2 << 20;
const SEGMENT: u64 = 1 << 20;

/// A cell that has written more than its logs keep.
struct World {
    root: TempDir,
    wires: Wires,
    recorders: BTreeMap<NodeId, Recorder>,
    written: u64,
}

fn change(config: ConsensusConfig) -> ConsensusConfig {
    ConsensusConfig {
        log_segment_bytes: SEGMENT,
        log_bytes_kept: KEPT,
        ..config
    }
}

impl World {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (wires, recorders) = cell_of_three_with(root.path(), change).await;
        let mut world = Self {
            root,
            wires,
            recorders,
            written: 0,
        };
        world.write(3).await;
        world.settled().await;
        world
    }

    /// Commits so many more, each of about 256 KiB.
    async fn write(&mut self, count: u64) {
        for _ in 0..count {
            self.written += 1;
            let seq = self.written;
            loop {
                let (_, leader, term) = self.wires.leader().await;
                let large = Command::Transaction(transaction(seq, 64));
                match propose(&leader, term, large).await {
                    Proposed::Committed { .. } => break,
                    Proposed::Refused(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Proposed::Unknown => panic!("the leader was lost"),
                }
            }
        }
    }

    /// Writes more than a leader keeps, makes it durable and purges. A voter that is away is beyond reach
    /// of the log from then on.
    async fn write_beyond_reach(&mut self) -> LogIndex {
        self.write(30).await;
        let (_, leader, _) = self.wires.leader().await;
        let durable = leader.snapshot(DEADLINE).await.unwrap().unwrap();
        let (purged, bytes) = (leader.metrics().purged, leader.log_bytes());
        assert!(purged >= Some(LogIndex(10)), "purged up to {purged:?}");
        assert!(bytes <= KEPT + 2 * SEGMENT, "{bytes} bytes of log");
        durable
    }

    async fn some_follower(&self) -> NodeId {
        let (leader, _, _) = self.wires.leader().await;
        let mut others = self.recorders.keys().filter(|node| **node != leader);
        *others.next().unwrap()
    }

    /// Waits until all have applied all that was committed.
    async fn settled(&self) {
        let expected: Vec<_> = (1..=self.written).collect();
        for (node, recorder) in &self.recorders {
            wait_until(|| (recorder.seqs().len() >= expected.len()).then_some(())).await;
            assert_eq!(recorder.seqs(), expected, "voter {node}");
        }
    }

    async fn kill(&self, node: NodeId) {
        let voter = self.wires.0.voters.lock().unwrap().remove(&node).unwrap();
        voter.stop().await;
    }

    async fn start(&mut self, node: NodeId) {
        let config = change(voter_config(self.root.path(), node));
        let recorder = start_voter(&self.wires, config).await;
        self.recorders.insert(node, recorder);
    }

    fn home(&self, node: NodeId) -> PathBuf {
        self.root.path().join(node.to_string())
    }

    fn installs(&self, node: NodeId) -> Vec<String> {
        self.recorders[&node].0.installs.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_beyond_reach_of_the_log_takes_over_the_state_and_follows() {
    let mut world = World::new().await;
    let behind = world.some_follower().await;
    world.wires.cut_off(behind);
    world.write_beyond_reach().await;
    let (leader, _, _) = world.wires.leader().await;
    world.wires.heal();
    world.settled().await;
    assert_eq!(world.installs(behind), [format!("http://voter-{leader}")]);
    world.write(3).await;
    world.settled().await;
    assert_eq!(world.installs(behind).len(), 1);

    // It has a place of its own to start from now.
    world.kill(behind).await;
    world.write(1).await;
    world.start(behind).await;
    let written = world.written;
    let recorder = world.recorders[&behind].clone();
    wait_until(|| (recorder.seqs().last() == Some(&written)).then_some(())).await;
    assert!(recorder.seqs().len() < 15, "{:?}", recorder.seqs());
    assert!(world.installs(behind).is_empty());
    stop(&world.wires).await;
}

/// Fetching databases takes minutes. For as long, the cell would be down to what the others can do.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_installs_goes_on_following_and_voting() {
    let mut world = World::new().await;
    let behind = world.some_follower().await;
    world.wires.cut_off(behind);
    world.write_beyond_reach().await;
    let held = &world.recorders[&behind].0.hold_install;
    held.send_replace(true);
    world.wires.heal();
    wait_until(|| (!world.installs(behind).is_empty()).then_some(())).await;

    // The other follower is gone: a quorum is the leader and the one that installs.
    let (leader, _, term) = world.wires.leader().await;
    let nodes: Vec<_> = world.recorders.keys().copied().collect();
    let other = nodes.into_iter().find(|n| *n != leader && *n != behind);
    world.wires.cut_off(other.unwrap());
    for _ in 0..5 {
        let confirmed = world.wires.voter(leader).confirm(DEADLINE).await;
        assert_eq!(confirmed, Ok(()));
    }
    assert_eq!(world.wires.voter(leader).leadership().borrow().term, term);
    assert!(world.recorders[&behind].seqs().len() < 10);
    let held = &world.recorders[&behind].0.hold_install;
    held.send_replace(false);
    world.wires.heal();
    world.settled().await;
    assert_eq!(world.installs(behind).len(), 1, "asked for once");
    stop(&world.wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_that_fails_is_tried_again() {
    let mut world = World::new().await;
    let behind = world.some_follower().await;
    world.wires.cut_off(behind);
    world.write_beyond_reach().await;
    *world.recorders[&behind].0.fail_install.lock().unwrap() = true;
    world.wires.heal();
    wait_until(|| (world.installs(behind).len() >= 2).then_some(())).await;
    *world.recorders[&behind].0.fail_install.lock().unwrap() = false;
    world.settled().await;
    world.write(2).await;
    world.settled().await;
    stop(&world.wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_does_not_wait_for_an_install() {
    let mut world = World::new().await;
    let behind = world.some_follower().await;
    world.wires.cut_off(behind);
    world.write_beyond_reach().await;
    let held = world.recorders[&behind].0.hold_install.clone();
    held.send_replace(true);
    world.wires.heal();
    wait_until(|| (!world.installs(behind).is_empty()).then_some(())).await;
    let stopping = tokio::time::timeout(DEADLINE, world.kill(behind));
    stopping.await.expect("it stops");
    // And begins again where it was.
    world.start(behind).await;
    world.settled().await;
    stop(&world.wires).await;
}

/// The leader's last proposals are in its log alone, and that log is replaced before they meet their end.
#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_pending_when_a_snapshot_replaces_the_log_is_unknown_once() {
    let mut world = World::new().await;
    let (old, deposed, old_term) = world.wires.leader().await;
    world.wires.cut_off(old);
    let (done, mut outcomes) = mpsc::unbounded_channel();
    for seq in 100..110 {
        let done = done.clone();
        deposed.propose(old_term, command(seq), move |outcome| {
            done.send((seq, outcome)).unwrap();
        });
    }
    drop(done);
    let appended = deposed.metrics().appended;
    world.write_beyond_reach().await;
    world.wires.heal();
    let mut unknown = 0;
    while let Some((seq, outcome)) = outcomes.recv().await {
        match outcome {
            Proposed::Unknown => unknown += 1,
            Proposed::Refused(_) => {}
            Proposed::Committed { .. } => panic!("{seq} was in one log of three"),
        }
    }
    assert!(unknown > 0, "appended up to {appended:?}");
    world.settled().await;
    assert_eq!(world.installs(old).len(), 1);
    world.write(2).await;
    world.settled().await;
    stop(&world.wires).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// The machine has the state, and the node dies before anything of consensus says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_install_and_the_note_of_it_installs_again() {
    let mut world = World::new().await;
    let behind = world.some_follower().await;
    world.kill(behind).await;
    world.write_beyond_reach().await;
    let before = tempfile::tempdir().unwrap();
    let home = world.home(behind);
    copy(&home.join("log"), &before.path().join("log"));
    world.start(behind).await;
    world.settled().await;
    world.kill(behind).await;
    std::fs::remove_dir_all(&home).unwrap();
    copy(&before.path().join("log"), &home.join("log"));
    world.start(behind).await;
    world.settled().await;
    assert_eq!(world.installs(behind).len(), 1);
    world.write(2).await;
    world.settled().await;
    stop(&world.wires).await;
}

/// The note is there, and the log still holds a tail that contradicts it: it was to be truncated next.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_note_of_an_install_and_the_log_starts_from_the_note() {
    let mut world = World::new().await;
    let (old, deposed, old_term) = world.wires.leader().await;
    world.wires.cut_off(old);
    // More entries than the others are about to have.
    for seq in 100..150 {
        deposed.propose(old_term, command(seq), |_| ());
    }
    let appended = || deposed.metrics().appended >= Some(LogIndex(50));
    wait_until(|| appended().then_some(())).await;
    world.kill(old).await;
    world.write_beyond_reach().await;
    let before = tempfile::tempdir().unwrap();
    let home = world.home(old);
    copy(&home.join("log"), &before.path().join("log"));
    let synced = std::fs::read(home.join("log.synced")).unwrap();
    world.wires.heal();
    world.start(old).await;
    world.settled().await;
    assert_eq!(world.installs(old).len(), 1);
    let manifest = world.recorders[&old].applied();
    world.kill(old).await;
    std::fs::remove_dir_all(home.join("log")).unwrap();
    copy(&before.path().join("log"), &home.join("log"));
    std::fs::write(home.join("log.synced"), synced).unwrap();

    world.start(old).await;
    // A machine that lost its memory: what it took over is on its disk, as it were.
    let recorder = &world.recorders[&old];
    recorder.0.applied.lock().unwrap().splice(0..0, manifest);
    world.write(2).await;
    world.settled().await;
    stop(&world.wires).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_older_than_what_is_applied_changes_nothing() {
    let world = World::new().await;
    let follower = world.some_follower().await;
    let (leader, _, term) = world.wires.leader().await;
    let ask = async |term: Term| {
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new(CommittedLeaderId::new(1), 2)),
            ..SnapshotMeta::default()
        };
        let content = Content {
            manifest: Bytes::from_static(b"0 1 77\n"),
            source: "http://nobody".to_owned(),
        };
        let request = Request::Snapshot {
            vote: CellVote::new_committed(term.0, leader.0),
            snapshot: CellSnapshot {
                meta,
                snapshot: content,
            },
        };
        let request = request.encode().unwrap();
        let answer = world.wires.voter(follower).answer(&request).await.unwrap();
        Answer::decode(&answer).unwrap()
    };
    let held = CellVote::new_committed(term.0, leader.0);
    let nothing = Answer::Snapshot(Receipt::Installed { vote: held });
    assert_eq!(ask(term).await, nothing);
    assert_eq!(ask(Term(term.0 - 1)).await, nothing, "of a deposed leader");
    world.settled().await;
    assert!(world.installs(follower).is_empty());
    stop(&world.wires).await;
}
