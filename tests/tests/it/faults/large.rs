//! kill -9 of the leader while transactions travel that take several entries of the log: each counts whole and
//! once, or not at all, and none is half there.
//!
//! Each writer has a row that counts its writes. A write replaces several megabytes of it and takes effect only
//! on the row that the one before left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemark_client::{Client, RequestId};
use tidemark_tests::{Blow, Cell, Layout, Load, Seed, Workload};
use tokio::task::JoinSet;

use super::{PATIENCE, hit_leaders, rounds};
use crate::PROGRAM;

/// Above what one entry of the log takes (4 MiB).
const BYTES: u64 = 6 << 20;
const WRITERS: i64 = 2;
/// Others at work meanwhile, on another database.
const LOAD: Load = Load {
    writers: 8,
    sessions: 2,
    readers: 2,
    rest: Duration::from_millis(50),
};
/// Small writes before and after each kill, at most: a few large ones go with them.
const PROGRESS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_of_killed_leaders_count_whole_or_not_at_all() {
    let seed = Seed::of("large_transactions_of_killed_leaders_count_whole_or_not_at_all");
    let mut random = seed.stream(0);
    let mut cell = Cell::of(PROGRAM, Layout::default()).await;
    let mut workload = Workload::start(&cell, seed, LOAD).await;
    let leader = cell.leader().await;
    let api = cell.voters[leader].api();
    api.create("large").await;
    let table = "CREATE TABLE large (writer INTEGER PRIMARY KEY, n INTEGER, data BLOB)";
    api.query("large", table).ok().await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let insert = format!("INSERT INTO large VALUES ({writer}, 0, NULL)");
        api.query("large", &insert).ok().await;
        let client = cell.client(random.usize(..4));
        let ids = seed.stream(1 + writer.unsigned_abs());
        writers.spawn(write(client, writer, ids, Arc::clone(&stop)));
    }
    let kills = (Blow::Kill, rounds(3), PROGRESS);
    hit_leaders(&mut cell, &mut workload, &mut random, kills).await;
    stop.store(true, Ordering::Relaxed);
    let mut counts = Vec::new();
    while let Some(ended) = writers.join_next().await {
        counts.push(ended.expect("every write counts in the end"));
    }
    counts.sort_unstable();
    eprintln!("writes of {BYTES} bytes by writer: {counts:?}");

    workload.judged(&cell, PATIENCE).await;
    for node in cell.nodes() {
        let sql = "SELECT writer, n, length(data) AS bytes FROM large ORDER BY writer";
        let query = node.api().query("large", sql);
        let reply = query.bookmark("first-unconstrained").ok().await;
        for ((writer, count), row) in counts.iter().zip(reply.rows()) {
            assert_eq!(row["writer"], *writer, "on {}", node.name());
            assert_eq!(row["n"], *count, "writer {writer} on {}", node.name());
            assert_eq!(row["bytes"], BYTES, "writer {writer} on {}", node.name());
        }
    }
    cell.stop().await;
}

/// Writes until told to stop, and at least once; returns the writer and how many writes counted.
async fn write(
    client: Client,
    writer: i64,
    mut ids: fastrand::Rng,
    stop: Arc<AtomicBool>,
) -> (i64, i64) {
    let database = client.database("large");
    let sql = format!(
        "UPDATE large SET n = n + 1, data = randomblob({BYTES}) WHERE writer = ? AND n = ?"
    );
    let mut n = 0;
    while n == 0 || !stop.load(Ordering::Relaxed) {
        let uuid = uuid::Builder::from_random_bytes(ids.u128(..).to_be_bytes());
        let request = RequestId::new(uuid.into_uuid());
        let begun = Instant::now();
        let outcome = loop {
            let update = database.prepare(&sql).bind(writer).bind(n);
            match update.request_id(request).run().await {
                Ok(outcome) => break outcome,
                Err(error) => {
                    let retryable = error.kind().is_some_and(|kind| kind.retryable());
                    let tried = begun.elapsed();
                    assert!(
                        retryable && tried < PATIENCE,
                        "writer {writer}, after {tried:?}: {error}"
                    );
                }
            }
        };
        assert_eq!(outcome.meta.changes, 1, "write {n} of writer {writer}");
        n += 1;
    }
    (writer, n)
}
