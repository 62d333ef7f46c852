//! The cluster of `deploy/docker-compose.yml` in real containers: what an operator does in the first hour, and
//! what can happen to the cluster in the first year.
//!
//! Skipped, with the reason on standard error, where no Docker engine runs and none can be started (not root, or
//! `docker.io`, `docker-compose` and `iptables` are not installed).

mod cluster;
mod engine;
mod metrics;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tidemark_client::{Client, OnMiss, SessionStart};
use tidemark_tests::wait;

use self::cluster::{Cluster, Service};
use self::engine::Engine;
use crate::sqlite3;

/// One way from OC to ENAM, as `wan.toml` has it, twice.
const OC_ROUND_TRIP: Duration = Duration::from_millis(201);
/// Time for a cell to have another leader and for replicas to find it.
const FAILOVER_WAIT: Duration = Duration::from_secs(40);

#[tokio::test]
async fn nine_containers_serve_survive_and_stop() {
    let Some(engine) = Engine::of_this_machine().await else {
        return;
    };
    let cluster = Cluster::up(&engine).await;
    assert_eq!(cluster.healthy().await, 9);
    assert_eq!(cluster.users().await, ["65532:65532"], "nobody is root");

    // Written in Oceania, over the whole ocean; read in Europe at once, by the bookmark.
    let [oc, weur] = [Service::Oc, Service::Weur].map(|service| cluster.client(service));
    weur.create_database("shop")
        .await
        .expect("create a database");
    let session = oc.database("shop").session(SessionStart::Primary);
    let create = session.prepare("CREATE TABLE customers (name TEXT)");
    create.run().await.expect("create a table");
    let sent = Instant::now();
    insert(&session, "Ada").await;
    let took = sent.elapsed();
    assert!(took >= OC_ROUND_TRIP, "a write from Oceania took {took:?}");
    let bookmark = session.bookmark().expect("a write leaves a bookmark");
    assert_eq!(
        count(&weur, &bookmark, OnMiss::Error)
            .await
            .expect("read in Europe"),
        1
    );

    // What every node shows is what alerts and dashboard ask for, and what Prometheus understands.
    metrics::check(&cluster).await;

    leader_is_killed(&cluster, &oc, &weur).await;
    region_is_cut_off(&cluster, &oc, &weur).await;

    let exits = cluster.stop().await;
    assert!(exits.iter().all(|(_, code)| *code == 0), "{exits:?}");
    assert_eq!(exits.len(), 9, "{exits:?}");
    backup_is_a_copy(&cluster).await;
    cluster.wipe().await;
}

async fn leader_is_killed(cluster: &Cluster<'_>, oc: &Client, weur: &Client) {
    let leader = cluster.leader().await.expect("somebody leads");
    cluster.docker(&["kill", &cluster.container(leader)]).await;
    let others = Service::VOTERS.into_iter().filter(|voter| *voter != leader);
    let others: Vec<_> = others.collect();
    wait::until("another leader", FAILOVER_WAIT, async || {
        cluster.leader_of(&others).await
    })
    .await;
    let session = oc.database("shop").session(SessionStart::Unconstrained);
    // The client asks again, under the same request id, until the replica has found the new leader.
    insert(&session, "Grace").await;
    let bookmark = session.bookmark().expect("a write leaves a bookmark");
    assert_eq!(
        count(weur, &bookmark, OnMiss::Forward)
            .await
            .expect("read in Europe"),
        2
    );
    cluster.docker(&["start", &cluster.container(leader)]).await;
    cluster.all_healthy().await;
}

async fn region_is_cut_off(cluster: &Cluster<'_>, oc: &Client, weur: &Client) {
    let links = cluster
        .wan("PATCH", "/regions/OC", json!({ "cut": "both" }))
        .await;
    assert_eq!(links.as_array().map(Vec::len), Some(3), "{links}");
    let session = weur.database("shop").session(SessionStart::Unconstrained);
    insert(&session, "Edsger").await;
    let bookmark = session.bookmark().expect("a write leaves a bookmark");

    // Alone, Oceania still answers whoever takes what it has, and nobody who must see what it cannot have.
    let old = oc.database("shop").session(SessionStart::Unconstrained);
    let old = old.prepare("SELECT count(*) AS n FROM customers");
    let n: Option<i64> = old.first_column("n").await.expect("read in Oceania");
    assert_eq!(n, Some(2));
    let missed = count(oc, &bookmark, OnMiss::Error).await;
    missed.expect_err("Oceania cannot have this write");

    cluster.wan("PUT", "/regions/OC", json!({})).await;
    let n = wait::until("Oceania catches up", wait::SOON, async || {
        count(oc, &bookmark, OnMiss::Error).await.ok()
    })
    .await;
    assert_eq!(n, 3);
}

/// What docs/operations.md says of backups: the files of a replica that was stopped are ordinary databases.
async fn backup_is_a_copy(cluster: &Cluster<'_>) {
    if !sqlite3::available() {
        return;
    }
    let copy = tempfile::tempdir().expect("make a temporary directory");
    let [from, to] = [
        format!("{}:/data", cluster.container(Service::Oc)),
        copy.path().join("data").display().to_string(),
    ];
    cluster.docker(&["cp", &from, &to]).await;
    let folders = std::fs::read_dir(copy.path().join("data/databases")).expect("a replica's files");
    let files = folders.map(|folder| folder.expect("a folder").path().join("main.db"));
    let customers = |file: &PathBuf| {
        let has = "SELECT name FROM sqlite_schema WHERE name = 'customers'";
        !sqlite3::rows(file, has).is_empty()
    };
    let shop: Vec<_> = files.filter(customers).collect();
    assert_eq!(shop.len(), 1, "{shop:?}");
    assert_eq!(
        sqlite3::run(&shop[0], &[], "PRAGMA integrity_check"),
        "ok\n"
    );
    let rows = sqlite3::rows(&shop[0], "SELECT count(*) AS n FROM customers");
    assert_eq!(rows, [json!({ "n": 3 })]);
}

async fn insert(session: &tidemark_client::Session, name: &str) {
    let insert = session
        .prepare("INSERT INTO customers VALUES (?)")
        .bind(name);
    let deadline = FAILOVER_WAIT;
    insert
        .deadline(deadline)
        .run()
        .await
        .expect("insert a customer");
}

/// How many customers a client sees that must not see less than this bookmark.
async fn count(
    client: &Client,
    bookmark: &str,
    on_miss: OnMiss,
) -> Result<i64, tidemark_client::Error> {
    let start = SessionStart::Bookmark(bookmark.to_owned());
    let session = client.database("shop").session(start);
    let count = session.prepare("SELECT count(*) AS n FROM customers");
    let count = count.on_miss(on_miss).deadline(Duration::from_secs(2));
    let n: Option<i64> = count.first_column("n").await?;
    Ok(n.expect("a count has a row"))
}
