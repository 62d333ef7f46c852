//! What is at stake: an acknowledged write is in the log of this node, in order, after any crash; and a
//! refused one is in nobody's.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::StorageError;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
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
    let term = tokio::time::timeout(DEADLINE, leading)
        .await
        .unwrap()
        .unwrap()
        .term;
    term
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
