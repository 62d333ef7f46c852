//! A cell of one: what is acknowledged survives, what is refused leaves no trace.

use std::sync::Arc;
use std::time::Duration;

use tidemark_protocol::{NodeId, Term};
use tokio::sync::mpsc;

use super::harness::*;
use crate::consensus::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_of_one_leads_at_once_and_commits() {
    let directory = tempfile::tempdir().unwrap();
    let begun = std::time::Instant::now();
    let (consensus, recorder, term) = start(directory.path()).await;
    // Well under an election timeout, were there one to wait for.
    assert!(
        begun.elapsed() < Duration::from_millis(450),
        "took {:?}",
        begun.elapsed()
    );
    let first = index(&propose(&consensus, term, command(1)).await);
    let second = index(&propose(&consensus, term, command(2)).await);
    assert!(first < second);
    let applied = recorder.applied();
    assert_eq!(
        applied.iter().map(|entry| entry.index).collect::<Vec<_>>(),
        [first, second]
    );
    assert!(applied.iter().all(|entry| entry.term == term));
    assert_eq!(applied[0].command, command(1));
    consensus.confirm(DEADLINE).await.unwrap();
    consensus.stop().await;
    assert_eq!(
        propose(&consensus, term, command(3)).await,
        Proposed::Refused(Refusal::Stopped)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_of_many_tasks_all_commit_each_in_its_order() {
    const TASKS: u64 = 16;
    const EACH: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let (consensus, recorder, term) = start(directory.path()).await;
    let tasks = (0..TASKS).map(|task| {
        let consensus = consensus.clone();
        tokio::spawn(async move {
            let (done, mut outcomes) = mpsc::unbounded_channel();
            for n in 0..EACH {
                let done = done.clone();
                let committed = move |proposed| done.send((n, index(&proposed))).unwrap();
                consensus.propose(term, command(task * 1000 + n), committed);
            }
            drop(done);
            let mut outcome = Vec::new();
            while let Some(next) = outcomes.recv().await {
                outcome.push(next);
            }
            outcome
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        let outcome = tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
        assert_eq!(outcome.len() as u64, EACH);
        assert!(
            outcome.is_sorted(),
            "outcomes and log follow the order of proposing"
        );
    }
    let applied = recorder.applied();
    assert_eq!(applied.len() as u64, TASKS * EACH);
    assert!(applied.is_sorted_by_key(|entry| entry.index));
    for task in 0..TASKS {
        let of_task = recorder.seqs().into_iter().filter(|seq| seq / 1000 == task);
        assert!(of_task.eq(task * 1000..task * 1000 + EACH), "task {task}");
    }
    let metrics = consensus.metrics();
    assert!(
        metrics.fsyncs < TASKS * EACH / 4,
        "fsyncs are shared: {metrics:?}"
    );
    assert_eq!((metrics.in_flight, metrics.in_flight_bytes), (0, 0));
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_of_another_term_is_refused_and_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let (consensus, recorder, old) = start(directory.path()).await;
    index(&propose(&consensus, old, command(1)).await);
    consensus.stop().await;

    let (consensus, recorded, new) = start(directory.path()).await;
    assert!(new > old, "a restart begins a new term: {old} -> {new}");
    assert!(!consensus.fence().holds(old));
    assert!(consensus.fence().holds(new));
    for stale in [Term(0), old, Term(new.0 + 1)] {
        let proposed = propose(&consensus, stale, command(2)).await;
        assert!(
            matches!(&proposed, Proposed::Refused(Refusal::NotLeader { .. })),
            "{stale}: {proposed:?}"
        );
    }
    index(&propose(&consensus, new, command(3)).await);
    assert_eq!((recorder.seqs(), recorded.seqs()), (vec![1], vec![1, 3]));
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_in_flight_is_refused_as_busy() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.in_flight_bytes_max = 20_000;
    let (consensus, recorder, term) = start_with(config).await;
    let (done, mut outcomes) = mpsc::unbounded_channel();
    for seq in 0..100 {
        let done = done.clone();
        consensus.propose(term, command(seq), move |outcome| {
            done.send((seq, outcome)).unwrap()
        });
    }
    drop(done);
    let mut committed = Vec::new();
    let mut busy = 0;
    while let Some((seq, outcome)) = outcomes.recv().await {
        match outcome {
            Proposed::Committed { .. } => committed.push(seq),
            Proposed::Refused(Refusal::Busy { bytes, .. }) => {
                assert!(bytes <= 20_000);
                busy += 1;
            }
            Proposed::Refused(_) | Proposed::Unknown => panic!("{seq}: {outcome:?}"),
        }
    }
    assert_eq!(committed.len() + busy, 100);
    assert!(
        committed.len() >= 4 && busy > 0,
        "{} committed, {busy} busy",
        committed.len()
    );
    assert_eq!(
        recorder.seqs(),
        committed,
        "a refused one is not in the log"
    );
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_applies_again_what_was_not_persisted_and_only_that() {
    let directory = tempfile::tempdir().unwrap();
    let (consensus, _, term) = start(directory.path()).await;
    for seq in 1..=3 {
        index(&propose(&consensus, term, command(seq)).await);
    }
    consensus.stop().await;

    let (consensus, recorder, term) = start(directory.path()).await;
    assert_eq!(recorder.seqs(), [1, 2, 3], "nothing was persisted");
    let durable = consensus.snapshot(DEADLINE).await.unwrap().unwrap();
    assert_eq!(*recorder.0.persists.lock().unwrap(), 1);
    let next = index(&propose(&consensus, term, command(4)).await);
    assert!(next > durable);
    consensus.stop().await;

    let (consensus, recorder, _) = start(directory.path()).await;
    assert_eq!(recorder.seqs(), [4], "the rest was persisted");
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_shrinks_after_a_snapshot_and_restarts_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.log_segment_bytes = 1 << 20;
    let (consensus, recorder, term) = start_with(config.clone()).await;
    for seq in 1..=20 {
        let large = Command::Transaction(transaction(seq, 64));
        index(&propose(&consensus, term, large).await);
    }
    let full = consensus.log_bytes();
    assert!(full > 4 << 20, "{full} bytes");
    let durable = consensus.snapshot(DEADLINE).await.unwrap();
    assert_eq!(durable, recorder.applied().last().map(|entry| entry.index));
    let metrics = consensus.metrics();
    assert_eq!((metrics.durable, metrics.purged), (durable, durable));
    let shrunk = consensus.log_bytes();
    assert!(shrunk < 2 << 20, "{full} -> {shrunk} bytes");
    consensus.stop().await;
    let on_disk: u64 = std::fs::read_dir(config.log_directory())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk < 2 << 20, "{on_disk} bytes on disk");

    let (consensus, recorder, term) = start_with(config).await;
    assert_eq!(recorder.seqs(), Vec::<u64>::new());
    let next = index(&propose(&consensus, term, command(21)).await);
    assert!(Some(next) > durable);
    assert_eq!(recorder.seqs(), [21]);
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persist_that_fails_keeps_the_log_and_may_be_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (consensus, recorder, term) = start(directory.path()).await;
    index(&propose(&consensus, term, command(1)).await);
    *recorder.0.fail_persist.lock().unwrap() = true;
    let refused = consensus.snapshot(DEADLINE).await;
    assert!(
        matches!(&refused, Err(WaitError::Persist { .. })),
        "{refused:?}"
    );
    assert_eq!(consensus.metrics().purged, None);
    *recorder.0.fail_persist.lock().unwrap() = false;
    let last = index(&propose(&consensus, term, command(2)).await);
    assert_eq!(consensus.snapshot(DEADLINE).await, Ok(Some(last)));
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fails_ends_consensus_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let (consensus, recorder, term) = start(directory.path()).await;
    *recorder.0.fail.lock().unwrap() = true;
    assert_eq!(
        propose(&consensus, term, command(1)).await,
        Proposed::Unknown
    );
    let failed = tokio::time::timeout(DEADLINE, consensus.failed())
        .await
        .unwrap();
    assert!(failed.to_string().contains("told to fail"), "{failed}");
    let refused = propose(&consensus, term, command(2)).await;
    assert_eq!(refused, Proposed::Refused(Refusal::Stopped));
    let mut leadership = consensus.leadership();
    let withdrawn = leadership.wait_for(|leadership| !leadership.leading);
    tokio::time::timeout(DEADLINE, withdrawn)
        .await
        .unwrap()
        .unwrap();
    consensus.stop().await;

    // The outcome was unknown, and it turns out to be committed.
    let (consensus, recorder, _) = start(directory.path()).await;
    assert_eq!(recorder.seqs(), [1]);
    consensus.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_node_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    start(directory.path()).await.0.stop().await;
    let mut config = config(directory.path());
    config.node = NodeId(2);
    let opened = Consensus::start(config, disk(), Arc::new(NoTransport), Recorder::default()).await;
    let error = opened.expect_err("another's log");
    assert!(
        matches!(error, ConsensusError::ForeignLog { .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_log_without_the_file_of_what_is_durable_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (consensus, _, term) = start(directory.path()).await;
    index(&propose(&consensus, term, command(1)).await);
    consensus.snapshot(DEADLINE).await.unwrap();
    consensus.stop().await;
    std::fs::remove_file(directory.path().join("applied")).unwrap();
    let config = config(directory.path());
    let opened = Consensus::start(config, disk(), Arc::new(NoTransport), Recorder::default()).await;
    let error = opened.expect_err("a gap");
    assert!(matches!(error, ConsensusError::Gap { .. }), "{error}");
}

/// A voter that begins a new log beside what was applied from the old has forgotten whom it voted for.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_gone_is_not_begun_anew_beside_what_was_applied() {
    let directory = tempfile::tempdir().unwrap();
    let (consensus, _, term) = start(directory.path()).await;
    index(&propose(&consensus, term, command(1)).await);
    consensus.snapshot(DEADLINE).await.unwrap();
    consensus.stop().await;
    std::fs::remove_dir_all(directory.path().join("log")).unwrap();
    std::fs::remove_file(directory.path().join("log.synced")).unwrap();
    for again in [false, true] {
        let config = config(directory.path());
        let opened =
            Consensus::start(config, disk(), Arc::new(NoTransport), Recorder::default()).await;
        let error = opened.expect_err("no log");
        let is_of_log = matches!(error, ConsensusError::Log { .. });
        assert!(is_of_log, "{error}, again: {again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_settings_are_named_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.log_segment_bytes = 1;
    config.election_max = config.election_min;
    let started =
        Consensus::start(config, disk(), Arc::new(NoTransport), Recorder::default()).await;
    let error = started.expect_err("unusable").to_string();
    for part in ["segments of 1 bytes", "election"] {
        assert!(error.to_lowercase().contains(part), "{part} in {error}");
    }
}
