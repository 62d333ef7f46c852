//! kill -9, again and again, while sessions write and read at all nodes: no acknowledged write may be
//! lost or doubled, and no session may see time go backwards.
//!
//! Each session is a chain of its own numbers 1, 2, 3, … It writes the next one at some node until that
//! is acknowledged, under one request id, then reads at some node, by its bookmark, what it must see by
//! then. The primary key makes a write that counted twice an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidemark_client::{Client, Error, RequestId, Session, SessionStart};
use tidemark_tests::{Cluster, Place, Seed, wait};

use crate::PROGRAM;

const KILLS_EACH: usize = 20;
const SESSIONS: u64 = 8;
/// Most writes that are acknowledged between two kills, at least one: each kill hits a cluster at work.
const PROGRESS_MAX: u64 = 150;
/// One way to the farther replica: its sessions are often ahead of it.
const FAR: Duration = Duration::from_millis(10);
/// How long one operation may fail before the test does: several restarts.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn killed_nodes_lose_nothing_and_sessions_never_go_back() {
    let seed = Seed::of("killed_nodes_lose_nothing_and_sessions_never_go_back");
    let mut cluster = Cluster::start(PROGRAM, &[Place::near("WEUR"), Place::at("APAC", FAR)]).await;
    cluster.primary.api().create("chains").await;
    let table = "CREATE TABLE chain (session INTEGER, n INTEGER, PRIMARY KEY (session, n))";
    cluster.primary.api().query("chains", table).ok().await;

    let clients: Arc<Vec<Client>> = Arc::new(cluster.nodes().map(Cluster::client).collect());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..SESSIONS {
        let chain = Chain {
            number,
            random: seed.stream(number),
            clients: Arc::clone(&clients),
            acknowledged: Arc::clone(&acknowledged),
            stop: Arc::clone(&stop),
        };
        sessions.spawn(chain.run());
    }

    let mut random = seed.stream(SESSIONS);
    for _ in 0..KILLS_EACH {
        progress(random.u64(1..=PROGRESS_MAX), &acknowledged, &mut sessions).await;
        cluster.primary.kill_and_restart().await;
        progress(random.u64(1..=PROGRESS_MAX), &acknowledged, &mut sessions).await;
        let replica = random
            .choice(&mut cluster.replicas)
            .expect("there are replicas");
        replica.kill_and_restart().await;
    }
    progress(PROGRESS_MAX, &acknowledged, &mut sessions).await;
    stop.store(true, Ordering::Relaxed);
    let mut chains = Vec::new();
    while let Some(ended) = sessions.join_next().await {
        chains.push(ended.expect("a session's findings hold"));
    }
    chains.sort_unstable();

    cluster.verified(Duration::from_secs(60)).await;
    let sql = "SELECT session, max(n) AS last, count(*) AS n FROM chain GROUP BY session \
               ORDER BY session";
    for node in cluster.nodes() {
        let reply = node
            .api()
            .query("chains", sql)
            .bookmark("first-unconstrained")
            .ok()
            .await;
        for ((number, last), row) in chains.iter().zip(reply.rows()) {
            assert_eq!(row["session"], *number, "on {}", node.name());
            assert_eq!(row["last"], *last, "session {number} on {}", node.name());
            assert_eq!(row["n"], *last, "session {number} on {}", node.name());
        }
        assert_eq!(reply.rows().len(), chains.len(), "on {}", node.name());
    }
    eprintln!(
        "{} writes acknowledged",
        acknowledged.load(Ordering::Relaxed)
    );
}

/// Waits until `more` writes are acknowledged. Panics if a session has ended meanwhile.
async fn progress(
    more: u64,
    acknowledged: &AtomicU64,
    sessions: &mut tokio::task::JoinSet<(u64, u64)>,
) {
    let goal = acknowledged.load(Ordering::Relaxed) + more;
    wait::until("writes are acknowledged", PATIENCE, async || {
        if let Some(ended) = sessions.try_join_next() {
            panic!("a session ended early: {ended:?}");
        }
        (acknowledged.load(Ordering::Relaxed) >= goal).then_some(())
    })
    .await;
}

struct Chain {
    number: u64,
    random: fastrand::Rng,
    clients: Arc<Vec<Client>>,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Chain {
    /// Writes and reads until told to stop; returns its number and its last acknowledged write.
    async fn run(mut self) -> (u64, u64) {
        let session = i64::try_from(self.number).expect("a handful of sessions");
        let mut bookmark = None;
        // All rows of all sessions that this one has seen: never fewer again.
        let mut seen = 0_i64;
        let mut last = 0_i64;
        while !self.stop.load(Ordering::Relaxed) {
            last += 1;
            let written = self.write(session, last, bookmark).await;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            let (own, all, read) = self.read(session, &written).await;
            assert_eq!(own, last, "session {session} does not see its write");
            assert!(
                all >= seen,
                "session {session} went back from {seen} to {all} rows"
            );
            assert!(
                read >= written,
                "session {session} went back from {written} to {read}"
            );
            (seen, bookmark) = (all, Some(read));
        }
        (self.number, u64::try_from(last).expect("counted from 1"))
    }

    /// Writes a number until that is acknowledged, at a node picked anew for each try, under one request
    /// id. Returns the session's bookmark.
    async fn write(&mut self, session: i64, number: i64, bookmark: Option<String>) -> String {
        let request = RequestId::new(random_uuid(&mut self.random));
        let started = Instant::now();
        loop {
            let chain = self.go_on(bookmark.clone());
            let insert = chain.prepare("INSERT INTO chain VALUES (?, ?)");
            match insert
                .bind(session)
                .bind(number)
                .request_id(request)
                .run()
                .await
            {
                Ok(_) => return chain.bookmark().expect("an answer carries a bookmark"),
                Err(error) => self.forgive(started, &error),
            }
        }
    }

    /// Reads the session's last number, and how many there are in all sessions, at a node picked anew
    /// for each try. Returns the session's bookmark too.
    async fn read(&mut self, session: i64, bookmark: &str) -> (i64, i64, String) {
        let sql =
            "SELECT (SELECT max(n) FROM chain WHERE session = ?), (SELECT count(*) FROM chain)";
        let started = Instant::now();
        loop {
            let chain = self.go_on(Some(bookmark.to_owned()));
            match chain.prepare(sql).bind(session).first::<(i64, i64)>().await {
                Ok(row) => {
                    let (own, all) = row.expect("an aggregate has a row");
                    return (
                        own,
                        all,
                        chain.bookmark().expect("an answer carries a bookmark"),
                    );
                }
                Err(error) => self.forgive(started, &error),
            }
        }
    }

    /// The session, at some node.
    fn go_on(&mut self, bookmark: Option<String>) -> Session {
        let client = self
            .random
            .choice(self.clients.iter())
            .expect("there are nodes");
        let start = bookmark.map_or(SessionStart::Primary, SessionStart::Bookmark);
        client.database("chains").session(start)
    }

    /// Panics unless a node was down, behind, or lost contact, and patience is left for another try.
    fn forgive(&self, started: Instant, error: &Error) {
        let tried = started.elapsed();
        let retryable = error.kind().is_some_and(|kind| kind.retryable());
        assert!(
            retryable && tried < PATIENCE,
            "session {}, after {tried:?}: {error}",
            self.number
        );
    }
}

/// A version 4 UUID of the test's own randomness.
fn random_uuid(random: &mut fastrand::Rng) -> uuid::Uuid {
    uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid()
}
