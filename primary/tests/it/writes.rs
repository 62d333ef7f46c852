//! Writes: acknowledged ones are there, in order, also after a restart; failed ones never were.

use std::sync::Arc;

use serde_json::json;
use tidemark_protocol::{
    DatabaseId, Epoch, FailureKind, Node, Position, ReadContract, Seq, StateChecksum, Value,
};

use crate::harness::{create, request, rows, run, start};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_are_all_there_once_in_one_order() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "orders").await;
    run(
        &primary,
        request(
            db,
            "CREATE TABLE t(id INTEGER PRIMARY KEY, who INTEGER)",
            &[],
        ),
    )
    .await
    .unwrap();
    let before = primary.status().await;
    let base = before
        .databases
        .iter()
        .find(|d| d.uuid == db)
        .unwrap()
        .position
        .seq;

    const WRITERS: i64 = 32;
    const EACH: i64 = 20;
    let mut writers = Vec::new();
    for who in 0..WRITERS {
        let primary = Arc::clone(&primary);
        writers.push(tokio::spawn(async move {
            let mut last = String::new();
            for _ in 0..EACH {
                let insert = request(db, "INSERT INTO t(who) VALUES (?)", &[Value::Integer(who)]);
                let mark = run(&primary, insert).await.unwrap().bookmark.to_string();
                assert!(mark > last, "bookmarks sort by age: {last} then {mark}");
                last = mark;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }

    let count = request(db, "SELECT count(*), count(DISTINCT who) FROM t", &[]);
    assert_eq!(
        rows(&run(&primary, count).await.unwrap()),
        json!([[WRITERS * EACH, WRITERS]])
    );
    let after = primary.status().await;
    let position = after
        .databases
        .iter()
        .find(|d| d.uuid == db)
        .unwrap()
        .position;
    let writes = u64::try_from(WRITERS * EACH).unwrap();
    assert_eq!(
        position.seq,
        Seq(base.0 + writes),
        "one transaction per write"
    );
    assert!(primary.verify(db).await.unwrap().intact);
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_finds_every_database_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut marks = Vec::new();
    {
        let primary = start(directory.path()).await;
        for name in ["a", "b"] {
            let db = create(&primary, name).await;
            let text = "CREATE TABLE t(v); INSERT INTO t VALUES (1), (2)";
            let answer = run(&primary, request(db, text, &[])).await.unwrap();
            marks.push((db, answer.bookmark));
        }
        let dropped = create(&primary, "gone").await;
        primary.delete(dropped, None).await.unwrap();
        primary.stop().await;
    }
    let primary = start(directory.path()).await;
    for (db, mark) in marks {
        let mut read = request(db, "SELECT sum(v) FROM t", &[]);
        read.read = ReadContract::Bookmark(mark);
        let answer = run(&primary, read).await.unwrap();
        assert_eq!(rows(&answer), json!([[3]]));
        assert_eq!(answer.bookmark, mark, "the same state, to the bit");
    }
    assert!(primary.resolve("gone").is_none());
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_statement_undoes_the_whole_request() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "atomic").await;
    let table = request(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)", &[]);
    let mark = run(&primary, table).await.unwrap().bookmark;
    let text = "INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)";
    let failure = run(&primary, request(db, text, &[])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Sql);
    assert!(
        failure
            .message
            .starts_with("UNIQUE constraint failed: t.id"),
        "{failure}"
    );
    let read = run(&primary, request(db, "SELECT count(*) FROM t", &[]))
        .await
        .unwrap();
    assert_eq!(rows(&read), json!([[0]]));
    assert_eq!(
        read.bookmark, mark,
        "a failed write leaves no trace in the position"
    );
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_that_changes_nothing_makes_no_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "quiet").await;
    let table = request(db, "CREATE TABLE t(id INTEGER PRIMARY KEY)", &[]);
    let mark = run(&primary, table).await.unwrap().bookmark;
    let nothing = request(db, "DELETE FROM t WHERE id = 7", &[]);
    assert_eq!(run(&primary, nothing).await.unwrap().bookmark, mark);
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_that_name_no_state_of_this_history_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let a = create(&primary, "a").await;
    let b = create(&primary, "b").await;
    let mark = run(&primary, request(a, "CREATE TABLE t(v)", &[]))
        .await
        .unwrap()
        .bookmark;

    let with = async |db: DatabaseId, text: &str| {
        let mut read = request(db, "SELECT 1", &[]);
        read.read = text.parse::<ReadContract>().unwrap();
        run(&primary, read).await.map_err(|failure| failure.kind)
    };
    let good = mark.to_string();
    assert!(with(a, &good).await.is_ok());
    assert_eq!(
        with(b, &good).await,
        Err(FailureKind::BadBookmark),
        "another database's"
    );
    let mut forged = good.clone();
    let flipped = if forged.ends_with('0') { "1" } else { "0" };
    forged.replace_range(forged.len() - 1.., flipped);
    assert_eq!(
        with(a, &forged).await,
        Err(FailureKind::BadBookmark),
        "forged"
    );

    // A state that was never reached, rightly signed: what a cluster sees that lost its newest state.
    let key = {
        let position = Position {
            epoch: Epoch::FIRST,
            seq: Seq(mark.claimed().seq.0 + 1000),
            checksum: StateChecksum(1),
        };
        tidemark_protocol::Bookmark::issue(&bookmark_key(directory.path()), a, position)
    };
    assert_eq!(
        with(a, &key.to_string()).await,
        Err(FailureKind::LostBookmark),
        "future"
    );
    primary.stop().await;
}

/// The key as the harness's randomness made it: the first sixteen bytes it gave.
fn bookmark_key(_directory: &std::path::Path) -> tidemark_protocol::BookmarkKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&0x9E37_79B9_7F4A_7C15_u64.to_le_bytes());
    bytes[8..].copy_from_slice(&0xD1B5_4A32_D192_ED03_u64.to_le_bytes());
    tidemark_protocol::BookmarkKey::new(bytes)
}
