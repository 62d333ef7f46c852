//! Open, execute, acknowledge, read, apply, checkpoint, reopen.

use tidemark_engine::{CheckpointMode, ReadError};
use tidemark_protocol::{Seq, Value};

use crate::support::{Node, statement, with};

#[test]
fn a_new_database_is_at_genesis_and_readable() {
    let node = Node::new();
    let position = node.database.position().unwrap();
    assert_eq!(position.seq, Seq::ZERO);
    assert_eq!(node.owner.durable(), position);
    let (at, rows) = node.read("SELECT count(*) FROM sqlite_schema");
    assert_eq!(at, position);
    assert_eq!(rows.integer(), 0);
    assert_eq!(node.database.file_size(), 4096);
    assert_eq!(node.database.table_count().unwrap(), 0);
}

#[test]
fn a_write_is_invisible_until_acknowledged() {
    let mut node = Node::new();
    let before = node.owner.position().unwrap();
    let created = node.execute("CREATE TABLE t(a)").0.unwrap();
    assert_eq!(created.header().base, before);
    assert_eq!(node.owner.tip(), Some(created.header().next));
    assert_eq!(node.owner.position(), Some(before));
    assert!(matches!(
        node.try_read(&[statement("SELECT * FROM t")]),
        Err(ReadError::Sql(_))
    ));
    // The owner itself sees it and goes on from there.
    let inserted = node.execute("INSERT INTO t VALUES(1),(2)").0.unwrap();
    assert_eq!(inserted.header().base, created.header().next);

    node.owner.acknowledge(created.header().next.seq).unwrap();
    assert_eq!(node.read("SELECT count(*) FROM t").0, created.header().next);
    assert_eq!(node.read("SELECT count(*) FROM t").1.integer(), 0);
    node.owner.acknowledge(inserted.header().next.seq).unwrap();
    assert_eq!(node.owner.overlay_bytes(), 0);
    let (at, rows) = node.read("SELECT count(*) FROM t");
    assert_eq!((at, rows.integer()), (inserted.header().next, 2));
    assert_eq!(&inserted.answer()[..], b"answer");
}

#[test]
fn a_discarded_write_never_was() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a)");
    let kept = node.commit("INSERT INTO t VALUES(1)");
    node.execute("INSERT INTO t VALUES(2)");
    node.execute("CREATE TABLE u(a)");
    node.owner.discard().unwrap();
    assert_eq!(node.owner.tip(), Some(kept.header().next));
    assert_eq!(node.execute("SELECT count(*) FROM t").1.integer(), 1);
    let again = node.commit("INSERT INTO t VALUES(3)");
    assert_eq!(again.header().base, kept.header().next);
    assert_eq!(node.read("SELECT sum(a) FROM t").1.integer(), 4);
}

#[test]
fn a_follower_fed_with_transactions_has_the_same_bytes() {
    let (mut primary, mut follower) = (Node::new(), Node::new());
    let mut sent = vec![primary.commit("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")];
    for i in 0..20 {
        sent.push(primary.commit(&format!("INSERT INTO t(b) VALUES('row {i}')")));
    }
    assert_eq!(
        follower.owner.apply(&sent[..1]).unwrap(),
        sent[0].header().next
    );
    follower.read("SELECT * FROM t");
    assert_eq!(
        follower.owner.apply(&sent[1..]).unwrap(),
        sent[20].header().next
    );
    let (at, rows) = follower.read("SELECT count(*) FROM t");
    assert_eq!((at, rows.integer()), (sent[20].header().next, 20));
    assert!(primary.bytes() == follower.bytes());
}

#[test]
fn a_database_reopened_stands_where_it_stood() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a)");
    node.owner.checkpoint(CheckpointMode::Passive).unwrap();
    let last = node.commit("INSERT INTO t VALUES(1)").header().next;
    node.execute("INSERT INTO t VALUES(2)"); // never acknowledged
    let mut node = node.reopen();
    assert_eq!(node.owner.position(), Some(last));
    assert_eq!(node.read("SELECT count(*) FROM t").1.integer(), 1);
    node.bytes();
    let node = node.reopen();
    assert_eq!(node.owner.position(), Some(last));
    assert_eq!(node.owner.durable(), last);
}

#[test]
fn several_statements_are_one_transaction() {
    let mut node = Node::new();
    let (transaction, rows) = node
        .try_execute(&[
            statement("CREATE TABLE t(a); -- first\n INSERT INTO t VALUES(1); /* */ ;"),
            with(
                "INSERT INTO t VALUES(?1), (?2) RETURNING a",
                vec![Value::Integer(5), Value::Text("x".into())],
            ),
            statement("SELECT count(*) AS n FROM t"),
        ])
        .unwrap();
    assert_eq!(rows.statements.len(), 4);
    assert_eq!(rows.statements[2].rows.len(), 2);
    assert_eq!(rows.statements[2].columns, ["a"]);
    assert_eq!(rows.statements[3].columns, ["n"]);
    assert_eq!(rows.integer(), 3);
    assert_eq!(transaction.unwrap().header().next.seq, Seq(1));
    // A failure anywhere takes everything back.
    let failing = [
        statement("INSERT INTO t VALUES(9)"),
        statement("INSERT INTO nope VALUES(1)"),
    ];
    node.try_execute(&failing).unwrap_err();
    assert_eq!(node.execute("SELECT count(*) FROM t").1.integer(), 3);
}
