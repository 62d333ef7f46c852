//! A machine that remembers, and a cell of one around it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::raft::VoteRequest;
use tidemark_engine::Threads;
use tidemark_protocol::{
    DatabaseId, Epoch, Incarnation, NodeId, PAGE_SIZE, PageNo, Position, Seq, StateChecksum, Term,
    Transaction, TransactionBuilder, TransactionHeader,
};
use tokio::sync::{oneshot, watch};

use crate::consensus::cell::{CellVote, CommittedLeaderId, LogId};
use crate::consensus::wire::{Answer, Request};
use crate::consensus::*;

/// Longest that anything here may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A transaction from `seq` to the next, of `pages` pages.
pub(in crate::consensus) fn transaction(seq: u64, pages: u32) -> Transaction {
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

pub(super) fn command(seq: u64) -> Command {
    Command::Transaction(transaction(seq, 1))
}

/// The sequence number that [`command`] was given.
pub(super) fn seq_of(command: &Command) -> u64 {
    let Command::Transaction(transaction) = command;
    transaction.header().base.seq.0
}

/// A machine that remembers what it was given.
#[derive(Clone, Default)]
pub(super) struct Recorder(pub(super) Arc<Recorded>);

#[derive(Default)]
pub(super) struct Recorded {
    pub(super) applied: Mutex<Vec<Committed>>,
    pub(super) persists: Mutex<u64>,
    pub(super) fail: Mutex<bool>,
    pub(super) fail_persist: Mutex<bool>,
    /// Where states were installed from, or would have been.
    pub(super) installs: Mutex<Vec<String>>,
    pub(super) fail_install: Mutex<bool>,
    /// Installing takes until this is over.
    pub(super) hold_install: watch::Sender<bool>,
}

impl Recorder {
    pub(super) fn applied(&self) -> Vec<Committed> {
        self.0.applied.lock().unwrap().clone()
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
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
        // All of it: index, term and number of each entry.
        let line = |entry: Committed| {
            let seq = seq_of(&entry.command);
            format!("{} {} {seq}\n", entry.index, entry.term.0)
        };
        let manifest: String = self.applied().into_iter().map(line).collect();
        std::future::ready(Ok(Bytes::from(manifest))).boxed()
    }

    async fn install(&mut self, manifest: Bytes, source: &str) -> Result<(), MachineError> {
        self.0.installs.lock().unwrap().push(source.to_owned());
        let mut held = self.0.hold_install.subscribe();
        held.wait_for(|held| !held).await.unwrap();
        if *self.0.fail_install.lock().unwrap() {
            return Err(MachineError::new("fetch databases", "told to fail"));
        }
        let manifest = String::from_utf8(manifest.into()).unwrap();
        let entry = |line: &str| {
            let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
            Committed {
                index: LogIndex(numbers.next().unwrap()),
                term: Term(numbers.next().unwrap()),
                command: command(numbers.next().unwrap()),
            }
        };
        *self.0.applied.lock().unwrap() = manifest.lines().map(entry).collect();
        Ok(())
    }
}

pub(super) fn config(directory: &Path) -> ConsensusConfig {
    ConsensusConfig::new(directory.to_owned(), NodeId(1), incarnation(NodeId(1)))
}

/// Files as they are, worked on by this runtime's threads.
pub(super) fn disk() -> Disk {
    struct Blocking;
    impl Threads for Blocking {
        fn run(&self, job: Box<dyn FnOnce() + Send>) {
            drop(tokio::task::spawn_blocking(job));
        }
    }
    Disk {
        threads: Arc::new(Blocking),
        slow: None,
    }
}

/// The incarnation of a voter whose disk was never lost.
pub(super) fn incarnation(node: NodeId) -> Incarnation {
    Incarnation(u128::from(node.0) << 64 | 7)
}

/// A voter as the membership has it.
pub(super) fn member(node: NodeId) -> Member {
    Member {
        address: format!("http://voter-{node}"),
        incarnation: incarnation(node),
    }
}

pub(super) async fn start(directory: &Path) -> (Consensus, Recorder, Term) {
    start_with(config(directory)).await
}

pub(super) async fn start_with(config: ConsensusConfig) -> (Consensus, Recorder, Term) {
    let recorder = Recorder::default();
    let node = config.node;
    let consensus = Consensus::start(config, disk(), Arc::new(NoTransport), recorder.clone())
        .await
        .unwrap();
    let members = vec![(node, member(node))];
    consensus.initialize(members).await.unwrap();
    let term = leading(&consensus).await;
    (consensus, recorder, term)
}

/// Waits until it leads; answers the term.
pub(super) async fn leading(consensus: &Consensus) -> Term {
    let mut leadership = consensus.leadership();
    let leading = leadership.wait_for(|leadership| leadership.leading);
    let led = tokio::time::timeout(DEADLINE, leading).await.unwrap();
    led.unwrap().term
}

pub(super) async fn propose(consensus: &Consensus, term: Term, command: Command) -> Proposed {
    let (done, outcome) = oneshot::channel();
    consensus.propose(term, command, move |proposed| done.send(proposed).unwrap());
    tokio::time::timeout(DEADLINE, outcome)
        .await
        .unwrap()
        .unwrap()
}

/// Nothing of an earlier term is let in any more, as if a newer one had been heard of.
pub(crate) fn close_fence(consensus: &Consensus, newer: Term) {
    consensus.fence().observe(newer);
}

/// Lets the only voter of a cell give its vote to another candidate in `term`. It goes on in a later one.
pub(crate) async fn depose(consensus: &Consensus, term: Term) {
    let log_id = |index| LogId::new(CommittedLeaderId::new(term.0), index);
    let request = Request::Vote(VoteRequest {
        vote: CellVote::new(term.0, 77),
        last_log_id: Some(log_id(u64::MAX / 2)),
        leadership_transfer: true,
    });
    let answer = consensus.answer(&request.encode().unwrap()).await.unwrap();
    let answer = Answer::decode(&answer).unwrap();
    let Answer::Vote(vote) = answer else {
        panic!("{answer:?}");
    };
    assert!(vote.vote_granted, "{vote:?}");
}

#[track_caller]
pub(super) fn index(proposed: &Proposed) -> LogIndex {
    match proposed {
        Proposed::Committed { index } => *index,
        Proposed::Refused(_) | Proposed::Unknown => panic!("{proposed:?}"),
    }
}

pub(crate) async fn wait_until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
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
