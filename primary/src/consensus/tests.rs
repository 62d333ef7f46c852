//! What is at stake: an acknowledged write is in the log of this node, in order, after any crash; and a
//! refused one is in nobody's.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use openraft::StorageError;
use openraft::impls::BasicNode;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use tempfile::TempDir;
use tidemark_protocol::{
    DatabaseId, Epoch, NodeId, PAGE_SIZE, PageNo, Position, Seq, StateChecksum, Term, Transaction,
    TransactionBuilder, TransactionHeader,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::applied::Applied;
use super::cell::{Cell, CellEntry, CellVote, CommittedLeaderId, LogId};
use super::failure::Failure;
use super::log_store::{LogOptions, LogStore};
use super::state_machine::StateMachine;
use super::*;

/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A transaction from `seq` to the next, of `pages` pages.
pub(super) fn transaction(seq: u64, pages: u32) -> Transaction {
    let mut builder = TransactionBuilder::new();
    for page in 1..=pages {
        let byte = u8::try_from((seq + u64::from(page)) % 251).unwrap();
        builder.push(PageNo(page), &[byte; PAGE_SIZE]);
    }
    let position = |seq| Position {
        epoch: Epoch::FIRST,
        seq: Seq(seq),
        checksum: StateChecksum(seq),
    };
    let header = TransactionHeader {
        database: DatabaseId::CATALOGUE,
        base: position(seq),
        next: position(seq + 1),
        request: None,
        proposed_at_ms: 0,
        pages_after: pages,
    };
    builder.finish(header, b"").unwrap()
}

fn command(seq: u64) -> Command {
    Command::Transaction(transaction(seq, 1))
}

/// The sequence number that [`command`] was given.
fn seq_of(command: &Command) -> u64 {
    let Command::Transaction(transaction) = command;
    transaction.header().base.seq.0
}

/// A machine that remembers what it was given.
#[derive(Clone, Default)]
struct Recorder(Arc<Recorded>);

#[derive(Default)]
struct Recorded {
    applied: Mutex<Vec<Committed>>,
    persists: Mutex<u64>,
    fail: Mutex<bool>,
    fail_persist: Mutex<bool>,
}

impl Recorder {
    fn applied(&self) -> Vec<Committed> {
        self.0.applied.lock().unwrap().clone()
    }

    fn seqs(&self) -> Vec<u64> {
        self.applied()
            .iter()
            .map(|entry| seq_of(&entry.command))
            .collect()
    }
}

impl Machine for Recorder {
    async fn apply(&mut self, entries: Vec<Committed>) -> Result<(), MachineError> {
        if *self.0.fail.lock().unwrap() {
            return Err(MachineError::new("apply transaction", "told to fail"));
        }
        self.0.applied.lock().unwrap().extend(entries);
        Ok(())
    }

    fn persist(&mut self) -> Persisting {
        *self.0.persists.lock().unwrap() += 1;
        if *self.0.fail_persist.lock().unwrap() {
            let refused = MachineError::new("persist databases", "told to fail");
            return std::future::ready(Err(refused)).boxed();
        }
        let manifest = format!("{} applied", self.applied().len());
        std::future::ready(Ok(Bytes::from(manifest))).boxed()
    }

    async fn install(&mut self, _manifest: Bytes) -> Result<(), MachineError> {
        Ok(())
    }
}

fn config(directory: &Path) -> ConsensusConfig {
    ConsensusConfig::new(
        directory.to_owned(),
        NodeId(1),
        "http://one:7443".to_owned(),
    )
}

async fn start(directory: &Path) -> (Consensus, Recorder, Term) {
    start_with(config(directory)).await
}

async fn start_with(config: ConsensusConfig) -> (Consensus, Recorder, Term) {
    let recorder = Recorder::default();
    let consensus = Consensus::start(config, Arc::new(NoTransport), recorder.clone())
        .await
        .unwrap();
    let term = leading(&consensus).await;
    (consensus, recorder, term)
}

/// Waits until it leads; answers the term.
async fn leading(consensus: &Consensus) -> Term {
    let mut leadership = consensus.leadership();
    let leading = leadership.wait_for(|leadership| leadership.leading);
    let led = tokio::time::timeout(DEADLINE, leading).await.unwrap();
    led.unwrap().term
}

async fn propose(consensus: &Consensus, term: Term, command: Command) -> Proposed {
    let (done, outcome) = oneshot::channel();
    consensus.propose(term, command, move |proposed| done.send(proposed).unwrap());
    tokio::time::timeout(DEADLINE, outcome)
        .await
        .unwrap()
        .unwrap()
}

#[track_caller]
fn index(proposed: &Proposed) -> LogIndex {
    match proposed {
        Proposed::Committed { index } => *index,
        Proposed::Refused(_) | Proposed::Unknown => panic!("{proposed:?}"),
    }
}

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
    config.voters = vec![(NodeId(2), "http://two:7443".to_owned())];
    let opened = Consensus::start(config, Arc::new(NoTransport), Recorder::default()).await;
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
    let opened = Consensus::start(config, Arc::new(NoTransport), Recorder::default()).await;
    let error = opened.expect_err("a gap");
    assert!(matches!(error, ConsensusError::Gap { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_settings_are_named_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.voters = vec![(NodeId(9), String::new())];
    config.log_segment_bytes = 1;
    config.election_max = config.election_min;
    let started = Consensus::start(config, Arc::new(NoTransport), Recorder::default()).await;
    let error = started.expect_err("unusable").to_string();
    for part in ["first voters", "segments of 1 bytes", "election"] {
        assert!(error.to_lowercase().contains(part), "{part} in {error}");
    }
}

/// A store of its own, below the handle.
fn store(directory: &Path) -> LogStore {
    let options = LogOptions {
        directory: directory.to_owned(),
        node: NodeId(1),
        cache_bytes: 1 << 20,
        cache_entries: 100,
        segment_bytes: 1 << 20,
    };
    LogStore::open(&options, Fence::default(), Failure::new()).unwrap()
}

fn at(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn entry(term: u64, index: u64) -> CellEntry {
    CellEntry {
        log_id: at(term, index),
        payload: EntryPayload::Normal(command(index)),
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
                Recorder::default(),
                Applied::default(),
                directory.path().join("applied"),
                watch::Sender::new(Term(0)),
                watch::Sender::new(Arc::from("")),
                Failure::new(),
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
    let mut log = store(directory.path());
    append(&mut log, vec![entry(1, 0)]).await;
    append(&mut log, vec![entry(1, 1)]).await;
    log.close();
    let is_segment = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "wal");
    let files = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().path());
    let segment = files.into_iter().find(is_segment).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() - PAGE_SIZE - 2000;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let options = LogOptions {
        directory: directory.path().to_owned(),
        node: NodeId(1),
        cache_bytes: 0,
        cache_entries: 0,
        segment_bytes: 1 << 20,
    };
    let opened = LogStore::open(&options, Fence::default(), Failure::new());
    assert!(
        matches!(opened, Err(ConsensusError::Log { .. })),
        "{opened:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_bounded_in_bytes_and_never_empty() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = store(directory.path());
    let large = |index| CellEntry {
        log_id: at(1, index),
        payload: EntryPayload::Normal(Command::Transaction(transaction(index, 300))),
    };
    let huge = CellEntry {
        log_id: at(1, 8),
        payload: EntryPayload::Normal(Command::Transaction(transaction(8, 1500))),
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
        directory: directory.path().to_owned(),
        node: NodeId(1),
        cache_bytes: 0,
        cache_entries: 0,
        segment_bytes: 1 << 20,
    };
    let fence = Fence::default();
    let mut log = LogStore::open(&options, fence.clone(), Failure::new()).unwrap();
    assert!(fence.holds(Term(4)));
    log.save_vote(&CellVote::new(5, 2)).await.unwrap();
    assert!(!fence.holds(Term(4)) && fence.holds(Term(5)));
    log.close();
    let reopened = Fence::default();
    let mut log = LogStore::open(&options, reopened.clone(), Failure::new()).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(CellVote::new(5, 2)));
    assert_eq!(reopened.newest(), Term(5));
}

/// Voters in one process, and wires between them that can be cut.
#[derive(Clone, Default)]
struct Wires(Arc<Wired>);

#[derive(Default)]
struct Wired {
    voters: Mutex<BTreeMap<NodeId, Consensus>>,
    cut_off: Mutex<BTreeSet<NodeId>>,
}

/// One voter's end of the wires.
struct End {
    node: NodeId,
    wires: Wires,
}

impl Wires {
    fn reach(&self, from: NodeId, to: NodeId) -> Option<Consensus> {
        let cut_off = self.0.cut_off.lock().unwrap();
        if cut_off.contains(&from) || cut_off.contains(&to) {
            return None;
        }
        self.0.voters.lock().unwrap().get(&to).cloned()
    }

    fn voter(&self, node: NodeId) -> Consensus {
        self.0.voters.lock().unwrap()[&node].clone()
    }

    fn cut_off(&self, node: NodeId) {
        self.0.cut_off.lock().unwrap().insert(node);
    }

    fn heal(&self) {
        self.0.cut_off.lock().unwrap().clear();
    }

    /// Waits until one that is not cut off leads.
    async fn leader(&self) -> (NodeId, Consensus, Term) {
        let found = wait_until(|| {
            // In the order of `reach`.
            let cut_off = self.0.cut_off.lock().unwrap();
            let voters = self.0.voters.lock().unwrap();
            let reachable = voters.iter().filter(|(node, _)| !cut_off.contains(*node));
            let leads = reachable.filter(|(_, voter)| voter.leadership().borrow().leading);
            leads
                .map(|(node, voter)| (*node, voter.clone(), voter.leadership().borrow().term))
                .max_by_key(|(_, _, term)| *term)
        });
        found.await
    }
}

impl Transport for End {
    fn call(
        &self,
        node: NodeId,
        address: &str,
        request: Bytes,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (from, wires, address) = (self.node, self.wires.clone(), address.to_owned());
        Box::pin(async move {
            let lost = || TransportError {
                node,
                address: address.clone(),
                reason: "cut".to_owned(),
            };
            let voter = wires.reach(from, node).ok_or_else(lost)?;
            let answer = voter.answer(&request).await.map_err(|_stopped| lost())?;
            wires.reach(node, from).ok_or_else(lost)?;
            Ok(answer)
        })
    }
}

async fn wait_until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(met) = condition() {
                return met;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .expect("the condition is met in time")
}

async fn cell_of_three(root: &Path) -> (Wires, BTreeMap<NodeId, Recorder>) {
    let nodes = [1, 2, 3].map(NodeId);
    let wires = Wires::default();
    let mut recorders = BTreeMap::new();
    for node in nodes {
        let mut config = config(&root.join(node.to_string()));
        config.node = node;
        config.voters = nodes
            .map(|node| (node, format!("http://voter-{node}")))
            .to_vec();
        config.heartbeat = Duration::from_millis(40);
        config.election_min = Duration::from_millis(200);
        config.election_max = Duration::from_millis(400);
        config.log_entries_kept = 5;
        let recorder = Recorder::default();
        let end = Arc::new(End {
            node,
            wires: wires.clone(),
        });
        let voter = Consensus::start(config, end, recorder.clone())
            .await
            .unwrap();
        wires.0.voters.lock().unwrap().insert(node, voter);
        recorders.insert(node, recorder);
    }
    (wires, recorders)
}

async fn stop(wires: &Wires) {
    let voters = std::mem::take(&mut *wires.0.voters.lock().unwrap());
    for voter in voters.into_values() {
        voter.stop().await;
    }
}

/// Proposes to whoever leads until it is committed. Never after an unknown outcome.
async fn commit(wires: &Wires, seq: u64) -> LogIndex {
    loop {
        let (_, leader, term) = wires.leader().await;
        match propose(&leader, term, command(seq)).await {
            Proposed::Committed { index } => return index,
            Proposed::Refused(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Proposed::Unknown => panic!("the leader was lost"),
        }
    }
}

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

/// The log of version 1 as a file: written the same today, and read for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_golden_log_of_version_1_is_read_and_written_the_same() {
    const SEGMENT: &str = "r-00_000_000_000_000_000_000.wal";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/log-1.wal");
    let vote = CellVote::new_committed(2, 1);
    let joint = openraft::Membership::new(
        vec![BTreeSet::from([1]), BTreeSet::from([1, 2])],
        BTreeMap::from([1, 2, 3].map(|id| (id, BasicNode::new(format!("http://voter-{id}"))))),
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
    let mut log = store(directory.path());
    append(&mut log, entries[..2].to_vec()).await;
    append(&mut log, vec![entry(1, 2), entry(1, 3)]).await;
    log.save_vote(&vote).await.unwrap();
    log.truncate_after(Some(at(1, 1))).await.unwrap();
    append(&mut log, entries[2..].to_vec()).await;
    log.save_committed(Some(at(2, 2))).await.unwrap();
    log.purge(at(1, 0)).await.unwrap();
    log.close();
    let written = std::fs::read(directory.path().join(SEGMENT)).unwrap();
    assert!(
        written == std::fs::read(&golden).unwrap(),
        "the log is written differently"
    );

    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(&golden, directory.path().join(SEGMENT)).unwrap();
    let mut log = store(directory.path());
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(at(2, 2)));
    assert_eq!(log.purged().unwrap(), Some(at(1, 0)));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[1..]);
}
