//! The log store below the handle: what was flushed is there after any crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use openraft::StorageError;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use tempfile::TempDir;
use tidemark_engine::{Finding, Severity};
use tidemark_protocol::{Incarnation, NodeId, PAGE_SIZE, Term};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::harness::*;
use crate::consensus::applied::Applied;
use crate::consensus::cell::{Cell, CellEntry, CellVote, CommittedLeaderId, LogId};
use crate::consensus::failure::Failure;
use crate::consensus::log_store::{LogOptions, LogStore};
use crate::consensus::state_machine::{Persists, Signals, StateMachine};
use crate::consensus::synced::Synced;
use crate::consensus::*;

/// A store of its own, below the handle.
fn store(directory: &Path) -> LogStore {
    open(directory).unwrap()
}

fn open(directory: &Path) -> Result<LogStore, ConsensusError> {
    let options = LogOptions {
        directory: directory.to_owned(),
        node: NodeId(1),
        cache_bytes: 1 << 20,
        cache_entries: 100,
        segment_bytes: 1 << 20,
        is_used: false,
    };
    LogStore::open(&options, None, Fence::default(), Failure::new())
}

/// The segments of a log, oldest first.
fn segments(log: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(log).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "wal");
    let mut segments: Vec<_> = files.filter(is_segment).collect();
    segments.sort_unstable();
    segments
}

/// Entries of a quarter of a segment.
fn large(index: u64) -> CellEntry {
    CellEntry {
        log_id: at(1, index),
        payload: EntryPayload::Normal(Command::Transaction(transaction(index, 64)).into()),
    }
}

/// The directory of a node, with a log of several segments from the third entry on, and of a vote at its end.
async fn filled() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let mut log = store(&home.path().join("log"));
    for index in 0..12 {
        append(&mut log, vec![large(index)]).await;
    }
    log.purge(at(1, 1)).await.unwrap();
    log.save_vote(&CellVote::new(7, 2)).await.unwrap();
    log.close();
    assert!(segments(&home.path().join("log")).len() > 2);
    let applied = Applied {
        last: Some(at(1, 1)),
        ..Applied::default()
    };
    applied.write(&home.path().join("applied")).unwrap();
    home
}

/// Damage that is told of a log that does not run.
fn damage(home: &Path) -> Vec<Finding> {
    let mut findings = inspect_log(home, NodeId(1)).findings;
    findings.retain(|finding| finding.severity == Severity::Damage);
    findings
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
        let mut segments = segments(&path);
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
        let home = tempfile::tempdir().unwrap();
        let copy = home.path().join("log");
        std::fs::create_dir(&copy).unwrap();
        std::fs::write(copy.join(segment().file_name().unwrap()), &whole[..cut]).unwrap();
        let mut log = store(&copy);
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(at(1, 1)), "cut at {cut}");
        assert_eq!(log.read_vote().await.unwrap(), Some(vote), "cut at {cut}");
        let entries = log.try_get_log_entries(0..10).await.unwrap();
        assert_eq!(entries, [entry(1, 0), entry(1, 1)], "cut at {cut}");
        // It goes on from there, and keeps what it gets.
        append(&mut log, vec![entry(3, 2)]).await;
        log.close();
        let mut log = store(&copy);
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
    let segment = segments(&directory.path().join("log")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() - PAGE_SIZE - 2000;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let opened = open(&directory.path().join("log"));
    assert!(
        matches!(opened, Err(ConsensusError::Log { .. })),
        "{opened:?}"
    );
}

/// A voter that forgot whom it voted for may vote twice in a term: rot is no write that was broken off.
#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_changes_in_the_last_vote_or_the_length_of_the_last_entry_is_not_opened() {
    let home = filled().await;
    let log = home.path().join("log");
    let last = segments(&log).pop().unwrap();
    let good = std::fs::read(&last).unwrap();
    // Type, vote, CRC.
    let vote = good.len() - (4 + 17 + 8);
    for byte in vote..good.len() {
        let mut rotten = good.clone();
        rotten[byte] ^= 1 << (byte % 8);
        std::fs::write(&last, rotten).unwrap();
        assert!(!damage(home.path()).is_empty(), "byte {byte} of the vote");
        assert!(open(&log).is_err(), "byte {byte} of the vote");
    }
    std::fs::write(&last, &good).unwrap();
    assert_eq!(damage(home.path()), []);

    let mut opened = store(&log);
    append(&mut opened, vec![entry(7, 12)]).await;
    opened.close();
    let good = std::fs::read(&last).unwrap();
    // Type, log id, kind of the payload: then its length.
    let length = vote + (4 + 17 + 8) + (4 + 16 + 1);
    let mut rotten = good.clone();
    rotten[length + 2] ^= 1;
    std::fs::write(&last, rotten).unwrap();
    assert!(!damage(home.path()).is_empty(), "a length behind the end");
    assert!(open(&log).is_err(), "a length behind the end");
    std::fs::write(&last, &good).unwrap();
    assert_eq!(
        store(&log)
            .read_vote()
            .await
            .unwrap()
            .unwrap()
            .leader_id
            .term,
        7
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_lost_or_lacks_its_end_or_its_beginning_is_not_opened_and_told() {
    type Lose = fn(&Path);
    let lose: [(&str, Lose); 6] = [
        ("all", |log| std::fs::remove_dir_all(log).unwrap()),
        ("its segments", |log| {
            for segment in segments(log) {
                std::fs::remove_file(segment).unwrap();
            }
        }),
        ("its last segment", |log| {
            std::fs::remove_file(segments(log).pop().unwrap()).unwrap();
        }),
        ("its last record", |log| {
            let last = segments(log).pop().unwrap();
            let bytes = std::fs::read(&last).unwrap();
            std::fs::write(&last, &bytes[..bytes.len() - (4 + 17 + 8)]).unwrap();
        }),
        ("its end within a record", |log| {
            let last = segments(log).pop().unwrap();
            let bytes = std::fs::read(&last).unwrap();
            std::fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();
        }),
        ("its first segment", |log| {
            std::fs::remove_file(&segments(log)[0]).unwrap();
        }),
    ];
    for (what, lose) in lose {
        let home = filled().await;
        assert_eq!(damage(home.path()), []);
        lose(&home.path().join("log"));
        assert!(!damage(home.path()).is_empty(), "lost {what}");
        let opened = open(&home.path().join("log"));
        assert!(opened.is_err(), "lost {what}: {opened:?}");
        assert!(!damage(home.path()).is_empty(), "lost {what}, then started");
    }
    let home = filled().await;
    std::fs::remove_file(home.path().join("log.synced")).unwrap();
    std::fs::remove_dir_all(home.path().join("log")).unwrap();
    assert!(!damage(home.path()).is_empty(), "entries were applied");
    std::fs::remove_file(home.path().join("applied")).unwrap();
    assert_eq!(damage(home.path()), [], "nothing tells of a log");
}

/// The process is killed between the last write to a segment and the first to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_begun_behind_one_that_is_torn_is_unfinished() {
    let home = filled().await;
    let log = home.path().join("log");
    let last = segments(&log).pop().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    let name = last.file_name().unwrap().to_string_lossy();
    let begins = raft_log::chunked_wal::Config::parse_chunk_file_name(&name).unwrap();
    let end = begins + bytes.len() as u64;
    let next = raft_log::chunked_wal::Config::chunk_file_name(raft_log::ChunkId(end + 1000));
    let torn = [[0; 512], [7; 512]].concat();
    let vote = bytes.len() - (4 + 17 + 8);
    for (synced, begun) in [
        (true, &[][..]),
        (false, &[]),
        (true, &torn),
        (false, &[0; 99]),
    ] {
        std::fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();
        std::fs::write(log.join(&next), begun).unwrap();
        if synced {
            drop(Synced::begin(&log, begins + vote as u64).unwrap());
        } else {
            std::fs::remove_file(home.path().join("log.synced")).unwrap();
        }
        let findings = inspect_log(home.path(), NodeId(1)).findings;
        let severities: Vec<_> = findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Unfinished; 2], "{findings:?}");
        let mut opened = store(&log);
        assert_eq!(opened.read_vote().await.unwrap(), None);
        assert_eq!(opened.try_get_log_entries(2..12).await.unwrap().len(), 10);
        opened.close();
        assert_eq!(inspect_log(home.path(), NodeId(1)).findings, []);
        for segment in segments(&log) {
            if segment > last {
                std::fs::remove_file(segment).unwrap();
            }
        }
    }
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
        is_used: false,
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
