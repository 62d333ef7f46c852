//! Transactions too large for one entry of the log: they commit and survive like any other, up to the bound,
//! and one beyond it is refused without a trace.

use std::time::Duration;

use serde_json::json;
use tidemark_protocol::node::CreateDatabase;
use tidemark_protocol::{DatabaseId, Execute, FailureKind, Node, RequestId, Value};

use crate::harness::{named, request, rows};
use crate::voters::Cell;

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY, content)";
const COUNT: &str = "SELECT count(*), sum(length(content)) FROM t";
const MIB: i64 = 1 << 20;

async fn database(cell: &Cell) -> DatabaseId {
    let create = CreateDatabase {
        name: "large".to_owned(),
        primary_location_hint: None,
        jurisdiction: None,
        replicated: true,
        request: Some(RequestId::from_bytes([1; 16])),
    };
    let (_, leader) = cell.leader().await;
    let db = leader.create(create).await.unwrap().uuid;
    cell.run(named(2, request(db, TABLE, &[]))).await;
    db
}

/// One transaction of so many rows of a mebibyte.
fn insert(db: DatabaseId, id: u128, rows: i64) -> Execute {
    let sql = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?) \
               INSERT INTO t(content) SELECT randomblob(1048576) FROM n";
    let mut insert = named(id, request(db, sql, &[Value::Integer(rows)]));
    insert.deadline = Duration::from_secs(25);
    insert
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transaction_commits_on_all_voters_and_survives_their_restart() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    let first = cell.run(insert(db, 10, 20)).await;
    assert!(!first.repeated);
    let settled = cell.settled().await;

    let (old, _) = cell.leader().await;
    cell.kill(old);
    let counted = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&counted), json!([[20, 20 * MIB]]), "at its successor");
    let again = cell.run(insert(db, 10, 20)).await;
    assert!(again.repeated);
    assert_eq!(again.bookmark, first.bookmark);

    let nodes = cell.running();
    cell.kill_all();
    for (node, primary) in nodes {
        drop(primary);
        cell.start_voter(node).await;
    }
    cell.start_voter(old).await;
    assert_eq!(cell.settled().await, settled, "from their logs");
    let counted = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&counted), json!([[20, 20 * MIB]]));
    cell.run(insert(db, 11, 1)).await;
    cell.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_beyond_the_bound_fails_alone() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    let failure = cell.try_run(insert(db, 10, 260)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
    let after = cell.run(insert(db, 11, 6)).await;
    assert!(!after.repeated);
    let counted = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&counted), json!([[6, 6 * MIB]]));
    cell.settled().await;
}
