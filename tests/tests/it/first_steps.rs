//! The promise in one page: write anywhere, read your own write at any replica, and see how old a read
//! is that did not ask for anything.

use std::time::Duration;

use tidemark_tests::{Cluster, Place, wait};

use crate::PROGRAM;

#[tokio::test(flavor = "multi_thread")]
async fn write_through_one_region_is_read_at_another_by_its_bookmark() {
    let places = [
        Place::at("WEUR", Duration::from_millis(40)),
        Place::at("APAC", Duration::from_millis(90)),
    ];
    let cluster = Cluster::start(PROGRAM, &places).await;
    let [weur, apac] = [cluster.replicas[0].api(), cluster.replicas[1].api()];

    let uuid = weur.create("shop").await;
    let created = weur
        .query("shop", "CREATE TABLE visits (page TEXT)")
        .ok()
        .await;
    // The replica knows the database once it has been told of it, and answers for itself from then on.
    wait::soon("APAC follows the new database", async || {
        let status = apac.status().await.ok()?;
        status
            .databases
            .iter()
            .any(|database| database.uuid.to_string() == uuid)
            .then_some(())
    })
    .await;

    let write = weur
        .query("shop", "INSERT INTO visits VALUES ('/home')")
        .bookmark(&created.bookmark())
        .ok()
        .await;
    assert_eq!(write.meta()["served_by_primary"], true);
    assert_eq!(write.meta()["served_by_region"], "ENAM");
    assert_eq!(write.meta()["changes"], 1);
    assert!(
        write.bookmark() > created.bookmark(),
        "bookmarks grow as text"
    );

    let read = apac
        .query(&uuid, "SELECT page FROM visits")
        .bookmark(&write.bookmark())
        .ok()
        .await;
    assert_eq!(read.rows(), &vec![serde_json::json!({ "page": "/home" })]);
    assert_eq!(read.meta()["served_by_region"], "APAC");
    assert_eq!(read.meta()["served_by_primary"], false);
    assert!(
        read.bookmark() >= write.bookmark(),
        "a session never goes back"
    );
    let served_by = read
        .header("tidemark-served-by")
        .unwrap_or_default()
        .to_owned();
    assert!(served_by.starts_with("APAC/replica/"), "{served_by}");

    // Without a session it is D1's plain query: the primary answers, whichever node was asked.
    let plain = apac.query("shop", "SELECT page FROM visits").ok().await;
    assert_eq!(plain.meta()["served_by_region"], "ENAM");
    assert_eq!(plain.rows().len(), 1);

    cluster.verified(wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_is_cut_off_is_stale_and_says_so() {
    let mut cluster = Cluster::start(PROGRAM, &[Place::near("APAC")]).await;
    let (primary, apac) = (cluster.primary.api(), cluster.replicas[0].api());
    let count = "SELECT count(*) AS n FROM t";
    primary.create("shop").await;
    let old = primary
        .query("shop", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        .ok()
        .await;
    cluster.settled(wait::SOON).await;

    cluster.ways[0].cut_both();
    let new = primary.query("shop", "INSERT INTO t VALUES (2)").ok().await;

    let stale = apac
        .query("shop", count)
        .bookmark("first-unconstrained")
        .ok()
        .await;
    assert_eq!(stale.rows()[0]["n"], 1);
    assert_eq!(stale.meta()["served_by_region"], "APAC");
    assert_eq!(
        stale.bookmark(),
        old.bookmark(),
        "the answer says how old it is"
    );

    let bounded = |rule: &'static str| {
        apac.query("shop", count)
            .bookmark(&new.bookmark())
            .header("tidemark-deadline", "300ms")
            .header("tidemark-on-miss", rule)
    };
    let refused = bounded("error").send().await.expect("the replica answers");
    assert_eq!(refused.status, 412, "{}", refused.text);
    assert_eq!(refused.error().0, 7902, "{}", refused.text);
    assert_eq!(refused.header("tidemark-failure"), Some("stale"));
    let older = bounded("stale").ok().await;
    assert_eq!(older.rows()[0]["n"], 1);
    assert_eq!(older.bookmark(), old.bookmark());

    cluster.ways[0].heal_both();
    let read = apac
        .query("shop", count)
        .bookmark(&new.bookmark())
        .header("tidemark-on-miss", "error")
        .ok()
        .await;
    assert_eq!(read.rows()[0]["n"], 2);
    assert_eq!(read.meta()["served_by_region"], "APAC");

    cluster.verified(wait::SOON).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_database_is_gone_everywhere() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let (primary, weur) = (cluster.primary.api(), cluster.replicas[0].api());
    let uuid = weur.create("shop").await;
    cluster.settled(wait::SOON).await;
    let path = tidemark_tests::Api::path(&uuid);
    let deleted = weur
        .send(reqwest::Method::DELETE, &path, &[], "")
        .await
        .expect("an answer");
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    for api in [&primary, &weur] {
        wait::soon("the database is gone", async || {
            let reply = api.get(&path).await.ok()?;
            (reply.status == 404).then_some(())
        })
        .await;
    }
    let files = cluster.replicas[0].database_file(&uuid);
    wait::soon("the replica's files are gone", async || {
        (!files.exists()).then_some(())
    })
    .await;
    // The name is free again, and nothing of the old content comes back.
    assert_ne!(primary.create("shop").await, uuid);
    let tables = primary
        .query("shop", "SELECT count(*) AS n FROM sqlite_schema")
        .ok()
        .await;
    assert_eq!(tables.rows()[0]["n"], 0);
}
