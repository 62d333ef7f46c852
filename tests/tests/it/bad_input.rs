//! Whatever a client sends: an answer in the 4xx that names what is wrong, nothing applied, the
//! connection and the node as good as before. Asked at the primary and at a replica.

use reqwest::Method;
use serde_json::{Value, json};
use tidemark_tests::{Api, Cluster, Line, Place, wait};

use crate::PROGRAM;

/// D1's words to whoever would begin or end a transaction.
const TRANSACTION: &str = "To execute a transaction";

/// One bad request and what must come back.
struct Case {
    body: String,
    headers: Vec<(&'static str, String)>,
    status: u16,
    code: u64,
    /// What the message names, without regard to case.
    names: &'static str,
}

fn body(body: impl Into<String>, status: u16, code: u64, names: &'static str) -> Case {
    Case {
        body: body.into(),
        headers: Vec::new(),
        status,
        code,
        names,
    }
}

/// SQL that must not run, after an INSERT that must not remain.
fn sql(sql: &str, names: &'static str) -> Case {
    let text = format!("INSERT INTO t VALUES ('must not remain'); {sql}");
    body(json!({ "sql": text }).to_string(), 400, 7500, names)
}

fn header(name: &'static str, value: &str, code: u64, names: &'static str) -> Case {
    let text = "INSERT INTO t VALUES ('must not remain')";
    let headers = vec![(name, value.to_owned())];
    Case {
        headers,
        ..body(json!({ "sql": text }).to_string(), 400, code, names)
    }
}

fn cases(foreign_bookmark: &str, bookmark: &str) -> Vec<Case> {
    let insert = "INSERT INTO t VALUES ('must not remain')";
    let with = |params: Value| json!({ "sql": "INSERT INTO t VALUES (?)", "params": params });
    let damaged = format!("{}0", &bookmark[..bookmark.len() - 1]);
    let damaged = if damaged == bookmark {
        damaged.replace('0', "1")
    } else {
        damaged
    };
    vec![
        // Not what a query looks like.
        body("", 400, 7400, "malformed"),
        body(
            "{\"sql\": \"INSERT INTO t VALUES (1)\"",
            400,
            7400,
            "malformed",
        ),
        body("\u{1f30a}", 400, 7400, "malformed"),
        body("[]", 400, 7400, "malformed"),
        body("{}", 400, 7400, "sql => Required"),
        body(json!({ "sql": 5 }).to_string(), 400, 7400, "string"),
        body(json!({ "batch": "x" }).to_string(), 400, 7400, "malformed"),
        body(
            json!({ "batch": [{ "sql": insert }, {}] }).to_string(),
            400,
            7400,
            "batch[1].sql",
        ),
        body(
            json!({ "sql": insert, "batch": [] }).to_string(),
            400,
            7400,
            "batch",
        ),
        body(
            json!({ "sql": insert, "params": 5 }).to_string(),
            400,
            7400,
            "malformed",
        ),
        body(
            with(json!([{ "a": 1 }])).to_string(),
            400,
            7400,
            "params[0]",
        ),
        body(with(json!([["text"]])).to_string(), 400, 7400, "params[0]"),
        body(
            json!({ "sql": "" }).to_string(),
            400,
            7500,
            "No SQL statements",
        ),
        // Too much.
        body(
            json!({ "sql": format!("SELECT '{}'", "x".repeat(33 << 20)) }).to_string(),
            413,
            7907,
            "body",
        ),
        body(
            json!({ "sql": format!("{insert}; SELECT '{}'", "x".repeat(2 << 20)) }).to_string(),
            400,
            7500,
            "too long",
        ),
        body(
            with(json!(vec![1; 40_000])).to_string(),
            413,
            7907,
            "params[32766]",
        ),
        body(
            with(json!([1, 2])).to_string(),
            400,
            7500,
            "parameter bindings",
        ),
        body(with(json!([])).to_string(), 400, 7500, "parameter bindings"),
        sql("SELECT ?99999", "variable number must be between"),
        // Not SQL, or not here.
        sql("SELEC 1", "near \"SELEC\""),
        sql("SELECT * FROM nowhere", "nowhere"),
        sql("SELECT nothing FROM t", "nothing"),
        sql(
            "INSERT INTO u VALUES (1), (1)",
            "UNIQUE constraint failed: u.a",
        ),
        sql(
            "INSERT INTO u VALUES (NULL)",
            "NOT NULL constraint failed: u.a",
        ),
        sql("SELECT json('{')", "malformed JSON"),
        // Not allowed.
        sql("BEGIN", TRANSACTION),
        sql("BEGIN; BEGIN", TRANSACTION),
        sql("COMMIT", TRANSACTION),
        sql("ROLLBACK", TRANSACTION),
        sql("SAVEPOINT s", TRANSACTION),
        sql("ATTACH '/etc/passwd' AS p", "not authorized"),
        sql("ATTACH ':memory:' AS m", "not authorized"),
        sql("DETACH main", "not authorized"),
        sql("PRAGMA journal_mode = DELETE", "not authorized"),
        sql("PRAGMA writable_schema = 1", "not authorized"),
        sql("PRAGMA wal_checkpoint", "not authorized"),
        sql("PRAGMA page_size = 512", "not authorized"),
        sql("VACUUM", "VACUUM"),
        sql("CREATE TEMP TABLE x (a)", "not authorized"),
        sql("SELECT load_extension('x')", "load_extension"),
        sql("DELETE FROM sqlite_schema", "may not be modified"),
        // Headers.
        header("x-d1-bookmark", "yesterday", 7900, "bookmark"),
        header("x-d1-bookmark", &damaged, 7900, "bookmark"),
        header("x-d1-bookmark", foreign_bookmark, 7900, "another database"),
        header("tidemark-deadline", "soon", 7400, "tidemark-deadline"),
        header("tidemark-deadline", "1day", 7400, "tidemark-deadline"),
        header("tidemark-on-miss", "perhaps", 7400, "tidemark-on-miss"),
        header("tidemark-request-id", "7", 7400, "tidemark-request-id"),
        header("tidemark-values", "rounded", 7400, "tidemark-values"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_named_and_change_nothing() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let primary = cluster.primary.api();
    primary.create("good").await;
    primary.create("other").await;
    let schema = "CREATE TABLE t (a); CREATE TABLE u (a INTEGER NOT NULL UNIQUE)";
    let bookmark = primary.query("good", schema).ok().await.bookmark();
    let foreign = primary
        .query("other", "CREATE TABLE t (a)")
        .ok()
        .await
        .bookmark();
    cluster.settled(wait::SOON).await;

    for node in cluster.nodes() {
        let mut line = Line::connect(node.address())
            .await
            .expect("the node listens");
        let path = Api::path("good/query");
        for case in cases(&foreign, &bookmark) {
            let headers: Vec<_> = case
                .headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let shown: String = case.body.chars().take(120).collect();
            let what = format!("{} {:?} {shown}", node.name(), case.headers);
            let reply = line
                .send(Method::POST, &path, &headers, case.body)
                .await
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(reply.status, case.status, "{what}: {}", reply.text);
            assert_eq!(reply.json["success"], false, "{what}: {}", reply.text);
            let (code, message) = reply.error();
            assert_eq!(code, case.code, "{what}: {message}");
            let found = message.to_lowercase().contains(&case.names.to_lowercase());
            assert!(found, "{what}: '{message}' does not name '{}'", case.names);
            assert!(reply.header("tidemark-failure").is_some(), "{what}");
        }
        let read = node
            .api()
            .query("good", "SELECT count(*) AS n FROM t")
            .ok()
            .await;
        assert_eq!(
            read.rows()[0]["n"],
            0,
            "something remained, at {}",
            node.name()
        );
        assert_eq!(
            read.bookmark(),
            bookmark,
            "something was written, at {}",
            node.name()
        );
    }
    cluster.verified(wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_past_its_deadline_is_stopped() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let primary = cluster.primary.api();
    primary.create("good").await;
    let bookmark = primary
        .query("good", "CREATE TABLE t (a)")
        .ok()
        .await
        .bookmark();
    cluster.settled(wait::SOON).await;
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for node in cluster.nodes() {
        let mut line = Line::connect(node.address())
            .await
            .expect("the node listens");
        for (contract, sql) in [
            (
                "first-primary",
                format!("INSERT INTO t {endless} SELECT i FROM n WHERE i < 0"),
            ),
            (
                "first-primary",
                format!("INSERT INTO t VALUES (1); {endless} SELECT max(i) FROM n"),
            ),
            (
                "first-unconstrained",
                format!("{endless} SELECT max(i) FROM n"),
            ),
        ] {
            let started = std::time::Instant::now();
            let headers = [("x-d1-bookmark", contract), ("tidemark-deadline", "300ms")];
            let body = json!({ "sql": sql }).to_string();
            let reply = line
                .send(Method::POST, &Api::path("good/query"), &headers, body)
                .await;
            let reply = reply.expect("the node answers");
            let took = started.elapsed();
            assert!(
                took < std::time::Duration::from_secs(5),
                "{sql} took {took:?}"
            );
            assert!(
                (400..500).contains(&reply.status),
                "{sql}: {} {}",
                reply.status,
                reply.text
            );
            assert_eq!(
                reply.header("tidemark-failure"),
                Some("deadline"),
                "{sql}: {}",
                reply.text
            );
            let (code, message) = reply.error();
            assert_eq!(code, 7903, "{message}");
            assert!(message.contains("deadline"), "{message}");
        }
        let read = node
            .api()
            .query("good", "SELECT count(*) AS n FROM t")
            .ok()
            .await;
        assert_eq!(
            read.rows()[0]["n"],
            0,
            "something remained, at {}",
            node.name()
        );
        assert_eq!(
            read.bookmark(),
            bookmark,
            "something was written, at {}",
            node.name()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_things_are_named() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    cluster.primary.api().create("taken").await;
    cluster.settled(wait::SOON).await;
    let nobody = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
    for node in cluster.nodes() {
        let mut line = Line::connect(node.address())
            .await
            .expect("the node listens");
        let select = json!({ "sql": "SELECT 1" }).to_string();
        for (method, path, body, status, code, names) in [
            (
                Method::POST,
                Api::path("nobody/query"),
                &*select,
                404,
                7404,
                "nobody",
            ),
            (
                Method::POST,
                Api::path(&format!("{nobody}/raw")),
                &*select,
                404,
                7404,
                nobody,
            ),
            (Method::GET, Api::path("nobody"), "", 404, 7404, "nobody"),
            (Method::DELETE, Api::path(nobody), "", 404, 7404, nobody),
            (
                Method::GET,
                "/client/v5/nowhere".to_owned(),
                "",
                404,
                7000,
                "route",
            ),
            (
                Method::PATCH,
                Api::path("taken/query"),
                "",
                405,
                7001,
                "PATCH",
            ),
            (Method::POST, Api::path(""), "{", 400, 7400, "malformed"),
            (Method::POST, Api::path(""), "{}", 400, 7400, "name"),
            (
                Method::POST,
                Api::path(""),
                r#"{"name":"-x/y"}"#,
                400,
                7400,
                "name",
            ),
            (
                Method::POST,
                Api::path(""),
                r#"{"name":"taken"}"#,
                400,
                7502,
                "taken",
            ),
        ] {
            let what = format!("{} {method} {path} {body}", node.name());
            let reply = line.send(method, &path, &[], body.to_owned()).await;
            let reply = reply.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(reply.status, status, "{what}: {}", reply.text);
            let (got, message) = reply.error();
            assert_eq!(got, code, "{what}: {message}");
            assert!(
                message.contains(names),
                "{what}: '{message}' does not name '{names}'"
            );
        }
    }
    let databases = cluster
        .primary
        .api()
        .get(&Api::path(""))
        .await
        .expect("a list");
    assert_eq!(
        databases.json["result_info"]["total_count"], 1,
        "{}",
        databases.text
    );
}

/// A bookmark of a state that was lost: the primary was put back to an older copy of its directory.
#[tokio::test(flavor = "multi_thread")]
async fn bookmark_of_a_lost_future_is_refused() {
    let mut cluster = Cluster::start(PROGRAM, &[]).await;
    let api = cluster.primary.api();
    api.create("good").await;
    let kept = api
        .query("good", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        .ok()
        .await;
    cluster.primary.stop().await;
    let copy = tempfile::tempdir().expect("make a temporary directory");
    let copied = copy.path().join("data");
    copy_directory(&cluster.primary.data(), &copied);
    cluster.primary.start();
    cluster.primary.ready().await;
    let lost = api.query("good", "INSERT INTO t VALUES (2)").ok().await;
    cluster.primary.stop().await;
    std::fs::remove_dir_all(cluster.primary.data()).expect("remove the newer directory");
    copy_directory(&copied, &cluster.primary.data());
    cluster.primary.start();
    cluster.primary.ready().await;

    let select = "SELECT count(*) AS n FROM t";
    for sql in [select, "INSERT INTO t VALUES (3)"] {
        let query = api.query("good", sql).bookmark(&lost.bookmark());
        let refused = query
            .header("tidemark-deadline", "500ms")
            .send()
            .await
            .expect("an answer");
        assert_eq!(refused.status, 400, "{sql}: {}", refused.text);
        let (code, message) = refused.error();
        assert_eq!(code, 7901, "{sql}: {message}");
        assert!(message.contains("bookmark"), "{sql}: {message}");
    }
    let read = api
        .query("good", select)
        .bookmark(&kept.bookmark())
        .ok()
        .await;
    assert_eq!(read.rows()[0]["n"], 1);
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(
        copied.expect("run cp").success(),
        "cannot copy {}",
        from.display()
    );
}
