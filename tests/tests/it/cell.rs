//! kill -9 of whoever leads a cell of three, under writers at all nodes: another leads within moments, no
//! acknowledged write is lost and none counts twice, and in the end all copies are the same.
//!
//! Each writer counts 1, 2, 3, … and writes the next number, under one request id, until that is
//! acknowledged. The primary key makes a write that counted twice an error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidemark_client::{Client, RequestId};
use tidemark_tests::{Cell, Seed, wait};
use tokio::task::JoinSet;

use crate::PROGRAM;

const KILLS: usize = 4;
const WRITERS: i64 = 8;
/// Most writes that are acknowledged before a kill, at least one.
const PROGRESS_MAX: usize = 300;
/// How long one write may fail before the test does.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest silence around a kill. The aim is 2 s; this machine may have more to do than that.
const SILENCE_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn killed_leaders_lose_nothing_and_successors_are_quick() {
    let seed = Seed::of("killed_leaders_lose_nothing_and_successors_are_quick");
    let mut random = seed.stream(0);
    let mut cell = Cell::start(PROGRAM).await;
    let leader = cell.leader().await;
    cell.voters[leader].api().create("chains").await;
    let table = "CREATE TABLE chain (writer INTEGER, n INTEGER, PRIMARY KEY (writer, n))";
    cell.replicas[0].api().query("chains", table).ok().await;

    let work = Arc::new(Work::default());
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let client = cell.client(random.usize(..4));
        writers.spawn(write(client, number, seed, Arc::clone(&work)));
    }
    let mut kills = Vec::new();
    for _ in 0..KILLS {
        work.progress(random.usize(1..=PROGRESS_MAX), &mut writers)
            .await;
        let leader = cell.leader().await;
        cell.voters[leader].kill();
        kills.push(Instant::now());
        work.progress(random.usize(1..=PROGRESS_MAX), &mut writers)
            .await;
        cell.voters[leader].start();
        cell.voters[leader].ready().await;
    }
    work.progress(PROGRESS_MAX, &mut writers).await;
    work.stop.store(true, Ordering::Relaxed);
    let mut chains = Vec::new();
    while let Some(ended) = writers.join_next().await {
        chains.push(ended.expect("a writer's findings hold"));
    }
    chains.sort_unstable();

    cell.verified(PATIENCE).await;
    let leader = cell.leader().await;
    let sql =
        "SELECT writer, max(n) AS last, count(*) AS n FROM chain GROUP BY writer ORDER BY writer";
    for node in [&cell.voters[leader], &cell.replicas[0]] {
        let query = node.api().query("chains", sql);
        let reply = query.bookmark("first-unconstrained").ok().await;
        let found: Vec<_> = reply
            .rows()
            .iter()
            .map(|row| {
                (
                    row["writer"].as_i64(),
                    row["last"].as_i64(),
                    row["n"].as_i64(),
                )
            })
            .collect();
        let expected: Vec<_> = chains
            .iter()
            .map(|(writer, last)| (Some(*writer), Some(*last), Some(*last)))
            .collect();
        assert_eq!(found, expected, "on {}", node.name());
    }
    let silences = work.silences(&kills);
    eprintln!(
        "{} writes acknowledged; from the last one of a killed leader to the first of its successor: {silences:?}",
        work.acknowledged().len()
    );
    assert!(silences.iter().all(|silence| *silence < SILENCE_MAX));
    cell.stop().await;
}

/// Writes until told to stop; returns the writer's number and its last acknowledged write.
async fn write(client: Client, writer: i64, seed: Seed, work: Arc<Work>) -> (i64, i64) {
    let mut random = seed.stream(1 + writer.unsigned_abs());
    let database = client.database("chains");
    for n in 1.. {
        if work.stop.load(Ordering::Relaxed) {
            return (writer, n - 1);
        }
        let uuid = uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes());
        let request = RequestId::new(uuid.into_uuid());
        let begun = Instant::now();
        loop {
            let insert = database.prepare("INSERT INTO chain VALUES (?, ?)");
            let insert = insert.bind(writer).bind(n).request_id(request);
            match insert.run().await {
                Ok(_) => break,
                Err(error) => {
                    let retryable = error.kind().is_some_and(|kind| kind.retryable());
                    let tried = begun.elapsed();
                    assert!(
                        retryable && tried < PATIENCE,
                        "writer {writer}, after {tried:?}: {error}"
                    );
                }
            }
        }
        work.lock().push(Instant::now());
    }
    unreachable!("it counts for ever")
}

/// What the writers have done.
#[derive(Default)]
struct Work {
    acknowledged: Mutex<Vec<Instant>>,
    stop: AtomicBool,
}

impl Work {
    /// Waits until `more` writes are acknowledged. Panics if a writer has ended meanwhile.
    async fn progress(&self, more: usize, writers: &mut JoinSet<(i64, i64)>) {
        let goal = self.lock().len() + more;
        wait::until("writes are acknowledged", PATIENCE, async || {
            if let Some(ended) = writers.try_join_next() {
                panic!("a writer ended early: {ended:?}");
            }
            (self.lock().len() >= goal).then_some(())
        })
        .await;
    }

    /// The longest time without an acknowledgement from each of these moments to the next.
    fn silences(&self, moments: &[Instant]) -> Vec<Duration> {
        let acknowledged = self.acknowledged();
        let longest = |(at, from): (usize, &Instant)| {
            let until = moments.get(at + 1);
            let pairs = acknowledged
                .windows(2)
                .filter(|pair| pair[1] >= *from && until.is_none_or(|until| pair[1] < *until));
            pairs
                .map(|pair| pair[1] - pair[0])
                .max()
                .unwrap_or_default()
        };
        moments.iter().enumerate().map(longest).collect()
    }

    fn acknowledged(&self) -> Vec<Instant> {
        let mut sorted = self.lock().clone();
        sorted.sort_unstable();
        sorted
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
