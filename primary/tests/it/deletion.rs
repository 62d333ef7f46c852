//! A database that is deleted while it is used takes nothing else along, and stays deleted.

use std::sync::Arc;

use tidemark_protocol::node::ListDatabases;
use tidemark_protocol::{FailureKind, Node, Value};

use crate::harness::{create, request, run, start};

#[tokio::test(flavor = "multi_thread")]
async fn deletion_under_writes_reads_and_listings_harms_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let other = create(&primary, "other").await;
    run(&primary, request(other, "CREATE TABLE t(v)", &[]))
        .await
        .unwrap();
    for round in 0..6 {
        let name = format!("short-lived-{round}");
        let db = create(&primary, &name).await;
        run(&primary, request(db, "CREATE TABLE t(v)", &[]))
            .await
            .unwrap();
        let mut users = Vec::new();
        for _ in 0..8 {
            let primary = Arc::clone(&primary);
            users.push(tokio::spawn(async move {
                loop {
                    let insert = request(db, "INSERT INTO t VALUES (?)", &[Value::Integer(1)]);
                    if let Err(failure) = run(&primary, insert).await {
                        return failure.kind;
                    }
                    let list = ListDatabases {
                        limit: 100,
                        ..ListDatabases::default()
                    };
                    primary.databases(list).await.unwrap();
                    // Whatever it finds, it must not bring the database back.
                    let _ = primary.verify(db).await;
                }
            }));
        }
        primary.delete(db, None).await.unwrap();
        for user in users {
            let end = user.await.unwrap();
            assert!(
                matches!(end, FailureKind::NoDatabase | FailureKind::Unknown),
                "a write ended with {end:?}"
            );
        }
        let files = directory.path().join("databases").join(db.to_string());
        assert!(!files.exists(), "files of the deleted database are back");
        run(&primary, request(other, "INSERT INTO t VALUES (1)", &[]))
            .await
            .unwrap();
    }
    primary.stop().await;
    let primary = start(directory.path()).await;
    assert!(primary.verify(other).await.unwrap().intact);
    primary.stop().await;
}
