//! A cell of three: what is acknowledged survives the leader, what is not is there whole or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tidemark_protocol::node::CreateDatabase;
use tidemark_protocol::{
    DatabaseId, Executed, FailureKind, Incarnation, Node, NodeId, ReadContract, RequestId, Value,
    Why,
};

use crate::harness::{named, request, rows};
use crate::voters::{Cell, SECRET, eventually};

const WRITERS: i64 = 4;
const TABLE: &str = "CREATE TABLE t(writer, n, PRIMARY KEY (writer, n)) WITHOUT ROWID";
pub(crate) const INSERT: &str = "INSERT INTO t VALUES (?, ?)";
pub(crate) const COUNT: &str = "SELECT count(*) FROM t";

/// Makes a database with an empty table `t`, at whichever voter leads.
pub(crate) async fn database(cell: &Cell) -> DatabaseId {
    let create = CreateDatabase {
        name: "shop".to_owned(),
        primary_location_hint: None,
        jurisdiction: None,
        replicated: true,
        request: Some(RequestId::from_bytes([1; 16])),
    };
    let db = eventually("the database is made", async || {
        let (_, leader) = cell.leader().await;
        leader.create(create.clone()).await.ok()
    })
    .await
    .uuid;
    cell.run(named(2, request(db, TABLE, &[]))).await;
    db
}

fn row(writer: i64, n: i64) -> [Value; 2] {
    [Value::Integer(writer), Value::Integer(n)]
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_have_what_the_leader_commits_and_hand_on_what_they_are_asked() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    for n in 0_i64..20 {
        let id = 100 + u128::from(n.unsigned_abs());
        let insert = request(db, INSERT, &row(0, n));
        cell.run(named(id, insert)).await;
    }
    let settled = cell.settled().await;
    assert_eq!(settled.len(), 2, "the catalogue and the database");

    let (leader, primary) = cell.leader().await;
    assert_eq!(primary.upstream(), None, "it sends nobody to itself");
    let count = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&count), json!([[20]]));
    for (node, follower) in cell.followers().await {
        eventually("the follower knows the database", async || {
            follower.resolve("shop")
        })
        .await;
        assert!(follower.ready().is_ok());
        assert_eq!(follower.upstream(), Some(cell.url(leader)));
        let handed_on = follower.execute(request(db, COUNT, &[])).await;
        assert_eq!(
            handed_on,
            Ok(Executed::Forward(Why::NotLeading)),
            "voter {node}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_tells_replicas_where_the_leader_is_and_listens_to_voters_alone() {
    let cell = Cell::start().await;
    let (leader, _) = cell.leader().await;
    let (follower, primary) = cell.followers().await.swap_remove(0);
    eventually("the follower knows the leader", async || primary.upstream()).await;
    let http = reqwest::Client::new();

    let stream = format!("{}/tidemark/v1/stream", cell.url(follower));
    let refused = http.get(stream).bearer_auth(SECRET).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["tidemark-leader"], cell.url(leader));

    let raft = format!("{}/tidemark/v1/raft", cell.url(follower));
    let ask = async |secret: &str, voter: NodeId, disk: u64| {
        let request = http.post(&raft).bearer_auth(secret).body("no message");
        let disk = Incarnation(u128::from(disk)).to_string();
        let named = request
            .header("tidemark-voter", voter.to_string())
            .header("tidemark-incarnation", disk);
        named.send().await.unwrap().status()
    };
    assert_eq!(ask("a guess", follower, follower.0).await, 401);
    assert_eq!(ask(SECRET, NodeId(77), follower.0).await, 421);
    assert_eq!(ask(SECRET, follower, 77).await, 421, "it has another disk");
    assert_eq!(ask(SECRET, follower, follower.0).await, 400);
}

/// Writes rows (writer, 0), (writer, 1), … one after the other until told to stop, each until it is
/// acknowledged, under one request id. The primary key makes one that counted twice an error.
async fn write(cell: Arc<Cell>, db: DatabaseId, writer: i64, goes_on: Arc<Progress>) -> i64 {
    for n in 0.. {
        if goes_on.stop.load(Ordering::Relaxed) {
            return n;
        }
        let id =
            1000 + u128::from(writer.unsigned_abs()) * 1_000_000 + u128::from(n.unsigned_abs());
        let mut insert = named(id, request(db, INSERT, &row(writer, n)));
        insert.deadline = Duration::from_millis(500);
        cell.run(insert).await;
        goes_on.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("it counts for ever")
}

#[derive(Default)]
struct Progress {
    acknowledged: AtomicI64,
    stop: AtomicBool,
}

impl Progress {
    async fn more(&self, more: i64) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        eventually("more writes are acknowledged", async || {
            (self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn successor_of_a_killed_leader_has_every_acknowledged_write_once() {
    let cell = Arc::new(Cell::start().await);
    let db = database(&cell).await;
    let progress = Arc::new(Progress::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (cell, progress) = (Arc::clone(&cell), Arc::clone(&progress));
            tokio::spawn(write(cell, db, writer, progress))
        })
        .collect();
    progress.more(100).await;
    let (old, _) = cell.leader().await;
    cell.kill(old);
    let killed = Instant::now();
    progress.more(2 * WRITERS).await;
    let (new, _) = cell.leader().await;
    eprintln!("acknowledging again {:?} after the kill", killed.elapsed());
    assert_ne!(new, old);

    // The deposed one comes back to a log that went on without it.
    progress.more(50).await;
    cell.start_voter(old).await;
    progress.more(50).await;
    progress.stop.store(true, Ordering::Relaxed);
    let mut expected = Vec::new();
    for (writer, task) in (0_i64..).zip(writers) {
        expected.push(json!([writer, task.await.unwrap()]));
    }
    let sql = "SELECT writer, count(*) FROM t GROUP BY writer ORDER BY writer";
    let counted = cell.run(request(db, sql, &[])).await;
    assert_eq!(rows(&counted), json!(expected));
    cell.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_that_no_majority_has_is_discarded_whole_and_its_retry_counts() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    let acknowledged = named(10, request(db, INSERT, &row(0, 0)));
    let first = cell.run(acknowledged.clone()).await;
    cell.settled().await;

    let (old, leader) = cell.leader().await;
    let followers: Vec<_> = cell
        .followers()
        .await
        .iter()
        .map(|(node, _)| *node)
        .collect();
    for follower in &followers {
        cell.kill(*follower);
    }
    let two_rows = "INSERT INTO t VALUES (1, 1), (1, 2)";
    let tail = named(11, request(db, two_rows, &[]));
    let mut hurried = tail.clone();
    hurried.deadline = Duration::from_millis(300);
    let failure = leader.execute(hurried).await.unwrap_err();
    assert!(
        matches!(
            failure.kind,
            FailureKind::Unknown | FailureKind::Unavailable
        ),
        "{failure}"
    );
    // Nor does a leader without a quorum tell what may be old news.
    eventually("its lease is over", async || {
        let mut read = request(db, COUNT, &[]);
        read.deadline = Duration::from_millis(500);
        read.read = ReadContract::Primary;
        leader.execute(read).await.is_err().then_some(())
    })
    .await;
    drop(leader);
    cell.kill(old);

    for follower in followers {
        cell.start_voter(follower).await;
    }
    let count = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&count), json!([[1]]), "all that was acknowledged");
    let again = cell.run(acknowledged).await;
    assert!(again.repeated, "its successor remembers the request");
    assert_eq!(again.bookmark, first.bookmark);
    cell.run(named(12, request(db, INSERT, &row(2, 0)))).await;

    // It comes back with the tail in its log and gives it up.
    cell.start_voter(old).await;
    cell.settled().await;
    assert!(!cell.run(tail).await.repeated, "it never happened");
    let count = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&count), json!([[4]]));
    cell.settled().await;
}

/// It needs no place in the log: nothing but a question to the others keeps a leader that may be deposed from
/// answering it.
#[tokio::test(flavor = "multi_thread")]
async fn write_that_changes_nothing_is_not_answered_without_a_majority() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    let nothing = request(db, "DELETE FROM t WHERE n = 7", &[]);
    cell.run(nothing.clone()).await;
    let followers = cell.followers().await;
    let (_, leader) = cell.leader().await;
    for (node, primary) in followers {
        drop(primary);
        cell.kill(node);
    }
    // While it still believes to lead, and later.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let mut hurried = nothing.clone();
        hurried.deadline = Duration::from_millis(300);
        let answer = leader.execute(hurried).await;
        assert!(!matches!(answer, Ok(Executed::Answer(_))), "{answer:?}");
    }
}
