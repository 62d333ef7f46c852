//! A voter that was away for longer than the log is kept takes over the databases of another: what it
//! fetches, what it must not lose, and what may go wrong on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tidemark_primary::PrimaryConfig;
use tidemark_protocol::node::CreateDatabase;
use tidemark_protocol::{DatabaseId, Node, NodeId, Value};

use crate::harness::{named, request, rows};
use crate::voters::{Cell, eventually};

const TABLE: &str = "CREATE TABLE t(n INTEGER PRIMARY KEY, content)";
pub(crate) const ROWS: i64 = 100;
/// Four pages each.
const FILL: &str = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100) \
                    INSERT INTO t SELECT n, randomblob(16000) FROM n";
const CHANGE: &str = "UPDATE t SET content = randomblob(16000) WHERE n = ?";
pub(crate) const COUNT: &str = "SELECT count(*) FROM t";

const TAKEN_OVER: &str = "tidemark_primary_taken_over_databases_total";
pub(crate) const FETCHED: &str = "tidemark_primary_fetched_pages_total";
pub(crate) const KEPT: &str = "tidemark_primary_kept_pages_total";

/// A log that is short after a few hundred transactions.
pub(crate) fn short_log(config: PrimaryConfig) -> PrimaryConfig {
    PrimaryConfig {
        persist_every_bytes: 256 << 10,
        log_segment_bytes: 1 << 20,
        log_entries_kept: 1,
        log_bytes_kept: 1 << 20,
        ..config
    }
}

async fn create(cell: &Cell, name: &str) -> DatabaseId {
    let create = CreateDatabase {
        name: name.to_owned(),
        primary_location_hint: None,
        jurisdiction: None,
        replicated: true,
        request: None,
    };
    let (_, leader) = cell.leader().await;
    leader.create(create).await.unwrap().uuid
}

pub(crate) async fn filled(cell: &Cell, name: &str, id: u128) -> DatabaseId {
    let db = create(cell, name).await;
    cell.run(named(id, request(db, TABLE, &[]))).await;
    cell.run(named(id + 1, request(db, FILL, &[]))).await;
    db
}

/// Changes one row again and again until every voter that runs has forgotten the log up to where
/// `absent` stopped. Request ids count from `id`; gives the last.
pub(crate) async fn write_past(cell: &Cell, db: DatabaseId, absent: u64, mut id: u128) -> u128 {
    loop {
        let purged = |node| cell.counted(node, "tidemark_log_purged_index");
        if cell
            .running()
            .iter()
            .all(|(node, _)| purged(*node) > absent)
        {
            return id;
        }
        for _ in 0..20 {
            id += 1;
            let change = request(db, CHANGE, &[Value::Integer(7)]);
            cell.run(named(id, change)).await;
        }
    }
}

/// Ends a follower. Gives it and the last entry it has.
pub(crate) async fn kill_a_follower(cell: &Cell) -> (NodeId, u64) {
    cell.settled().await;
    let (node, _) = cell.followers().await.swap_remove(0);
    let last = cell.counted(node, "tidemark_log_appended_index");
    cell.kill(node);
    (node, last)
}

/// Ends leaders until it is this one.
pub(crate) async fn make_leader(cell: &Cell, node: NodeId) {
    for _ in 0..20 {
        let (leader, _) = cell.leader().await;
        if leader == node {
            return;
        }
        cell.kill(leader);
        let (next, _) = cell.leader().await;
        cell.start_voter(leader).await;
        if next == node {
            return;
        }
        cell.settled().await;
    }
    panic!("voter {node} never led");
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_that_the_log_no_longer_reaches_fetches_the_pages_that_differ_and_can_lead() {
    let cell = Cell::start_tuned(short_log).await;
    let db = filled(&cell, "shop", 100).await;
    let untouched = filled(&cell, "archive", 200).await;
    let deleted = filled(&cell, "old", 300).await;
    let (absent, last) = kill_a_follower(&cell).await;

    let new = filled(&cell, "new", 400).await;
    let empty = create(&cell, "empty").await;
    let (_, leader) = cell.leader().await;
    leader.delete(deleted, None).await.unwrap();
    drop(leader);
    let written = write_past(&cell, db, last, 1000).await;

    cell.start_voter(absent).await;
    let settled = cell.settled().await;
    let databases: Vec<_> = settled.iter().map(|(database, _)| *database).collect();
    for database in [db, untouched, new, empty] {
        assert!(databases.contains(&database), "{database} of {databases:?}");
    }
    assert!(!databases.contains(&deleted));
    assert!(
        !cell
            .home(absent)
            .join("databases")
            .join(deleted.to_string())
            .exists()
    );
    let (fetched, kept) = (cell.counted(absent, FETCHED), cell.counted(absent, KEPT));
    // All of "new", a row of "shop", some of the catalogue; not "archive", and most of "shop" is here.
    assert!(cell.counted(absent, TAKEN_OVER) <= 3);
    assert!(
        kept > 380 && fetched < 480,
        "fetched {fetched}, kept {kept}"
    );

    make_leader(&cell, absent).await;
    for id in [101, 201, 401, written - 1, written] {
        let again = named(id, request(db, "DELETE FROM t", &[]));
        let database = match id {
            201 => untouched,
            401 => new,
            _ => db,
        };
        let answer = cell
            .run(tidemark_protocol::Execute { database, ..again })
            .await;
        assert!(answer.repeated, "request {id} is remembered");
    }
    for database in [db, untouched, new] {
        let count = cell.run(request(database, COUNT, &[])).await;
        assert_eq!(rows(&count), json!([[ROWS]]));
    }
    cell.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_while_a_voter_takes_over_and_none_is_missing() {
    let cell = Arc::new(Cell::start_tuned(short_log).await);
    let db = filled(&cell, "shop", 100).await;
    let (absent, last) = kill_a_follower(&cell).await;
    write_past(&cell, db, last, 1000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (cell, stop) = (Arc::clone(&cell), Arc::clone(&stop));
        async move {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                written += 1;
                let n = Value::Integer(ROWS + written);
                let insert = request(db, "INSERT INTO t VALUES (?, 'more')", &[n]);
                let id = 1_000_000 + u128::from(written.unsigned_abs());
                cell.run(named(id, insert)).await;
            }
            written
        }
    });
    cell.start_voter(absent).await;
    eventually("the voter has taken over", async || {
        (cell.counted(absent, TAKEN_OVER) > 0).then_some(())
    })
    .await;
    let at = cell.counted(absent, "tidemark_log_applied_index");
    eventually("the voter follows the log again", async || {
        (cell.counted(absent, "tidemark_log_applied_index") > at + 20).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    cell.settled().await;
    make_leader(&cell, absent).await;
    let count = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&count), json!([[ROWS + written]]));
}

/// Six databases to fetch, and who is in the way of that.
async fn broken_off(end: impl AsyncFn(&Cell, NodeId)) {
    let cell = Cell::start_tuned(short_log).await;
    let first = filled(&cell, "first", 100).await;
    let (absent, last) = kill_a_follower(&cell).await;
    for n in 2..7 {
        filled(&cell, &format!("number {n}"), n * 100).await;
    }
    let written = write_past(&cell, first, last, 1000).await;
    cell.start_voter(absent).await;
    eventually("the voter has begun to take over", async || {
        (cell.counted(absent, TAKEN_OVER) >= 2).then_some(())
    })
    .await;
    end(&cell, absent).await;
    let settled = cell.settled().await;
    assert_eq!(settled.len(), 7);
    make_leader(&cell, absent).await;
    let again = named(written, request(first, "DELETE FROM t", &[]));
    assert!(cell.run(again).await.repeated);
    cell.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_leader_finishes_what_a_killed_one_began_to_send() {
    broken_off(async |cell, absent| {
        let (leader, _) = cell.leader().await;
        assert_ne!(leader, absent);
        cell.kill(leader);
        // Without a majority until one of the two is whole: the voter that was away has to finish.
        let mut id = 5000;
        eventually("the two that are left go on", async || {
            id += 1;
            let (_, leader) = cell.leader().await;
            let db = leader.resolve("first")?;
            let change = named(id, request(db, CHANGE, &[Value::Integer(7)]));
            cell.try_run(change).await.ok()
        })
        .await;
        cell.start_voter(leader).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_killed_while_it_takes_over_begins_again_with_what_it_has() {
    broken_off(async |cell, absent| {
        cell.kill(absent);
        cell.start_voter(absent).await;
    })
    .await;
}
