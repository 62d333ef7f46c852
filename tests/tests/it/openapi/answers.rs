//! What a real cell answers, to everything that it can be asked for.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tidemark_tests::{Cell, Description, Node, Reply, wait};

use crate::PROGRAM;

const D: &str = "/client/v4/accounts/acc/d1/database";
const SECRET: &str = "Bearer secret-of-the-tests";

/// Asks, and notes what was asked for and with which status it was answered.
#[derive(Default)]
struct Walk(BTreeSet<(String, String, u16)>);

impl Walk {
    async fn ask(
        &mut self,
        node: &Node,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Reply {
        let reply = node.api().send(method.clone(), path, headers, body).await;
        let reply = reply.expect("the node answers");
        // That the answer is as described was looked at on the way: it is of a node.
        let operation = Description::of_this_build().operation(&method, path);
        let operation = operation.expect("described");
        let noted = (method.to_string(), operation.path.clone(), reply.status);
        self.0.insert(noted);
        reply
    }

    async fn post(&mut self, node: &Node, path: &str, body: Value) -> Reply {
        self.ask(node, Method::POST, path, &[], body.to_string())
            .await
    }

    async fn get(&mut self, node: &Node, path: &str) -> Reply {
        self.ask(node, Method::GET, path, &[], "").await
    }

    /// As somebody who knows the cluster secret, or not.
    async fn cell(&mut self, node: &Node, path: &str, knows: bool, body: &str) -> Reply {
        let secret = [("authorization", SECRET)];
        let headers = if knows { &secret[..] } else { &[] };
        let method = match path {
            "" => Method::GET,
            _ => Method::POST,
        };
        let path = format!("/tidemark/v1/cell{path}");
        self.ask(node, method, &path, headers, body.to_owned())
            .await
    }

    /// The operations that were not answered like this.
    fn missing(&self, status: impl Fn(u16, &str) -> bool) -> Vec<String> {
        let description = Description::of_this_build();
        let mut missing = Vec::new();
        for operation in description.operations() {
            for (described, _) in description.answers(operation) {
                let asked = (
                    operation.method.to_string(),
                    operation.path.clone(),
                    described,
                );
                if status(described, &operation.path) && !self.0.contains(&asked) {
                    missing.push(format!("{asked:?}"));
                }
            }
        }
        missing
    }
}

async fn databases(walk: &mut Walk, node: &Node) {
    let made = walk.post(node, D, json!({ "name": "shop" })).await;
    let uuid = made.json["result"]["uuid"].as_str().expect("a UUID");
    let one = format!("{D}/{uuid}");
    walk.get(node, D).await;
    walk.get(node, &format!("{D}?name=sh&page=2&per_page=1"))
        .await;
    walk.get(node, &one).await;
    walk.get(node, &format!("{D}/shop?fields=uuid,name")).await;
    let auto = json!({ "read_replication": { "mode": "auto" } }).to_string();
    walk.ask(node, Method::PUT, &one, &[], auto.clone()).await;
    walk.ask(node, Method::PATCH, &one, &[], auto).await;
    let doomed = walk.post(node, D, json!({ "name": "doomed" })).await;
    assert_eq!(doomed.status, 200);
    walk.ask(node, Method::DELETE, &format!("{D}/doomed"), &[], "")
        .await;
}

async fn queries(walk: &mut Walk, node: &Node) {
    let schema = "CREATE TABLE t (a INTEGER PRIMARY KEY, b, c REAL, d BLOB)";
    let insert = "INSERT INTO t VALUES (1, 'x', 1.5, x'0102'), (2, NULL, 9e999, x'')";
    let batch = json!({ "batch": [
        { "sql": schema },
        { "sql": insert },
        { "sql": "INSERT INTO t VALUES (?, ?, ?, ?)", "params": [3, true, null, [1, 2]] },
        { "sql": "SELECT * FROM t" },
    ] });
    let shop = format!("{D}/shop");
    walk.post(node, &format!("{shop}/query"), batch).await;
    for form in ["d1", "exact"] {
        for way in ["query", "raw"] {
            let id = uuid::Uuid::new_v4().to_string();
            let headers = [
                ("tidemark-values", form),
                ("x-d1-bookmark", "first-unconstrained"),
                ("tidemark-request-id", &id),
            ];
            let path = format!("{shop}/{way}");
            let body = json!({ "sql": "SELECT *, a AS b FROM t; SELECT 9223372036854775807 AS n" });
            walk.ask(node, Method::POST, &path, &headers, body.to_string())
                .await;
        }
    }
    for refused in [json!({}), json!({ "sql": "SELECT * FROM nope" })] {
        walk.post(node, &format!("{shop}/query"), refused).await;
    }
    for path in ["/query", "/execute", "/d1/shop/query", "/d1/shop/execute"] {
        for shape in ["ROWS_AND_COLUMNS", "NONE"] {
            for body in [
                json!({ "sql": "SELECT * FROM t", "params": [] }),
                json!([{ "sql": "SELECT 1" }, { "sql": "UPDATE t SET b = 1" }]),
                json!({ "sql": "SELECT * FROM nope" }),
            ] {
                let path = format!("{path}?resultsFormat={shape}");
                let headers = [
                    ("x-d1-database-id", "shop"),
                    ("x-cf-d1-session-commit-token", "first-primary"),
                ];
                walk.ask(node, Method::POST, &path, &headers, body.to_string())
                    .await;
            }
        }
    }
}

async fn the_rest(walk: &mut Walk, node: &Node) {
    for path in [
        &format!("{D}/shop/time_travel/bookmark"),
        "/client/v4/accounts",
        "/client/v4/accounts/any",
        "/client/v4/memberships?page=2",
        "/client/v4/user",
        "/client/v4/user/tokens/verify",
        "/tidemark/v1/status",
        "/tidemark/v1/cluster",
        "/tidemark/v1/openapi.json",
        "/health",
        "/ready",
        "/metrics",
    ] {
        let reply = walk.get(node, path).await;
        assert_eq!(reply.status, 200, "{path}");
    }
    // Whatever a node tells of one database.
    for operation in Description::of_this_build().operations() {
        let path = operation.path.as_str();
        if operation.method == Method::GET && path.starts_with("/tidemark/v1/databases/") {
            let reply = walk.get(node, &path.replace("{database}", "shop")).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        }
    }
    let verify = "/tidemark/v1/databases/shop/verify";
    walk.ask(node, Method::POST, verify, &[], "").await;
    walk.ask(
        node,
        Method::POST,
        "/tidemark/v1/databases/catalogue/verify",
        &[],
        "",
    )
    .await;
    let groups = "d1StorageAdaptiveGroups(filter: { databaseId: \"shop\" }) { max { databaseSizeBytes } } \
                  d1AnalyticsAdaptiveGroups { count } d1QueriesAdaptiveGroups { count }";
    for query in [
        format!("{{ viewer {{ accounts {{ {groups} }} }} }}"),
        "{".to_owned(),
    ] {
        walk.post(node, "/client/v4/graphql", json!({ "query": query }))
            .await;
    }
}

/// A file of SQL, and its md5.
const FILE: (&str, &str) = (
    "CREATE TABLE imported (a); INSERT INTO imported VALUES (1);",
    "0c76cd3cccd4fe69e97bcaf546aff34a",
);

async fn transfers(walk: &mut Walk, node: &Node) {
    let import = format!("{D}/shop/import");
    let (text, etag) = FILE;
    let init = json!({ "action": "init", "etag": etag });
    let invited = walk.post(node, &import, init).await;
    let result = invited.json["result"].clone();
    let link = result["upload_url"].as_str().expect("a link");
    let link = link.trim_start_matches(&node.url());
    let other = walk.ask(node, Method::PUT, link, &[], "SELECT 2;").await;
    assert_eq!(other.status, 400, "its md5 is another than was announced");
    let sent = walk.ask(node, Method::PUT, link, &[], text).await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    let ingest = json!({ "action": "ingest", "etag": etag, "filename": result["filename"] });
    let mut action = ingest;
    wait::soon("the file has run", async || {
        let told = walk.post(node, &import, action.take()).await;
        let result = &told.json["result"];
        assert_eq!(result["success"], true, "{result}");
        action = json!({ "action": "poll", "current_bookmark": result["at_bookmark"] });
        (result["status"] == "complete").then_some(())
    })
    .await;
    let again = walk.post(node, &import, action).await;
    assert_eq!(again.json["result"]["status"], "complete");
    let stranger = json!({ "action": "poll", "current_bookmark": "another" });
    let refused = walk.post(node, &import, stranger).await;
    assert_eq!(refused.json["result"]["success"], false);

    let export = format!("{D}/shop/export");
    let mut body = json!({ "output_format": "polling" });
    let url = wait::soon("the export is made", async || {
        let told = walk.post(node, &export, body.clone()).await;
        let result = &told.json["result"];
        assert_eq!(result["success"], true, "{result}");
        body["current_bookmark"] = result["at_bookmark"].clone();
        result["result"]["signed_url"].as_str().map(str::to_owned)
    })
    .await;
    let file = walk.get(node, url.trim_start_matches(&node.url())).await;
    assert!(file.text.contains("imported"), "{}", file.text);
    let nowhere = format!("/tidemark/v1/downloads/{}", "0".repeat(32));
    assert_eq!(walk.get(node, &nowhere).await.status, 404);
}

/// Every operation succeeds once, at a node that does not lead, and answers as it is described.
#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_described_succeeds_as_described() {
    let cell = Cell::start(PROGRAM).await;
    let leader = cell.leader().await;
    let follower = (leader + 1) % 3;
    let mut walk = Walk::default();
    for (node, only) in [(&cell.voters[follower], true), (&cell.replicas[0], false)] {
        if only {
            databases(&mut walk, node).await;
            queries(&mut walk, node).await;
            transfers(&mut walk, node).await;
        }
        the_rest(&mut walk, node).await;
    }
    the_cell(&mut walk, &cell, leader).await;
    // A fault of a server's own is not had for the asking.
    let of_the_cell = |status: u16, path: &str| {
        status == 200 || path.starts_with("/tidemark/v1/cell") && status != 500
    };
    let missing = walk.missing(of_the_cell);
    assert_eq!(missing, Vec::<String>::new());
}

/// All that a cell says of itself, until one voter is left.
async fn the_cell(walk: &mut Walk, cell: &Cell, leader: usize) {
    let (leads, follows) = (&cell.voters[leader], &cell.voters[(leader + 1) % 3]);
    let known = walk.cell(leads, "", true, "").await.json;
    walk.cell(leads, "", false, "").await;
    walk.cell(&cell.replicas[0], "", true, "").await;
    let id = |at: usize| at as u64 + 1;
    let nobody = "f".repeat(32);
    let other = json!({ "node": id(leader), "incarnation": nobody, "url": "http://127.0.0.1:9" });
    let mine = known["incarnation"].as_str().expect("an incarnation");
    let same = known["members"]
        .as_array()
        .and_then(|members| {
            members
                .iter()
                .find(|member| member["node"] == known["node"])
        })
        .map(|member| json!({ "node": member["node"], "incarnation": mine, "url": member["url"] }))
        .expect("it is a member itself")
        .to_string();
    for (path, bodies) in [
        (
            "/join",
            vec![("{".to_owned(), 400), (other.to_string(), 409), (same, 200)],
        ),
        (
            "/transfer",
            vec![
                ("{".to_owned(), 400),
                (json!({ "to": 99 }).to_string(), 404),
            ],
        ),
        (
            "/remove",
            vec![
                ("{".to_owned(), 400),
                (json!({ "node": 99 }).to_string(), 404),
            ],
        ),
    ] {
        assert_eq!(walk.cell(leads, path, false, "{}").await.status, 401);
        let no_cell = walk.cell(&cell.replicas[0], path, true, "{}").await;
        assert_eq!(no_cell.status, 404, "{path}: {}", no_cell.text);
        for (body, status) in bodies {
            let reply = walk.cell(leads, path, true, &body).await;
            assert_eq!(reply.status, status, "{path} {body}: {}", reply.text);
            if status == 404 || status == 409 {
                let elsewhere = walk.cell(follows, path, true, &body).await;
                assert_eq!(elsewhere.status, 503, "{path}: {}", elsewhere.text);
            }
        }
    }
    let reply = walk.cell(leads, "/transfer", true, "{}").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let leader = cell.successor(leader).await;
    for gone in (0..3).filter(|at| *at != leader) {
        let remove = json!({ "node": id(gone) }).to_string();
        wait::soon("a voter is removed", async || {
            let reply = walk.cell(&cell.voters[leader], "/remove", true, &remove);
            (reply.await.status == 200).then_some(())
        })
        .await;
    }
    let alone = &cell.voters[leader];
    let remove = json!({ "node": id(leader) }).to_string();
    assert_eq!(walk.cell(alone, "/remove", true, &remove).await.status, 409);
    assert_eq!(walk.cell(alone, "/transfer", true, "{}").await.status, 409);
}
