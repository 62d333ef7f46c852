//! The log store below the handle: what was flushed is there after any crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::StreamExt;
use openraft::StorageError;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use tempfile::TempDir;
use tidemark_protocol::{Incarnation, NodeId, PAGE_SIZE, Term};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::harness::*;
use crate::consensus::applied::Applied;
use crate::consensus::cell::{Cell, CellEntry, CellVote, CommittedLeaderId, LogId};
use crate::consensus::failure::Failure;
use crate::consensus::log_store::{LogOptions, LogStore};
use crate::consensus::state_machine::{Persists, Signals, StateMachine};
use crate::consensus::*;

/// A store of its own, below the handle.
fn store(directory: &Path) -> LogStore {
    let options = LogOptions {
        directory: directory.to_owned(),
        node: NodeId(1),
        cache_bytes: 1 << 20,
        cache_entries: 100,
        segment_bytes: 1 << 20,
    };
    LogStore::open(&options, None, Fence::default(), Failure::new()).unwrap()
}

fn at(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn entry(term: u64, index: u64) -> CellEntry {
    CellEntry {
        log_id: at(term, index),
        payload: EntryPayload::Normal(command(index).into()),
    }
}

async fn append(store: &mut LogStore, entries: Vec<CellEntry>) {
    let (flushed, wait) = Cell::oneshot();
    store
        .append(entries, IOFlushed::signal(flushed))
        .await
        .unwrap();
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// openraft's own checks of a log store and a state machine.
#[test]
fn openraft_suite_passes() {
    struct Builder;

    impl StoreBuilder<Cell, LogStore, StateMachine, TempDir> for Builder {
        async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Cell>> {
            let directory = tempfile::tempdir().unwrap();
            let state_machine = StateMachine::new(
                NodeId(1),
                Recorder::default(),
                Applied::default(),
                directory.path().join("applied"),
                disk(),
                Signals {
                    applied_term: watch::Sender::new(Term(0)),
                    persists: watch::Sender::new(Persists::default()),
                    stopping: CancellationToken::new(),
                    failure: Failure::new(),
                },
            );
            let store = store(&directory.path().join("log"));
            Ok((directory, store, state_machine))
        }
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}

/// A crash leaves any prefix of the last write. All that was flushed before it must be there.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_at_any_byte_of_its_last_record_opens_without_that_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let vote = CellVote::new_committed(2, 1);
    let segment = || {
        let files = std::fs::read_dir(&path)
            .unwrap()
            .map(|file| file.unwrap().path());
        let mut segments: Vec<_> = files
            .filter(|file| file.extension().is_some_and(|e| e == "wal"))
            .collect();
        assert_eq!(segments.len(), 1);
        segments.remove(0)
    };
    let mut log = store(&path);
    log.save_vote(&vote).await.unwrap();
    append(&mut log, vec![entry(1, 0), entry(1, 1)]).await;
    let before = std::fs::metadata(segment()).unwrap().len();
    append(&mut log, vec![entry(2, 2)]).await;
    log.close();
    let whole = std::fs::read(segment()).unwrap();
    let before = usize::try_from(before).unwrap();
    assert!(whole.len() > before + PAGE_SIZE);

    let cuts = (before..whole.len()).filter(|cut| {
        // Every byte of the headers and of the end; a sample of the page between.
        cut - before < 200 || whole.len() - cut < 32 || cut % 509 == 0
    });
    for cut in cuts {
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(
            copy.path().join(segment().file_name().unwrap()),
            &whole[..cut],
        )
        .unwrap();
        let mut log = store(copy.path());
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(at(1, 1)), "cut at {cut}");
        assert_eq!(log.read_vote().await.unwrap(), Some(vote), "cut at {cut}");
        let entries = log.try_get_log_entries(0..10).await.unwrap();
        assert_eq!(entries, [entry(1, 0), entry(1, 1)], "cut at {cut}");
        // It goes on from there, and keeps what it gets.
        append(&mut log, vec![entry(3, 2)]).await;
        log.close();
        let mut log = store(copy.path());
        let entries = log.try_get_log_entries(0..10).await.unwrap();
        assert_eq!(
            entries,
            [entry(1, 0), entry(1, 1), entry(3, 2)],
            "cut at {cut}"
        );
        log.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_byte_in_the_middle_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = store(&directory.path().join("log"));
    append(&mut log, vec![entry(1, 0)]).await;
    append(&mut log, vec![entry(1, 1)]).await;
    log.close();
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "wal");
    let files = std::fs::read_dir(directory.path().join("log"))
        .unwrap()
        .map(|file| file.unwrap().path());
    let segment = files.into_iter().find(is_segment).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() - PAGE_SIZE - 2000;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let options = LogOptions {
        directory: directory.path().join("log"),
        node: NodeId(1),
        cache_bytes: 0,
        cache_entries: 0,
        segment_bytes: 1 << 20,
    };
    let opened = LogStore::open(&options, None, Fence::default(), Failure::new());
    assert!(
        matches!(opened, Err(ConsensusError::Log { .. })),
        "{opened:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_bounded_in_bytes_and_never_empty() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = store(&directory.path().join("log"));
    let large = |index| CellEntry {
        log_id: at(1, index),
        payload: EntryPayload::Normal(Command::Transaction(transaction(index, 300)).into()),
    };
    let huge = CellEntry {
        log_id: at(1, 8),
        payload: EntryPayload::Normal(Command::Transaction(transaction(8, 1500)).into()),
    };
    let mut entries: Vec<_> = (0..8).map(large).collect();
    entries.push(huge);
    append(&mut log, entries.clone()).await;
    assert_eq!(
        log.limited_get_log_entries(0, 9).await.unwrap(),
        entries[..3]
    );
    assert_eq!(
        log.limited_get_log_entries(8, 9).await.unwrap(),
        entries[8..]
    );
    assert_eq!(log.limited_get_log_entries(9, 9).await.unwrap(), []);
    assert_eq!(log.try_get_log_entries(0..9).await.unwrap(), entries);
    let streamed: Vec<_> = log.entries_stream(1..=8).await.collect().await;
    let streamed: Vec<_> = streamed.into_iter().map(Result::unwrap).collect();
    assert_eq!(streamed, entries[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_closes_the_fence_and_survives() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions {
        directory: directory.path().join("log"),
        node: NodeId(1),
        cache_bytes: 0,
        cache_entries: 0,
        segment_bytes: 1 << 20,
    };
    let fence = Fence::default();
    let mut log = LogStore::open(&options, None, fence.clone(), Failure::new()).unwrap();
    assert!(fence.holds(Term(4)));
    log.save_vote(&CellVote::new(5, 2)).await.unwrap();
    assert!(!fence.holds(Term(4)) && fence.holds(Term(5)));
    log.close();
    let reopened = Fence::default();
    let mut log = LogStore::open(&options, None, reopened.clone(), Failure::new()).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(CellVote::new(5, 2)));
    assert_eq!(reopened.newest(), Term(5));
}

/// The log of version 1 as a file: written the same today, and read for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_golden_log_of_version_1_is_read_and_written_the_same() {
    const SEGMENT: &str = "r-00_000_000_000_000_000_000.wal";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/log-1.wal");
    let vote = CellVote::new_committed(2, 1);
    let golden_member = |id| Member {
        address: format!("http://voter-{id}"),
        incarnation: Incarnation(u128::from(id) << 64 | 0xfeed),
    };
    let joint = openraft::Membership::new(
        vec![BTreeSet::from([1]), BTreeSet::from([1, 2])],
        BTreeMap::from([1, 2, 3].map(|id| (id, golden_member(id)))),
    );
    let entries = [
        CellEntry {
            log_id: at(1, 0),
            payload: EntryPayload::Membership(joint.unwrap()),
        },
        CellEntry {
            log_id: at(1, 1),
            payload: EntryPayload::Blank,
        },
        entry(2, 2),
    ];

    let directory = tempfile::tempdir().unwrap();
    let mut log = store(&directory.path().join("log"));
    append(&mut log, entries[..2].to_vec()).await;
    append(&mut log, vec![entry(1, 2), entry(1, 3)]).await;
    log.save_vote(&vote).await.unwrap();
    log.truncate_after(Some(at(1, 1))).await.unwrap();
    append(&mut log, entries[2..].to_vec()).await;
    log.save_committed(Some(at(2, 2))).await.unwrap();
    log.purge(at(1, 0)).await.unwrap();
    log.close();
    let written = std::fs::read(directory.path().join("log").join(SEGMENT)).unwrap();
    assert!(
        written == std::fs::read(&golden).unwrap(),
        "the log is written differently"
    );

    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("log")).unwrap();
    std::fs::copy(&golden, directory.path().join("log").join(SEGMENT)).unwrap();
    let mut log = store(&directory.path().join("log"));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(at(2, 2)));
    assert_eq!(log.purged().unwrap(), Some(at(1, 0)));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[1..]);
}

/// A follower's stream that is about to end may still ask.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_purged_entry_is_not_read_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = store(&directory.path().join("log"));
    append(&mut log, (0..6).map(|index| entry(1, index)).collect()).await;
    log.purge(at(1, 2)).await.unwrap();
    assert_eq!(log.limited_get_log_entries(1, 6).await.unwrap(), []);
    let rest = log.limited_get_log_entries(3, 6).await.unwrap();
    assert_eq!(rest, (3..6).map(|i| entry(1, i)).collect::<Vec<_>>());
    let applied: Vec<_> = log.entries_stream(1..6).await.collect().await;
    assert!(matches!(&applied[..], [Err(_)]), "{applied:?}");
}
