//! Where data lies: a database with a jurisdiction never leaves it, and how far the others' replicas are is told.

use reqwest::Method;
use serde_json::{Value, json};
use tidemark_tests::{Api, Lagging, Reply, wait};

use crate::PROGRAM;

async fn create(api: &Api, body: Value) -> Reply {
    let headers = [("content-type", "application/json")];
    let path = Api::path("");
    let sent = api.send(Method::POST, &path, &headers, body.to_string());
    sent.await.expect("the node answers")
}

async fn replicas_of(api: &Api, database: &str) -> Value {
    let path = format!("/tidemark/v1/databases/{database}/replicas");
    let reply = api.get(&path).await.expect("the node answers");
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json["result"].clone()
}

/// The cell is in ENAM, the replicas are elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn database_with_a_jurisdiction_is_made_and_held_in_that_alone() {
    let mut cluster = Lagging::start(PROGRAM, 12).await;
    let primary = cluster.primary.api();
    let replica = cluster.replicas[0].api();

    for (body, reason) in [
        (
            json!({ "name": "no", "jurisdiction": "eu" }),
            "jurisdiction => region enam of this cell is not in jurisdiction 'eu'",
        ),
        (
            json!({ "name": "no", "jurisdiction": "mars" }),
            "jurisdiction => 'mars' is none of eu, fedramp, us",
        ),
        (
            json!({ "name": "no", "primary_location_hint": "mars" }),
            "primary_location_hint => 'mars' is none of wnam, enam, weur, eeur, apac, oc",
        ),
    ] {
        let refused = create(&replica, body).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert_eq!(
            refused.error(),
            (7400, &*format!("Invalid property: {reason}"))
        );
    }

    let body = json!({ "name": "ours", "jurisdiction": "us", "primary_location_hint": "WEUR" });
    let ours = create(&primary, body).await.json["result"].clone();
    assert_eq!(ours["jurisdiction"], "us");
    assert_eq!(ours["primary_location_hint"], "weur");
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (7)";
    let written = primary.query("ours", sql).ok().await;
    // Made later: a replica that has it knows of the other.
    let everywhere = primary.create("everywhere").await;
    let made = "CREATE TABLE t (id INTEGER PRIMARY KEY)";
    primary.query("everywhere", made).ok().await;
    wait::soon("all replicas have the one", async || {
        let of = replicas_of(&replica, "everywhere").await;
        let replicas = of["replicas"].as_array()?;
        let behind =
            |replica: &Value| replica["behind"] == 0 && replica["applied"] == of["position"];
        (replicas.len() == 3 && replicas.iter().all(behind)).then_some(())
    })
    .await;
    let of = replicas_of(&primary, &everywhere).await;
    assert_eq!(of["uuid"], *everywhere);
    let regions: Vec<_> = of["replicas"].as_array().expect("a list").iter().collect();
    let regions: Vec<_> = regions.iter().map(|replica| &replica["region"]).collect();
    assert_eq!(regions, ["APAC", "OC", "WEUR"]);

    assert_eq!(replicas_of(&primary, "ours").await["replicas"], json!([]));
    for replica in &cluster.replicas {
        let status = replica.api().status().await.expect("the node answers");
        let held: Vec<_> = status.databases.iter().map(|held| &*held.name).collect();
        assert!(
            held.contains(&"everywhere") && !held.contains(&"ours"),
            "{held:?}"
        );
        let read = replica.api().query("ours", "SELECT id FROM t");
        let read = read.bookmark(&written.bookmark()).ok().await;
        assert_eq!(read.rows(), &vec![json!({ "id": 7 })]);
        let delivered = read.header("tidemark-delivered").expect("it says what");
        assert!(
            delivered.ends_with("forwarded=unknown-database"),
            "{delivered}"
        );
        let uuid = ours["uuid"].as_str().expect("a UUID");
        assert!(!replica.database_file(uuid).exists(), "{uuid}");
    }
    cluster.stop().await;
}
