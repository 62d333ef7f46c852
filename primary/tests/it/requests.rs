//! Request ids: a repeated request counts once, however and whenever it is repeated.

use std::sync::Arc;

use serde_json::json;
use tidemark_protocol::Value;

use crate::harness::{create, named, request, rows, run, start};

const INSERT: &str = "INSERT INTO t(v) VALUES (?) RETURNING id";

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_gets_the_first_answer_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "once").await;
    let table = request(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", &[]);
    run(&primary, table).await.unwrap();

    let insert = named(7, request(db, INSERT, &[Value::Integer(1)]));
    let first = run(&primary, insert.clone()).await.unwrap();
    let second = run(&primary, insert.clone()).await.unwrap();
    assert!(!first.repeated && second.repeated);
    assert_eq!(second.results, first.results);
    assert_eq!(second.bookmark, first.bookmark);
    primary.stop().await;

    // And after a restart, when the log has been purged behind a checkpoint.
    let primary = start(directory.path()).await;
    let third = run(&primary, insert).await.unwrap();
    assert!(third.repeated);
    assert_eq!(third.results, first.results);
    let count = run(&primary, request(db, "SELECT count(*) FROM t", &[]))
        .await
        .unwrap();
    assert_eq!(rows(&count), json!([[1]]));
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_that_overlap_share_one_outcome() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "race").await;
    let table = request(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", &[]);
    run(&primary, table).await.unwrap();
    let mut tries = Vec::new();
    for _ in 0..16 {
        let primary = Arc::clone(&primary);
        let insert = named(9, request(db, INSERT, &[Value::Integer(1)]));
        tries.push(tokio::spawn(async move {
            run(&primary, insert).await.unwrap().results
        }));
    }
    let mut answers = Vec::new();
    for one in tries {
        answers.push(one.await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let count = run(&primary, request(db, "SELECT count(*) FROM t", &[]))
        .await
        .unwrap();
    assert_eq!(rows(&count), json!([[1]]));
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_repeated_under_its_request_id_finds_the_database() {
    use tidemark_protocol::node::CreateDatabase;
    use tidemark_protocol::{FailureKind, Node, RequestId};

    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let create = CreateDatabase {
        name: "shop".to_owned(),
        primary_location_hint: Some("weur".to_owned()),
        jurisdiction: None,
        replicated: true,
        request: Some(RequestId::from_bytes([5; 16])),
    };
    let first = primary.create(create.clone()).await.unwrap();
    assert_eq!(
        primary.create(create.clone()).await.unwrap().uuid,
        first.uuid
    );
    let other = CreateDatabase {
        request: None,
        ..create
    };
    let failure = primary.create(other).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::DatabaseExists);
    assert_eq!(failure.message, "Database with name 'shop' already exists");
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_ddl_gets_its_first_answer_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "ddl").await;
    let table = named(
        3,
        request(db, "CREATE TABLE t(v); INSERT INTO t VALUES (1)", &[]),
    );
    let first = run(&primary, table.clone()).await.unwrap();
    assert!(run(&primary, table.clone()).await.unwrap().repeated);
    primary.stop().await;
    let primary = start(directory.path()).await;
    let again = run(&primary, table).await.unwrap();
    assert!(again.repeated, "not: table t already exists");
    assert_eq!(again.results, first.results);
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_whose_answer_was_too_long_to_keep_has_an_empty_result() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "long").await;
    run(&primary, request(db, "CREATE TABLE t(v)", &[]))
        .await
        .unwrap();
    let insert = "INSERT INTO t VALUES (printf('%.30000c', 'x')) RETURNING v";
    let insert = named(4, request(db, insert, &[]));
    let first = run(&primary, insert.clone()).await.unwrap();
    assert!(first.results.len() > 30_000);
    let again = run(&primary, insert).await.unwrap();
    assert!(again.repeated);
    assert_eq!(&again.results[..], b"[]");
    assert_eq!(again.bookmark, first.bookmark);
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_delete_spares_a_newer_database_of_the_same_name() {
    use tidemark_protocol::{Node, RequestId};

    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let old = create(&primary, "shop").await;
    let id = Some(RequestId::from_bytes([8; 16]));
    primary.delete(old, id).await.unwrap();
    let new = create(&primary, "shop").await;
    primary.delete(new, id).await.unwrap();
    assert_eq!(primary.resolve("shop"), Some(new));
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_delete_succeeds_and_another_finds_nothing() {
    use tidemark_protocol::{FailureKind, Node, RequestId};

    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let shop = create(&primary, "shop").await;
    let id = |n| Some(RequestId::from_bytes([n; 16]));
    primary.delete(shop, id(8)).await.unwrap();
    primary.delete(shop, id(8)).await.unwrap();
    primary.stop().await;
    let primary = start(directory.path()).await;
    primary.delete(shop, id(8)).await.unwrap();
    for other in [id(9), None] {
        let failure = primary.delete(shop, other).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::NoDatabase, "{failure}");
    }
    primary.stop().await;
}
