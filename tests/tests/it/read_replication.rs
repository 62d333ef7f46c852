//! Read replication switched off and on again, with D1's own PATCH, under a session that goes on.
//!
//! What is at stake: replicas hold nothing of a database that is not to be replicated, and whoever speaks to
//! them does not notice but for the way to the primary.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tidemark_tests::{Api, Cluster, Node, Place, wait};

use crate::PROGRAM;

const NAME: &str = "shop";
/// One way to the farther replica.
const FAR: Duration = Duration::from_millis(10);
/// Steps of the session that show that it goes on.
const STEPS: usize = 30;

/// A session that writes at one replica and reads at the other, in turn.
struct Shopper {
    stop: Arc<AtomicBool>,
    /// Regions of the replicas that answered reads themselves, `None` where the primary did.
    reads: Arc<Mutex<Vec<Option<String>>>>,
    task: tokio::task::JoinHandle<u64>,
}

impl Shopper {
    fn start(replicas: [Api; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(shop(replicas, Arc::clone(&stop), Arc::clone(&reads)));
        Self { stop, reads, task }
    }

    /// Who answers the next reads.
    async fn next(&self, more: usize) -> Vec<Option<String>> {
        let before = self.lock().len();
        wait::soon("the session goes on", async || {
            assert!(!self.task.is_finished(), "a request of the session failed");
            (self.lock().len() >= before + more).then_some(())
        })
        .await;
        self.lock()[before..].to_vec()
    }

    /// Waits until both replicas answer by themselves.
    async fn until_both_answer(&self) {
        wait::soon("both replicas answer by themselves", async || {
            let latest = self.next(2).await;
            latest.iter().all(Option::is_some).then_some(())
        })
        .await;
    }

    /// Ends the session; returns how many rows it wrote.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no request of the session fails")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Option<String>>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Panics if a request fails, or does not see what the session has written.
async fn shop(
    replicas: [Api; 2],
    stop: Arc<AtomicBool>,
    reads: Arc<Mutex<Vec<Option<String>>>>,
) -> u64 {
    let mut bookmark = "first-unconstrained".to_owned();
    for n in 1.. {
        let [here, there] = [0, 1].map(|other| &replicas[(usize::from(n % 2 == 0) + other) % 2]);
        let insert = here.query(NAME, "INSERT INTO orders DEFAULT VALUES");
        bookmark = insert.bookmark(&bookmark).ok().await.bookmark();
        let count = there.query(NAME, "SELECT count(*) AS n FROM orders");
        let reply = count.bookmark(&bookmark).ok().await;
        assert_eq!(reply.rows()[0]["n"], n, "orders seen after {n} were made");
        assert!(reply.bookmark() >= bookmark, "the session went back");
        bookmark = reply.bookmark();
        let meta = reply.meta();
        let itself = meta["served_by_primary"] == false;
        let region = meta["served_by_region"].as_str().map(str::to_owned);
        let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.push(region.filter(|_| itself));
        if stop.load(Ordering::Relaxed) {
            return n;
        }
    }
    unreachable!("it counts for ever")
}

/// Asks `node` to switch read replication.
async fn switch(node: &Node, mode: &str) {
    let headers = [("content-type", "application/json")];
    let body = json!({ "read_replication": { "mode": mode } }).to_string();
    let reply = node
        .api()
        .send(Method::PATCH, &Api::path(NAME), &headers, body)
        .await
        .expect("the node answers");
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json["result"]["read_replication"]["mode"], mode);
}

fn directory(node: &Node, uuid: &str) -> PathBuf {
    let file = node.database_file(uuid);
    file.parent().expect("a file in a directory").to_owned()
}

async fn until_files(cluster: &Cluster, uuid: &str, there: bool) {
    for replica in &cluster.replicas {
        let what = if there { "has" } else { "has no" };
        let what = format!("{} {what} files of it", replica.name());
        wait::soon(&what, async || {
            (directory(replica, uuid).exists() == there).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_switched_off_and_on_drops_files_and_fetches_them_under_a_session() {
    let mut cluster = Cluster::start(PROGRAM, &[Place::near("WEUR"), Place::at("APAC", FAR)]).await;
    let uuid = cluster.primary.api().create(NAME).await;
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY)";
    cluster.primary.api().query(NAME, table).ok().await;
    cluster.settled(wait::SOON).await;
    let shopper = Shopper::start([0, 1].map(|at| cluster.replicas[at].api()));
    shopper.until_both_answer().await;

    for round in 0..3 {
        // A replica hands it on.
        switch(&cluster.replicas[round % 2], "disabled").await;
        until_files(&cluster, &uuid, false).await;
        let reads = shopper.next(STEPS).await;
        // The first may have been under way.
        assert_eq!(reads[1..], vec![None; reads.len() - 1], "who answered");
        for replica in &cluster.replicas {
            let status = replica.api().status().await.expect("a status");
            let listed = status.databases.iter().any(|d| d.uuid.to_string() == uuid);
            assert!(!listed, "{} still has a copy", replica.name());
            let path = Api::path(NAME);
            let shown = replica.api().get(&path).await.expect("the node answers");
            let mode = &shown.json["result"]["read_replication"]["mode"];
            assert_eq!(mode, "disabled", "on {}", replica.name());
        }
        assert!(directory(&cluster.primary, &uuid).exists());

        switch(&cluster.primary, "auto").await;
        if round > 0 {
            // At once, before anybody has dropped or fetched anything.
            switch(&cluster.primary, "disabled").await;
            switch(&cluster.primary, "auto").await;
        }
        until_files(&cluster, &uuid, true).await;
        shopper.until_both_answer().await;
    }

    let orders = shopper.stop().await;
    cluster.verified(wait::SOON).await;
    for node in cluster.nodes() {
        let count = "SELECT count(*) AS n FROM orders";
        let reply = node.api().query(NAME, count);
        let reply = reply.bookmark("first-unconstrained").ok().await;
        assert_eq!(reply.rows()[0]["n"], orders, "on {}", node.name());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_was_down_when_replication_was_switched_finds_out() {
    let mut cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let uuid = cluster.primary.api().create(NAME).await;
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY)";
    cluster.primary.api().query(NAME, table).ok().await;
    cluster.settled(wait::SOON).await;

    cluster.replicas[0].kill();
    switch(&cluster.primary, "disabled").await;
    let insert = "INSERT INTO orders DEFAULT VALUES";
    let written = cluster.primary.api().query(NAME, insert).ok().await;
    cluster.replicas[0].start();
    cluster.replicas[0].ready().await;
    until_files(&cluster, &uuid, false).await;
    let count = "SELECT count(*) AS n FROM orders";
    let weur = cluster.replicas[0].api();
    let reply = weur.query(NAME, count).bookmark(&written.bookmark());
    let reply = reply.ok().await;
    assert_eq!(reply.rows()[0]["n"], 1);
    assert_eq!(reply.meta()["served_by_primary"], true);

    cluster.replicas[0].kill();
    switch(&cluster.primary, "auto").await;
    cluster.replicas[0].start();
    cluster.replicas[0].ready().await;
    until_files(&cluster, &uuid, true).await;
    cluster.verified(wait::SOON).await;
    cluster.stop().await;
}
