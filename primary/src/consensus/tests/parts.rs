//! Commands larger than an entry of the log: there whole or not at all, on every voter alike.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, RaftSnapshotBuilder};
use tidemark_protocol::{NodeId, Term};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::harness::*;
use super::wires::*;
use crate::consensus::applied::Applied;
use crate::consensus::cell::{CellEntry, CommittedLeaderId, LogId};
use crate::consensus::failure::Failure;
use crate::consensus::parts::split;
use crate::consensus::proposal::Proposal;
use crate::consensus::state_machine::{Persists, Signals, StateMachine};
use crate::consensus::*;

/// Every command of the tests is larger than this.
const ENTRY_BYTES_MAX: usize = 1000;

fn in_parts(config: ConsensusConfig) -> ConsensusConfig {
    ConsensusConfig {
        entry_bytes_max: ENTRY_BYTES_MAX,
        ..config
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_larger_than_an_entry_arrives_whole() {
    let directory = tempfile::tempdir().unwrap();
    let config = in_parts(config(directory.path()));
    let (consensus, recorder, term) = start_with(config.clone()).await;
    let before = consensus.metrics().appended.unwrap();
    let committed = index(&propose(&consensus, term, command(1)).await);
    assert!(committed.0 > before.0 + 3, "{before} and then {committed}");
    let large = Command::Transaction(transaction(2, 100));
    index(&propose(&consensus, term, large.clone()).await);
    let applied = recorder.applied();
    assert_eq!(applied[0].index, committed, "at its last part");
    assert_eq!(applied[0].command, command(1));
    assert_eq!(applied[1].command, large);
    let metrics = consensus.metrics();
    assert_eq!((metrics.in_flight, metrics.in_flight_bytes), (0, 0));
    consensus.stop().await;

    let (consensus, again, _) = start_with(config).await;
    assert_eq!(again.applied(), applied);
    let durable = consensus.snapshot(DEADLINE).await.unwrap();
    assert!(durable >= Some(applied[1].index));
    consensus.stop().await;
}

fn state_machine(directory: &Path) -> (StateMachine, Recorder) {
    let path = directory.join("applied");
    let recorder = Recorder::default();
    let signals = Signals {
        applied_term: watch::Sender::new(Term(0)),
        persists: watch::Sender::new(Persists::default()),
        stopping: CancellationToken::new(),
        failure: Failure::new(),
    };
    let applied = Applied::read(&path).unwrap();
    let machine = StateMachine::new(NodeId(1), recorder.clone(), applied, path, disk(), signals);
    (machine, recorder)
}

async fn apply(machine: &mut StateMachine, entries: &[CellEntry]) {
    let entries = entries.iter().map(|entry| Ok((entry.clone(), None)));
    let entries = stream::iter(entries.collect::<Vec<_>>());
    machine.apply(entries).await.unwrap();
}

/// The node dies after a persist between two parts. The log must still have all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_persist_within_a_command_is_one_before_its_first_part() {
    let directory = tempfile::tempdir().unwrap();
    let mut proposals = vec![Proposal::Whole(command(1))];
    proposals.extend(split(command(2), ENTRY_BYTES_MAX, 1));
    proposals.push(Proposal::Whole(command(3)));
    let entry = |(index, proposal)| CellEntry {
        log_id: LogId::new(CommittedLeaderId::new(1), index),
        payload: EntryPayload::Normal(proposal),
    };
    let entries: Vec<_> = (0..).zip(proposals).map(entry).collect();

    let (mut machine, recorder) = state_machine(directory.path());
    apply(&mut machine, &entries[..3]).await;
    assert_eq!(recorder.seqs(), [1]);
    let mut builder = machine.get_snapshot_builder().await;
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(entries[0].log_id));
    // Applied it has more, as far as raft is concerned.
    let (applied, _) = machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(entries[2].log_id));

    let (mut machine, recorder) = state_machine(directory.path());
    let (applied, _) = machine.applied_state().await.unwrap();
    assert_eq!(applied, Some(entries[0].log_id));
    apply(&mut machine, &entries[1..]).await;
    assert_eq!(recorder.seqs(), [2, 3]);
    let mut builder = machine.get_snapshot_builder().await;
    let built = builder.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(entries.last().unwrap().log_id));
}

/// What became of each proposal, by its number.
type Outcomes = Arc<Mutex<BTreeMap<u64, Proposed>>>;

/// Leaders come and go while commands are under way, some in parts and some in one.
#[tokio::test(flavor = "multi_thread")]
async fn commands_in_parts_outlive_their_leader_whole_or_not_at_all() {
    const TASKS: u64 = 4;
    const ROUNDS: usize = 4;
    let root = tempfile::tempdir().unwrap();
    // The commands of odd tasks fit an entry.
    let size = Command::body(&command(1)).len();
    let change = |config| ConsensusConfig {
        entry_bytes_max: size,
        ..config
    };
    let (wires, recorders) = cell_of_three_with(root.path(), change).await;
    let outcomes = Outcomes::default();
    let stopping = CancellationToken::new();
    let tasks = (1..=TASKS).map(|task| {
        let (wires, outcomes, stopping) = (wires.clone(), outcomes.clone(), stopping.clone());
        tokio::spawn(async move {
            let pages = if task % 2 == 0 { 9 } else { 1 };
            for seq in task * 1_000_000.. {
                if stopping.is_cancelled() {
                    return;
                }
                let (_, leader, term) = wires.leader().await;
                let large = Command::Transaction(transaction(seq, pages));
                let noted = outcomes.clone();
                leader.propose(term, large, move |outcome| {
                    let before = noted.lock().unwrap().insert(seq, outcome);
                    assert_eq!(before, None, "{seq} has two outcomes");
                });
                // Several are under way at a time, and not without bound.
                if seq % 8 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let committed = || {
        let outcomes = outcomes.lock().unwrap();
        let committed = |outcome: &&Proposed| matches!(outcome, Proposed::Committed { .. });
        outcomes.values().filter(committed).count()
    };
    for _ in 0..ROUNDS {
        let goal = committed() + 40;
        wait_until(|| (committed() >= goal).then_some(())).await;
        let (leader, _, _) = wires.leader().await;
        wires.cut_off(leader);
        wires.leader().await;
        let goal = committed() + 40;
        wait_until(|| (committed() >= goal).then_some(())).await;
        wires.heal();
    }
    stopping.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    // Every voter follows again once all have applied the same last command.
    let last = commit(&wires, 1).await;
    for recorder in recorders.values() {
        let there = || recorder.applied().last().is_some_and(|e| e.index >= last);
        wait_until(|| there().then_some(())).await;
    }
    stop(&wires).await;

    let all: Vec<_> = recorders.values().map(Recorder::applied).collect();
    assert!(all[0] == all[1] && all[1] == all[2], "all apply the same");
    let applied: BTreeMap<_, _> = all[0]
        .iter()
        .map(|entry| (seq_of(&entry.command), entry.index))
        .collect();
    assert_eq!(applied.len(), all[0].len(), "none twice");
    let outcomes = outcomes.lock().unwrap();
    let mut unknown = 0;
    for (seq, outcome) in &*outcomes {
        match outcome {
            Proposed::Committed { index } => assert_eq!(applied.get(seq), Some(index)),
            Proposed::Refused(refusal) => assert_eq!(applied.get(seq), None, "{seq}: {refusal}"),
            Proposed::Unknown => unknown += 1,
        }
    }
    let parts = all[0].iter().filter(|e| e.command.body().len() > size);
    let counts = (outcomes.len(), applied.len(), parts.count(), unknown);
    eprintln!("proposed, applied, of these in parts, unknown: {counts:?}");
}
