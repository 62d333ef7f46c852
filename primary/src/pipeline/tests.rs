//! What cannot be provoked from outside: a leadership that ends at a certain moment, and a log with what only a
//! deposed leader would write.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tidemark_engine::Threads;
use tidemark_net::TcpConnector;
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::node::CreateDatabase;
use tidemark_protocol::render::{RowShape, ValueForm};
use tidemark_protocol::{
    DatabaseId, Execute, Executed, FailureKind, Freshness, Incarnation, Node, NodeId, OnMiss,
    Position, ReadContract, Rules, Seq, Statement, Term, Transaction,
};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Line;
use crate::cell::{Environment, Primary, PrimaryError};
use crate::config::{COMMITTED_BYTES_MAX, PrimaryConfig};
use crate::consensus::{Command, Proposed, close_fence, depose, wait_until};
use crate::ship::recent::After;

/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const TABLE: &str = "CREATE TABLE t(n)";
pub(crate) const INSERT: &str = "INSERT INTO t VALUES (1)";

struct OnTokio(Handle);

impl Threads for OnTokio {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(job);
    }
}

/// Time stands still, and all who draw lots draw the same.
#[derive(Default)]
struct Fixed(AtomicU64);

impl Clock for Fixed {
    fn unix_ms(&self) -> u64 {
        1_000_000
    }
}

impl Random for Fixed {
    fn bytes16(&self) -> [u8; 16] {
        let drawn = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        (u128::from(drawn) << 64 | u128::from(drawn)).to_le_bytes()
    }
}

/// A cell of one on `directory`, once nobody else holds that and it serves.
pub(crate) async fn start(directory: &Path) -> Arc<Primary> {
    start_with_room(directory, COMMITTED_BYTES_MAX).await
}

async fn start_with_room(directory: &Path, committed_bytes_max: u32) -> Arc<Primary> {
    let started = async {
        loop {
            match try_start(directory, committed_bytes_max).await {
                Ok(primary) => break primary,
                Err(_held) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let primary = tokio::time::timeout(DEADLINE, started).await.unwrap();
    let serving = tokio::time::timeout(DEADLINE, primary.wait_until_serving());
    serving.await.unwrap();
    primary
}

async fn try_start(
    directory: &Path,
    committed_bytes_max: u32,
) -> Result<Arc<Primary>, PrimaryError> {
    let mut config = PrimaryConfig::new(
        directory.to_owned(),
        NodeId(1),
        Incarnation(1),
        "ENAM".parse().unwrap(),
        "http://127.0.0.1:1".to_owned(),
    );
    config.committed_bytes_max = committed_bytes_max;
    let environment = Environment {
        threads: Arc::new(OnTokio(Handle::current())),
        clock: Arc::new(Fixed::default()),
        random: Arc::new(Fixed::default()),
        connector: Arc::new(TcpConnector),
        slow_disk: None,
    };
    let mut registry = Registry::default();
    Primary::start(config, environment, &mut registry).await
}

/// A cell of one with a database, its files, and the term that it serves under.
async fn begun() -> (TempDir, Arc<Primary>, Arc<Line>, Term) {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let line = database(&primary).await;
    let term = serving_after(&primary, Term(0)).await;
    (directory, primary, line, term)
}

pub(crate) async fn database(primary: &Primary) -> Arc<Line> {
    let create = CreateDatabase {
        name: "orders".to_owned(),
        primary_location_hint: None,
        jurisdiction: None,
        replicated: true,
        request: None,
    };
    let created = primary.create(create).await.unwrap();
    primary.line(created.uuid).await.unwrap()
}

fn request(database: DatabaseId, sql: &str) -> Execute {
    Execute {
        database,
        statements: vec![Statement {
            sql: sql.to_owned(),
            params: vec![],
        }],
        request: None,
        read: ReadContract::Primary,
        freshness: Freshness::Any,
        deadline: DEADLINE,
        on_miss: OnMiss::Error,
        shape: RowShape::Arrays.into(),
        form: ValueForm::Exact,
        rules: Rules::Request,
    }
}

pub(crate) async fn write(
    line: &Arc<Line>,
    sql: &str,
    term: Term,
) -> Result<Position, FailureKind> {
    let expires = Instant::now() + DEADLINE;
    let written = line.write(request(line.id(), sql), Seq::ZERO, term, expires);
    let written = written.await;
    written.map(|w| w.position).map_err(|failure| failure.kind)
}

/// The same by the way, within `deadline`.
fn spawn_write(
    line: &Arc<Line>,
    sql: &'static str,
    term: Term,
    deadline: Duration,
) -> JoinHandle<Result<Position, FailureKind>> {
    let line = Arc::clone(line);
    let request = Execute {
        deadline,
        ..request(line.id(), sql)
    };
    let expires = Instant::now() + deadline;
    tokio::spawn(async move {
        let written = line.write(request, Seq::ZERO, term, expires).await;
        written.map(|w| w.position).map_err(|failure| failure.kind)
    })
}

/// The term in which it serves, later than `before`.
pub(crate) async fn serving_after(primary: &Primary, before: Term) -> Term {
    let mut serving = primary.serving.subscribe();
    let later = serving.wait_for(|term| term.is_some_and(|term| term > before));
    let later = tokio::time::timeout(DEADLINE, later)
        .await
        .unwrap()
        .unwrap();
    later.unwrap()
}

/// A sequence number names one proposal: whoever has seen a refused one in a bookmark, or in an answer that
/// never left, must not take another for it.
#[tokio::test(flavor = "multi_thread")]
async fn sequence_number_of_a_refused_write_is_not_used_again() {
    let (_directory, primary, line, term) = begun().await;
    let before = write(&line, TABLE, term).await.unwrap();

    // It still believes to lead, executes, and is refused by the log.
    let newer = Term(term.0 + 1);
    close_fence(&primary.consensus, newer);
    let refused = write(&line, INSERT, term).await;
    assert_eq!(refused, Err(FailureKind::Unavailable));
    assert!(line.drained().await);
    assert_eq!(line.database().position(), Some(before));

    depose(&primary.consensus, newer).await;
    let later = serving_after(&primary, term).await;
    let after = write(&line, INSERT, later).await.unwrap();
    let refused = before.seq.0 + 1;
    assert!(after.seq.0 > refused, "{before}, refused, {after}");
    let rows = write(&line, "DELETE FROM t", later).await.unwrap();
    assert!(rows.seq > after.seq);
    assert!(primary.verify(line.id()).await.unwrap().intact);
    drop(line);
    primary.stop().await;
}

/// What was let in under one leadership and waits for its turn is not done under another, however soon the
/// same node leads again: what it was told about the database may not hold any more.
#[tokio::test(flavor = "multi_thread")]
async fn write_let_in_under_an_older_term_is_refused_under_a_newer_one() {
    let (_directory, primary, line, term) = begun().await;
    let before = write(&line, TABLE, term).await.unwrap();

    depose(&primary.consensus, Term(term.0 + 1)).await;
    let later = serving_after(&primary, term).await;
    assert_eq!(later, Term(term.0 + 2), "another could have led in between");
    let stale = write(&line, INSERT, term).await;
    assert_eq!(stale, Err(FailureKind::Unavailable));
    let nothing = write(&line, "DELETE FROM t WHERE n = 7", later).await;
    assert_eq!(nothing, Ok(before), "nothing happened");
    drop(line);
    primary.stop().await;
}

/// What three writes to a new database leave in the log: from one to the next.
async fn chain_of_three(directory: &Path) -> (Vec<Transaction>, Vec<Position>) {
    let primary = start(directory).await;
    let line = database(&primary).await;
    let base = line.database().position().unwrap();
    let term = serving_after(&primary, Term(0)).await;
    let mut positions = vec![base];
    for sql in [TABLE, INSERT, INSERT] {
        positions.push(write(&line, sql, term).await.unwrap());
    }
    let recent = &primary.context.recent;
    // Whoever ships may hear of the last one a moment later than its writer.
    wait_until(|| (recent.newest(line.id()) == positions.last().copied()).then_some(())).await;
    let After::Transactions(chain) = recent.after(line.id(), base, usize::MAX) else {
        panic!("they have just been written");
    };
    drop(line);
    primary.stop().await;
    (chain, positions)
}

async fn propose(primary: &Primary, term: Term, transaction: &Transaction) {
    let (done, outcome) = oneshot::channel();
    let command = Command::Transaction(transaction.clone());
    let done = move |proposed| done.send(proposed).unwrap();
    primary.consensus.propose(term, command, done);
    let outcome = tokio::time::timeout(DEADLINE, outcome).await.unwrap();
    assert!(matches!(outcome, Ok(Proposed::Committed { .. })));
}

/// The third transaction is in the log before the second: it was built on one that was refused, whose retry
/// then led to the very same state. It changed nothing when it came. After a crash the log repeats all three
/// to files at whose position the third would fit.
#[test]
fn refused_transaction_that_the_log_repeats_is_refused_again() {
    let (twin, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runtime = Runtime::new().unwrap();
    let (chain, positions) = runtime.block_on(chain_of_three(twin.path()));
    let [first, second, third] = &chain[..] else {
        panic!("{} transactions", chain.len());
    };
    let reached = positions[2];
    runtime.block_on(async {
        let primary = start(directory.path()).await;
        let line = database(&primary).await;
        assert_eq!(line.id(), first.header().database, "the twin drew the same");
        let term = serving_after(&primary, Term(0)).await;
        for transaction in [first, third, second] {
            propose(&primary, term, transaction).await;
        }
        assert!(line.drained().await);
        assert_eq!(line.database().position(), Some(reached));
    });
    // A crash: nobody persists.
    runtime.shutdown_background();

    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let primary = start(directory.path()).await;
        let line = primary.line(first.header().database).await.unwrap();
        assert!(line.drained().await);
        assert_eq!(line.database().position(), Some(reached));
        assert!(primary.verify(line.id()).await.unwrap().intact);
        let term = serving_after(&primary, Term(0)).await;
        let next = write(&line, INSERT, term).await.unwrap();
        assert!(next.seq > reached.seq);
        drop(line);
        primary.stop().await;
    });
}

/// A writer that is slower than the log must not fill the memory; nor may the log stand still for ever because of
/// a transaction that is larger than all the room there is.
#[tokio::test(flavor = "multi_thread")]
async fn log_is_applied_no_further_than_there_is_room_for_what_writers_have_yet_to_do() {
    let (twin, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (chain, positions) = chain_of_three(twin.path()).await;
    let primary = start_with_room(directory.path(), 1).await;
    let line = database(&primary).await;
    let term = serving_after(&primary, Term(0)).await;
    let held = line.hold_writer().await;
    propose(&primary, term, &chain[0]).await;
    assert_eq!(line.newest(), Some(positions[1]));
    let next = {
        let (primary, transaction) = (Arc::clone(&primary), chain[1].clone());
        tokio::spawn(async move { propose(&primary, term, &transaction).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(line.newest(), Some(positions[1]));
    drop(held);
    next.await.unwrap();
    propose(&primary, term, &chain[2]).await;
    assert!(line.drained().await);
    assert_eq!(line.database().position(), Some(positions[3]));
    drop(line);
    primary.stop().await;
}

/// The log has the client's write, then another leader's, which takes the place of what this one went on with; the
/// writer hears of both at once.
#[tokio::test(flavor = "multi_thread")]
async fn write_that_is_committed_is_answered_though_those_behind_it_are_given_up() {
    let (twin, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (chain, positions) = chain_of_three(twin.path()).await;
    let primary = start(directory.path()).await;
    let line = database(&primary).await;
    let term = serving_after(&primary, Term(0)).await;

    let held = line.hold_writer().await;
    let first = spawn_write(&line, TABLE, term, DEADLINE);
    line.has_queued(1).await;
    let between = line.hold_writer_next();
    let second = spawn_write(&line, "INSERT INTO t VALUES (2)", term, DEADLINE);
    line.has_queued(3).await;
    let last = line.hold_writer_next();
    drop(held);
    wait_until(|| (line.newest() == Some(positions[1])).then_some(())).await;
    propose(&primary, term, &chain[1]).await;
    drop(between);
    drop(last);
    assert_eq!(first.await.unwrap(), Ok(positions[1]));
    assert_eq!(second.await.unwrap(), Err(FailureKind::Unknown));
    assert!(line.drained().await);
    assert_eq!(line.database().position(), Some(positions[2]));
    drop(line);
    primary.stop().await;
}

/// What one read may miss, as it is told.
async fn staleness(primary: &Primary, read: Execute) -> Option<Duration> {
    let answer = primary.execute(read).await.unwrap();
    let Executed::Answer(answer) = answer else {
        panic!("{answer:?}");
    };
    answer.delivered.staleness
}

/// The log may have what the readers do not see yet, and a replica may show that already.
#[tokio::test(flavor = "multi_thread")]
async fn plain_read_claims_to_miss_nothing_only_if_readers_see_all_that_was_committed() {
    let (twin, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (chain, _) = chain_of_three(twin.path()).await;
    let primary = start(directory.path()).await;
    let line = database(&primary).await;
    let term = serving_after(&primary, Term(0)).await;
    propose(&primary, term, &chain[0]).await;
    assert!(line.drained().await);
    let plain = || request(line.id(), "SELECT count(*) FROM t");
    assert_eq!(staleness(&primary, plain()).await, Some(Duration::ZERO));
    let held = line.hold_writer().await;
    propose(&primary, term, &chain[1]).await;
    assert_eq!(staleness(&primary, plain()).await, None);
    drop(held);
    assert!(line.drained().await);
    assert_eq!(staleness(&primary, plain()).await, Some(Duration::ZERO));
    drop(line);
    primary.stop().await;
}

/// What never ends by itself.
const ENDLESS: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";

/// Where a write leads is decided by the log, not by how long others run that came after it.
#[tokio::test(flavor = "multi_thread")]
async fn write_is_proposed_though_the_next_request_runs_and_runs() {
    let (_directory, primary, line, term) = begun().await;
    let before = write(&line, TABLE, term).await.unwrap();
    let held = line.hold_writer().await;
    let mut writes = Vec::new();
    for queued in 1..=2 {
        writes.push(spawn_write(&line, INSERT, term, DEADLINE));
        line.has_queued(queued).await;
    }
    let endless = spawn_write(&line, ENDLESS, term, DEADLINE / 4);
    line.has_queued(3).await;
    drop(held);
    let both_committed = async {
        while line
            .newest()
            .is_none_or(|newest| newest.seq.0 < before.seq.0 + 2)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE / 5, both_committed)
        .await
        .unwrap();
    assert!(!endless.is_finished());
    assert_eq!(endless.await.unwrap(), Err(FailureKind::Deadline));
    for write in writes {
        write.await.unwrap().unwrap();
    }
    drop(line);
    primary.stop().await;
}

/// What the writer was in the middle of, nobody knows: the node has to end and to recover from its files.
#[tokio::test(flavor = "multi_thread")]
async fn writer_that_panics_takes_the_node_down_and_says_so_to_those_that_wait() {
    let (_directory, primary, line, term) = begun().await;
    write(&line, TABLE, term).await.unwrap();
    let held = line.hold_writer().await;
    line.break_writer();
    let behind = spawn_write(&line, INSERT, term, DEADLINE);
    line.has_queued(2).await;
    drop(held);
    let behind = behind.await.unwrap();
    assert_eq!(behind, Err(FailureKind::Unavailable), "nothing happened");
    assert!(line.is_damaged());
    assert!(primary.context.fatal.borrow().is_some());
    let next = write(&line, INSERT, term).await;
    assert_eq!(next, Err(FailureKind::Unavailable), "no passing shortage");
}

/// Who is gone may ask again elsewhere, without an id perhaps.
#[tokio::test(flavor = "multi_thread")]
async fn write_whose_client_is_gone_before_it_begins_does_not_happen() {
    let (_directory, primary, line, term) = begun().await;
    let before = write(&line, TABLE, term).await.unwrap();
    let held = line.hold_writer().await;
    let abandoned = spawn_write(&line, INSERT, term, DEADLINE);
    line.has_queued(1).await;
    let places = line.free_places();
    abandoned.abort();
    abandoned.await.unwrap_err();
    assert_eq!(
        line.free_places(),
        places,
        "its place is taken until it is its turn"
    );
    drop(held);
    let nothing = write(&line, "DELETE FROM t WHERE n = 1", term).await;
    assert_eq!(nothing, Ok(before));
    assert!(line.drained().await);
    assert_eq!(line.free_places(), places + 1);
    drop(line);
    primary.stop().await;
}
