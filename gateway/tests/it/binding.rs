//! What a Worker's D1 binding sees of a node: bare arrays, one failure object, tokens only in sessions.

use bytes::Bytes;
use serde_json::json;
use tidemark_protocol::render::{AnswerShape, Elements, RowShape};
use tidemark_protocol::value::Value;
use tidemark_protocol::{Failure, FailureKind, ReadContract, Statement};

use crate::double::{Double, KNOWN, Turn, bookmark};
use crate::server::{Got, Server};

const TOKEN: &str = "x-cf-d1-session-commit-token";
const DATABASE: &str = "x-d1-database-id";
const SELECT: &str = r#"{"sql":"select 1","params":[]}"#;
const RESULTS: &str = r#"[{"results":[],"success":true,"meta":{"duration":0.1}}]"#;

fn refused(got: &Got, status: u16, error: &str) {
    assert_eq!(got.status.as_u16(), status, "{}", got.text());
    assert_eq!(got.json(), json!({ "success": false, "error": error }));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header(TOKEN), None);
}

#[tokio::test]
async fn header_or_path_names_the_database_and_the_body_goes_out_bare() {
    let server = Server::start(Double::leading()).await;
    for path in ["/query", "/execute"] {
        for name in [KNOWN, "shop"] {
            server.node.script([
                Turn::Answer(Bytes::from_static(RESULTS.as_bytes())),
                Turn::Answer(Bytes::from_static(RESULTS.as_bytes())),
            ]);
            let by_header = server.post(path, SELECT).header(DATABASE, name);
            let by_path = server.post(&format!("/d1/{name}{path}"), SELECT);
            for ask in [by_header, by_path] {
                let got = ask.send().await;
                assert_eq!((got.status.as_u16(), got.text()), (200, RESULTS));
                assert_eq!(got.header("content-type"), Some("application/json"));
                assert_eq!(got.header(TOKEN), None, "no token without a session");
                assert!(got.header("tidemark-served-by").is_some());
            }
        }
    }
    for execute in server.node.executed() {
        assert_eq!(execute.database.to_string(), KNOWN);
        assert_eq!(execute.read, ReadContract::Primary);
        assert_eq!(execute.shape.elements, Elements::Texts);
    }
}

#[tokio::test]
async fn results_format_decides_on_the_shape_and_rows_come_with_none_too() {
    let server = Server::start(Double::leading()).await;
    for (query, rows) in [
        ("", RowShape::Objects),
        ("?resultsFormat=ARRAY_OF_OBJECTS", RowShape::Objects),
        ("?resultsFormat=NONE", RowShape::Objects),
        ("?resultsFormat=whatever", RowShape::Objects),
        ("?resultsFormat=ROWS_AND_COLUMNS", RowShape::Arrays),
        ("?x=1&resultsFormat=ROWS_AND_COLUMNS&y", RowShape::Arrays),
    ] {
        let got = server.post(&format!("/d1/shop/query{query}"), SELECT);
        assert_eq!(got.send().await.status.as_u16(), 200, "{query}");
        let shape = server.node.executed().pop().expect("a request").shape;
        let elements = Elements::Texts;
        assert_eq!(shape, AnswerShape { rows, elements }, "{query}");
    }
}

#[tokio::test]
async fn batch_and_lines_without_params_reach_the_node_as_statements() {
    let server = Server::start(Double::leading()).await;
    let body = r#"[{"sql":"a","params":[1,"x",null,[1,2]]},{"sql":"-- b\r"}]"#;
    let got = server.post("/d1/shop/execute", body).send().await;
    assert_eq!(got.status.as_u16(), 200, "{}", got.text());
    let params = vec![
        Value::Real(1.0),
        Value::Text("x".to_owned()),
        Value::Null,
        Value::Blob(vec![1, 2]),
    ];
    let statement = |sql: &str, params| Statement {
        sql: sql.to_owned(),
        params,
    };
    assert_eq!(
        server.node.executed()[0].statements,
        vec![statement("a", params), statement("-- b\r", vec![])]
    );
}

#[tokio::test]
async fn session_gets_its_bookmark_back() {
    let server = Server::start(Double::leading()).await;
    let own = bookmark().to_string();
    for (token, read) in [
        ("first-unconstrained", ReadContract::FirstUnconstrained),
        ("first-primary", ReadContract::FirstPrimary),
        (own.as_str(), ReadContract::Bookmark(bookmark())),
        // Cloudflare's own suite begins a session like that, and goes on so.
        ("token-doesnot-matter-for-now", ReadContract::FirstPrimary),
        ("------", ReadContract::FirstPrimary),
        ("", ReadContract::FirstPrimary),
    ] {
        let got = server
            .post("/d1/shop/query", SELECT)
            .header(TOKEN, token)
            .header("x-d1-bookmark", "is not looked at")
            .send()
            .await;
        assert_eq!(got.status.as_u16(), 200, "{token}: {}", got.text());
        assert_eq!(got.header(TOKEN), Some(own.as_str()), "{token}");
        let executed = server.node.executed().pop().expect("a request");
        assert_eq!(executed.read, read, "{token}");
    }
}

#[tokio::test]
async fn foreign_bookmark_is_answered_by_the_primary_and_a_lost_one_refused() {
    let server = Server::start(Double::leading()).await;
    let fail = |kind| Turn::Fail(Failure::new(kind, "scripted"));
    let own = bookmark().to_string();
    let ask = || server.post("/d1/shop/query", SELECT).header(TOKEN, &own);

    server.node.script([fail(FailureKind::BadBookmark)]);
    let got = ask().send().await;
    assert_eq!(got.status.as_u16(), 200, "{}", got.text());
    let reads: Vec<_> = server.node.executed().iter().map(|e| e.read).collect();
    let given = ReadContract::Bookmark(bookmark());
    assert_eq!(reads, [given, ReadContract::FirstPrimary]);

    server.node.script([fail(FailureKind::LostBookmark)]);
    refused(&ask().send().await, 400, "scripted");
    assert_eq!(server.node.executed().len(), 3);
}

#[tokio::test]
async fn failures_are_one_object_whatever_goes_wrong() {
    let server = Server::start(Double::leading()).await;
    let sql = "no such table: nope: SQLITE_ERROR";
    server
        .node
        .script([Turn::Fail(Failure::new(FailureKind::Sql, sql))]);
    let body = r#"[{"sql":"select 1"},{"sql":"select * from nope"}]"#;
    let got = server.post("/d1/shop/query", body).send().await;
    refused(&got, 400, sql);
    assert_eq!(got.header("tidemark-failure"), Some("sql"));

    let got = server.post("/query", SELECT).send().await;
    refused(&got, 400, "Invalid header: x-d1-database-id => Required");
    let got = server.post("/d1/nope/query", SELECT).send().await;
    refused(&got, 404, "The database nope could not be found");
    let got = server.post("/d1/catalogue/query", SELECT).send().await;
    refused(&got, 404, "The database catalogue could not be found");
    let got = server.post("/d1/shop/query", "[]").send().await;
    refused(&got, 400, "No SQL statements detected.");
    let got = server.post("/d1/shop/query", "{").send().await;
    assert_eq!(got.json()["success"], json!(false));
    server.node.script([Turn::Panic]);
    let got = server.post("/d1/shop/query", SELECT).send().await;
    assert_eq!(got.status.as_u16(), 424);
    assert_eq!(got.header("x-should-retry"), Some("false"));
    assert_eq!(got.json()["success"], json!(false));

    let locked = Server::start_with(Double::leading(), |config| {
        config.tokens = vec!["secret".to_owned()];
    })
    .await;
    let got = locked.post("/d1/shop/query", SELECT).send().await;
    refused(&got, 401, "Authentication error");
    let got = locked.post("/d1/shop/query", SELECT);
    let got = got.header("authorization", "Bearer secret").send().await;
    assert_eq!(got.status.as_u16(), 200);
}

#[tokio::test]
async fn request_that_only_the_primary_can_do_is_passed_on_with_its_session() {
    let primary = Server::start(Double::leading()).await;
    let replica = Server::start(Double::following(&primary.base)).await;
    replica.node.script([Turn::Forward]);
    let got = replica
        .post("/query?resultsFormat=ROWS_AND_COLUMNS", SELECT)
        .header(DATABASE, KNOWN)
        .header(TOKEN, "first-unconstrained")
        .send()
        .await;
    assert_eq!(got.status.as_u16(), 200, "{}", got.text());
    assert_eq!(got.header(TOKEN), Some(bookmark().to_string().as_str()));
    let executed = primary.node.executed().pop().expect("a request");
    assert_eq!(executed.read, ReadContract::FirstUnconstrained);
    assert_eq!(executed.shape.rows, RowShape::Arrays);

    // Nobody there to pass it on to: nothing happened, in words that programs know to repeat.
    let alone = Server::start(Double::following("http://127.0.0.1:9")).await;
    alone.node.script([Turn::Forward]);
    let got = alone.post("/d1/shop/query", SELECT).send().await;
    assert_eq!(got.status.as_u16(), 503);
    let error = got.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.starts_with("Network connection lost."), "{error}");
}
