//! Databases that nobody uses: their files are closed, and nobody can tell by the answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemark_primary::{Primary, PrimaryConfig};
use tidemark_protocol::{DatabaseId, FailureKind, Incarnation, Node, NodeId, ReadContract, Value};

use crate::harness::{create, named, request, rows, run, start, start_with};

/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);
const COUNT: &str = "SELECT count(*), max(n) FROM t";

/// A primary whose databases sleep after a second or two.
async fn sleepy(directory: &Path) -> Arc<Primary> {
    let config = PrimaryConfig {
        idle_wait: Duration::from_secs(1),
        ..PrimaryConfig::new(
            directory.to_owned(),
            NodeId(1),
            Incarnation(1),
            "ENAM".parse().unwrap(),
            "http://127.0.0.1:1".to_owned(),
        )
    };
    let primary = start_with(config, 0).await.unwrap();
    let serving = tokio::time::timeout(DEADLINE, primary.wait_until_serving());
    serving.await.unwrap();
    primary
}

fn files(directory: &Path, database: DatabaseId) -> PathBuf {
    directory.join("databases").join(database.to_string())
}

async fn closed(files: &Path) {
    let closed = async {
        while tidemark_engine::is_open(files) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_database_closes_its_files_and_goes_on_as_if_nothing_had_been() {
    let directory = tempfile::tempdir().unwrap();
    let primary = sleepy(directory.path()).await;
    let db = create(&primary, "orders").await;
    let files = files(directory.path(), db);
    run(&primary, request(db, "CREATE TABLE t(n)", &[]))
        .await
        .unwrap();
    let insert = |id, n: i64| {
        let statement = request(db, "INSERT INTO t VALUES (?)", &[Value::Integer(n)]);
        run(&primary, named(id, statement))
    };
    let first = insert(1, 1).await.unwrap();
    assert!(tidemark_engine::is_open(&files));
    let position = async || {
        let status = primary.status().await.databases;
        let one = status.into_iter().find(|one| one.uuid == db).unwrap();
        assert_eq!(one.name, "orders");
        one.position
    };
    let open = position().await;
    closed(&files).await;

    // A status, a list, or what replicas are told open nothing.
    assert_eq!(position().await, open);
    assert!(!tidemark_engine::is_open(&files));

    let repeated = insert(1, 1).await.unwrap();
    assert!(repeated.repeated);
    assert_eq!(repeated.bookmark, first.bookmark);
    closed(&files).await;
    let second = insert(2, 2).await.unwrap();
    assert!(second.bookmark.to_string() > first.bookmark.to_string());
    closed(&files).await;
    let read = tidemark_protocol::Execute {
        read: ReadContract::Bookmark(second.bookmark),
        ..request(db, COUNT, &[])
    };
    let read = run(&primary, read).await.unwrap();
    assert_eq!(rows(&read), json!([[2, 2]]));
    assert_eq!(read.bookmark, second.bookmark);
    closed(&files).await;
    assert!(primary.verify(db).await.unwrap().intact);
    primary.stop().await;

    let primary = start(directory.path()).await;
    let read = run(&primary, request(db, COUNT, &[])).await.unwrap();
    assert_eq!(rows(&read), json!([[2, 2]]));
    primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_opens_when_it_is_needed_and_not_when_the_node_starts() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let mut databases = Vec::new();
    for n in 0..8 {
        let db = create(&primary, &format!("orders-{n}")).await;
        assert!(!files(directory.path(), db).exists(), "nobody wrote to it");
        run(&primary, request(db, "CREATE TABLE t(n)", &[]))
            .await
            .unwrap();
        databases.push(db);
    }
    let empty = create(&primary, "empty").await;
    primary.stop().await;

    let primary = start(directory.path()).await;
    for db in &databases {
        assert!(!tidemark_engine::is_open(&files(directory.path(), *db)));
    }
    assert_eq!(
        primary.status().await.databases.len(),
        10,
        "and the catalogue"
    );
    for db in &databases {
        let read = run(&primary, request(*db, COUNT, &[])).await.unwrap();
        assert_eq!(rows(&read), json!([[0, null]]));
        assert!(tidemark_engine::is_open(&files(directory.path(), *db)));
    }
    let tables = "SELECT count(*) FROM sqlite_schema";
    let read = run(&primary, request(empty, tables, &[])).await.unwrap();
    assert_eq!(rows(&read), json!([[0]]));
    primary.stop().await;
}

/// A state of before, valid in itself, but without what was acknowledged since.
#[tokio::test(flavor = "multi_thread")]
async fn older_files_put_in_place_of_a_closed_database_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let primary = sleepy(directory.path()).await;
    let db = create(&primary, "orders").await;
    let files = files(directory.path(), db);
    run(&primary, request(db, "CREATE TABLE t(n)", &[]))
        .await
        .unwrap();
    closed(&files).await;
    let older = std::fs::read(files.join("main.db")).unwrap();
    let insert = request(db, "INSERT INTO t VALUES (1)", &[]);
    run(&primary, insert.clone()).await.unwrap();
    closed(&files).await;
    std::fs::write(files.join("main.db"), older).unwrap();

    for refused in [request(db, COUNT, &[]), insert] {
        let failure = run(&primary, refused).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Damaged, "{failure}");
    }
    primary.stop().await;
}
