//! A replica that was away, or whose disk lied, comes back to the primary's state by itself.

use std::time::{Duration, Instant};

use tidemark_tests::{Api, Cluster, Place, Seed, flip_bit, wait};

use crate::PROGRAM;

/// Transactions that the replica misses, and connections that write them.
const MISSED: usize = 50_000;
const WRITERS: usize = 64;
/// Time to catch up: generous, for two slow cores and an unoptimised build.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn stopped_replica_catches_up_with_fifty_thousand_transactions() {
    let mut cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let primary = cluster.primary.api();
    let uuid = primary.create("counters").await;
    let schema = "CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
                  CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT NOT NULL)";
    primary.query("counters", schema).ok().await;
    for id in 0..WRITERS {
        let insert = format!("INSERT INTO counters VALUES ({id}, 0)");
        primary.query("counters", &insert).ok().await;
    }
    cluster.settled(wait::SOON).await;

    cluster.replicas[0].stop().await;
    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for id in 0..WRITERS {
        let primary = primary.clone();
        writers.spawn(async move {
            // Updates of a page that all share, and now and then a new row.
            let update = format!("UPDATE counters SET n = n + 1 WHERE id = {id}");
            let insert = format!("INSERT INTO events (what) VALUES ('event of {id}')");
            for number in 0..share(id) {
                let sql = if number % 4 == 0 { &insert } else { &update };
                primary.query("counters", sql).ok().await;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("every write is acknowledged");
    }
    let writing = started.elapsed();

    let started = Instant::now();
    cluster.replicas[0].start();
    cluster.settled(CATCH_UP_DEADLINE).await;
    eprintln!(
        "{MISSED} transactions written in {writing:?}, caught up in {:?}",
        started.elapsed()
    );
    cluster.verified(wait::SOON).await;
    let status = primary.status().await.expect("a status");
    let position = status
        .databases
        .iter()
        .find(|database| database.uuid.to_string() == uuid);
    let seq = position.expect("the database is there").position.seq.0;
    assert_eq!(
        seq,
        (1 + WRITERS + MISSED) as u64,
        "each statement was its own transaction"
    );

    let sums = "SELECT (SELECT sum(n) FROM counters) + (SELECT count(*) FROM events) AS n";
    let read = cluster.replicas[0]
        .api()
        .query("counters", sums)
        .bookmark("first-unconstrained")
        .ok()
        .await;
    assert_eq!(read.rows()[0]["n"], MISSED);
    assert_eq!(read.meta()["served_by_region"], "WEUR");
}

/// Transactions of one of the writers: together [`MISSED`].
fn share(id: usize) -> usize {
    MISSED / WRITERS + usize::from(id < MISSED % WRITERS)
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_byte_is_noticed_before_it_is_served_and_repaired() {
    let seed = Seed::of("flipped_byte_is_noticed_before_it_is_served_and_repaired");
    let mut random = seed.stream(0);
    let mut cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let primary = cluster.primary.api();
    let uuid = primary.create("library").await;
    let fill = "CREATE TABLE books (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                INSERT INTO books SELECT i, printf('%.1000c', 'a' || i % 10) FROM n";
    primary.query("library", fill).ok().await;
    cluster.settled(wait::SOON).await;
    let sum = "SELECT count(*) AS n, sum(length(replace(text, 'a', ''))) AS other FROM books";
    let expected = primary.query("library", sum).ok().await.rows().clone();

    for round in 0..5 {
        cluster.replicas[0].stop().await;
        let file = cluster.replicas[0].database_file(&uuid);
        let bytes = std::fs::metadata(&file).expect("the file is there").len();
        assert!(
            bytes > 1_000_000,
            "{bytes} bytes were checkpointed at the stop"
        );
        // Anywhere but in the header's first page, which SQLite itself would refuse.
        let offset = random.u64(4096..bytes);
        eprintln!("round {round}: flipping a bit of byte {offset} of {bytes}");
        flip_bit(&file, offset);

        // Cut off, it cannot be repaired yet: it must say so instead of answering.
        cluster.ways[0].cut_both();
        cluster.replicas[0].start();
        let weur = cluster.replicas[0].api();
        wait::soon("the replica lives", async || weur.get("/health").await.ok()).await;
        let refused = weur
            .query("library", sum)
            .bookmark("first-unconstrained")
            .header("tidemark-deadline", "300ms")
            .header("tidemark-on-miss", "error")
            .send()
            .await
            .expect("the replica answers");
        assert_ne!(
            refused.status, 200,
            "served from a damaged file: {}",
            refused.text
        );

        cluster.ways[0].heal_both();
        cluster.replicas[0].ready().await;
        let read = until_served_there(&weur, sum).await;
        assert_eq!(read, expected);
        cluster.verified(wait::SOON).await;
    }

    cluster.stop().await;
    let [ours, theirs] = [&cluster.primary, &cluster.replicas[0]]
        .map(|node| std::fs::read(node.database_file(&uuid)).expect("read a database file"));
    assert!(ours == theirs, "the files differ after the repair");
}

/// The rows as the replica itself, and not the primary for it, serves them.
async fn until_served_there(replica: &Api, sql: &str) -> Vec<serde_json::Value> {
    wait::soon("the replica serves by itself", async || {
        let query = replica
            .query("library", sql)
            .bookmark("first-unconstrained");
        let reply = query
            .send()
            .await
            .ok()
            .filter(|reply| reply.status == 200)?;
        (reply.meta()["served_by_region"] == "WEUR").then(|| reply.rows().clone())
    })
    .await
}
