//! Readers: bounds, the pool, snapshots, exact positions across generations of the WAL.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tidemark_engine::{
    ApplyError, CheckpointMode, Control, ExecuteError, OpenError, Options, ReadError, Stamp,
};
use tidemark_protocol::render::{AnswerLimit, ResultSink, StatementStatistics};
use tidemark_protocol::transaction::TRANSACTION_BYTES_MAX;
use tidemark_protocol::{PAGE_SIZE, PageNo, RequestId, Seq, ValueRef};

use crate::support::{Node, Rows, id, soon, stamp, statement};

const FOREVER: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT count(*) FROM n";

#[test]
fn a_read_over_its_steps_is_stopped_and_can_be_tried_elsewhere() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let mut rows = Rows::default();
    let control = Control {
        steps_max: Some(10_000),
        ..soon()
    };
    let result = node
        .database
        .read(&[statement(FOREVER)], &control, &mut rows);
    assert!(
        matches!(result, Err(ReadError::Budget { steps_max: 10_000 })),
        "{result:?}"
    );
    assert_eq!((rows.statements.len(), rows.resets > 0), (0, true));
    // A short one fits, again and again: steps are counted per request.
    for _ in 0..2000 {
        node.database
            .read(
                &[statement("SELECT a FROM t")],
                &control,
                &mut Rows::default(),
            )
            .unwrap();
    }
    // Many short statements add up.
    let many = "SELECT a FROM t;".repeat(2000);
    let result = node
        .database
        .read(&[statement(&many)], &control, &mut Rows::default());
    assert!(
        matches!(result, Err(ReadError::Budget { .. })),
        "{result:?}"
    );
    let result = node
        .owner
        .execute(&[statement(FOREVER)], &stamp(), &control, &mut rows);
    assert!(
        matches!(result, Err(ExecuteError::Budget { .. })),
        "{result:?}"
    );
}

#[test]
fn a_run_past_its_deadline_is_stopped() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let control = || Control::until(Instant::now() + Duration::from_millis(30));
    let started = Instant::now();
    let result = node
        .database
        .read(&[statement(FOREVER)], &control(), &mut Rows::default());
    assert!(matches!(result, Err(ReadError::Deadline)), "{result:?}");
    let write = format!("DELETE FROM t; {FOREVER}");
    let result = node.owner.execute(
        &[statement(&write)],
        &stamp(),
        &control(),
        &mut Rows::default(),
    );
    assert!(matches!(result, Err(ExecuteError::Deadline)), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(node.execute("SELECT count(*) FROM t").1.integer(), 1);
    // The deadline of one request does not reach into the next.
    node.commit("INSERT INTO t VALUES(2)");
}

/// Waits in the middle of a row for a word from the test.
struct Slow {
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl ResultSink for Slow {
    fn begin_statement(&mut self) {}
    fn columns(&mut self, _names: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn begin_row(&mut self) {}
    fn cell(&mut self, _index: usize, _value: ValueRef<'_>) {}
    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        self.reached.send(()).unwrap();
        self.go_on.recv().unwrap();
        Ok(())
    }
    fn end_statement(&mut self, _statistics: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn recorded(&self) -> &[u8] {
        &[]
    }
}

#[test]
fn readers_are_bounded_and_waited_for() {
    let mut node = Node::with(&Options {
        readers_max: 1,
        ..Options::default()
    });
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let (reached, is_reached) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let database = node.database.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut slow = Slow {
                reached,
                go_on: may_go_on,
            };
            database
                .read(&[statement("SELECT a FROM t")], &soon(), &mut slow)
                .unwrap();
        });
        is_reached.recv().unwrap();
        let now = Control::until(Instant::now());
        let result = node
            .database
            .read(&[statement("SELECT 1")], &now, &mut Rows::default());
        assert!(
            matches!(result, Err(ReadError::Busy { readers_max: 1 })),
            "{result:?}"
        );
        // Writes and even a checkpoint go on; the reader holds the WAL's start, no more.
        node.commit("INSERT INTO t VALUES(2)");
        let report = node.owner.checkpoint(CheckpointMode::Truncate).unwrap();
        assert!(report.busy && report.durable.is_none(), "{report:?}");
        let waiting = scope.spawn(|| {
            node.database
                .read(&[statement("SELECT 1")], &soon(), &mut Rows::default())
        });
        go_on.send(()).unwrap();
        waiting.join().unwrap().unwrap();
    });
    node.bytes();
}

#[test]
fn positions_stay_exact_through_every_generation_of_the_wal() {
    let mut node = Node::new();
    let mut last = node
        .commit("CREATE TABLE t(a); INSERT INTO t VALUES(0)")
        .header()
        .next;
    let check = |node: &Node, last| {
        assert_eq!(node.read("SELECT a FROM t").0, last);
        node.database.close_idle_readers();
        assert_eq!(node.read("SELECT a FROM t").0, last);
    };
    for round in 0..30 {
        check(&node, last);
        let mode = match round % 3 {
            0 => CheckpointMode::Passive,
            1 => CheckpointMode::Restart,
            _ => CheckpointMode::Truncate,
        };
        let report = node.owner.checkpoint(mode).unwrap();
        assert_eq!(report.durable, Some(last));
        assert_eq!(node.owner.durable(), last);
        check(&node, last);
        for _ in 0..3 {
            last = node.commit("UPDATE t SET a = a + 1").header().next;
        }
    }
}

#[test]
fn a_read_that_touches_nothing_is_at_the_acknowledged_position() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a)");
    node.read("SELECT a FROM t");
    let last = node.commit("INSERT INTO t VALUES(1)").header().next;
    assert_eq!(node.read("SELECT 1").0, last);
    assert_eq!(node.read("SELECT 1; SELECT 2").0, last);
}

#[test]
fn a_snapshot_stays_while_the_database_goes_on() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(50000))");
    let taken = node.database.position().unwrap();
    let mut snapshot = node.database.snapshot().unwrap();
    node.commit("DELETE FROM t; CREATE TABLE u(a)");
    node.owner.checkpoint(CheckpointMode::Passive).unwrap();
    node.commit("INSERT INTO u VALUES(zeroblob(90000))");
    assert_eq!(snapshot.position(), taken);
    assert_eq!(snapshot.checksum().unwrap(), taken.checksum);
    let beyond = PageNo(snapshot.page_count() + 1);
    assert!(snapshot.page(beyond, &mut [0; PAGE_SIZE]).is_err());
    assert!(snapshot.page(PageNo(0), &mut [0; PAGE_SIZE]).is_err());
    drop(snapshot);
    node.bytes();
}

#[test]
fn a_directory_is_opened_once() {
    let node = Node::new();
    let open = || tidemark_engine::Database::open(&node.path, id(), &Options::default());
    assert!(matches!(open(), Err(OpenError::AlreadyOpen { .. })));
    let Node {
        database,
        owner,
        path,
        ..
    } = node;
    drop(owner);
    assert!(tidemark_engine::Database::open(&path, id(), &Options::default()).is_err());
    assert_eq!(Arc::strong_count(&database), 1);
    drop(database);
    // The temporary directory went with the node; opening makes a new one.
    tidemark_engine::Database::open(&path, id(), &Options::default()).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn the_default_vfs_works_as_well() {
    let mut node = Node::with(&Options {
        exclusive: false,
        ..Options::default()
    });
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    assert_eq!(node.read("SELECT a FROM t").1.integer(), 1);
    node.bytes();
}

#[test]
fn stamps_become_part_of_the_record() {
    let mut node = Node::new();
    let request = RequestId::new(uuid::Uuid::from_u128(99));
    let stamp = Stamp {
        request: Some(request),
        proposed_at_ms: 1234,
        after: Seq(1000),
    };
    let sql = [statement("CREATE TABLE t(a)")];
    let made = node
        .owner
        .execute(&sql, &stamp, &soon(), &mut Rows::default())
        .unwrap()
        .unwrap();
    let header = *made.header();
    assert_eq!(
        (header.request, header.proposed_at_ms),
        (Some(request), 1234)
    );
    assert_eq!((header.base.seq, header.next.seq), (Seq(0), Seq(1001)));
    assert_eq!(header.database, id());
    let decoded = tidemark_protocol::Transaction::decode(made.encoded().clone()).unwrap();
    assert_eq!(decoded, made);
}

#[test]
fn what_is_too_large_fails_cleanly() {
    let options = Options {
        overlay_bytes_max: 3 << 20,
        ..Options::default()
    };
    let mut node = Node::with(&options);
    node.commit("CREATE TABLE t(a)");
    let blobs = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 280) \
                 INSERT INTO t SELECT zeroblob(1000000) FROM n";
    match node.try_execute(&[statement(blobs)]) {
        Err(ExecuteError::TooLarge { bytes, max }) => {
            assert!(bytes > max && max <= TRANSACTION_BYTES_MAX);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(node.execute("SELECT count(*) FROM t").1.integer(), 0);
    for _ in 0..2 {
        node.execute("INSERT INTO t VALUES(zeroblob(2000000))");
    }
    match node.try_execute(&[statement("INSERT INTO t VALUES(1)")]) {
        Err(ExecuteError::Backlog { bytes, max }) => assert!(bytes >= max),
        other => panic!("{other:?}"),
    }
    let tip = node.owner.tip().unwrap();
    node.owner.acknowledge(tip.seq).unwrap();
    node.commit("INSERT INTO t VALUES(1)");
    assert_eq!(node.read("PRAGMA integrity_check").1.text(), "ok");
}

#[test]
fn apply_refuses_what_does_not_fit_and_changes_nothing() {
    let (mut primary, mut follower) = (Node::new(), Node::new());
    let one = primary.commit("CREATE TABLE t(a)");
    let two = primary.commit("INSERT INTO t VALUES(1)");
    let three = primary.commit("INSERT INTO t VALUES(2)");
    let genesis = follower.owner.position();

    let result = follower.owner.apply(&[one.clone(), three.clone()]);
    assert!(matches!(result, Err(ApplyError::Base { .. })), "{result:?}");
    let result = follower.owner.apply(std::slice::from_ref(&two));
    assert!(matches!(result, Err(ApplyError::Base { .. })), "{result:?}");
    assert_eq!(follower.owner.position(), genesis);

    follower.owner.apply(&[one.clone(), two.clone()]).unwrap();
    let result = follower.owner.apply(std::slice::from_ref(&two));
    assert!(matches!(result, Err(ApplyError::Base { .. })), "{result:?}");

    // A record that promises another content: as if this copy had diverged before.
    let mut pages = tidemark_protocol::TransactionBuilder::new();
    let (page, image) = three.page(three.page_count() - 1);
    let mut image = *image;
    image[4000] ^= 1;
    pages.push(page, &image);
    let lying = pages.finish(*three.header(), &[]).unwrap();
    let result = follower.owner.apply(&[lying]);
    assert!(
        matches!(result, Err(ApplyError::Checksum { .. })),
        "{result:?}"
    );
    assert_eq!(follower.read("SELECT count(*) FROM t").1.integer(), 1);
    assert_eq!(follower.read("SELECT 1").0, two.header().next);

    let mut pages = tidemark_protocol::TransactionBuilder::new();
    pages.push(page, &image);
    let header = tidemark_protocol::TransactionHeader {
        database: tidemark_protocol::DatabaseId::CATALOGUE,
        ..*three.header()
    };
    let foreign = pages.finish(header, &[]).unwrap();
    let result = follower.owner.apply(&[foreign]);
    assert!(
        matches!(result, Err(ApplyError::Foreign { .. })),
        "{result:?}"
    );

    // One's own transactions in hand come first.
    follower.execute("INSERT INTO t VALUES(7)");
    let result = follower.owner.apply(std::slice::from_ref(&three));
    assert!(
        matches!(result, Err(ApplyError::Pending { count: 1, .. })),
        "{result:?}"
    );
    follower.owner.discard().unwrap();
    follower.owner.apply(std::slice::from_ref(&three)).unwrap();
    assert!(follower.bytes() == primary.bytes());
    // A follower that takes over goes on from what it applied, not from what it once read.
    assert_eq!(follower.execute("SELECT sum(a) FROM t").1.integer(), 3);
    let next = follower.commit("INSERT INTO t VALUES(4)");
    assert_eq!(next.header().base, three.header().next);
}
