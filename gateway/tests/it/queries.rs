//! `query` and `raw`: what reaches the node of a request, and what reaches the client of an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidemark_protocol::render::{RowShape, ValueForm};
use tidemark_protocol::value::Value;
use tidemark_protocol::{Failure, FailureKind, OnMiss, ReadContract, Statement};

use crate::double::{Double, KNOWN, Turn, bookmark};
use crate::server::{DATABASES, Server};

const SELECT: &str = r#"{"sql":"select 1"}"#;

#[tokio::test]
async fn plain_query_reaches_the_node_with_the_defaults() {
    let server = Server::start(Double::leading()).await;
    server
        .query(r#"{"sql":"select ?","params":[1,"x",null,[1,2]],"other":{}}"#)
        .send()
        .await;
    let [execute] = server.node.executed().try_into().unwrap();
    assert_eq!(execute.database, KNOWN.parse().unwrap());
    let params = vec![
        Value::Real(1.0),
        Value::Text("x".to_owned()),
        Value::Null,
        Value::Blob(vec![1, 2]),
    ];
    assert_eq!(
        execute.statements,
        [Statement {
            sql: "select ?".to_owned(),
            params
        }]
    );
    assert_eq!(execute.request, None);
    assert_eq!(execute.read, ReadContract::Primary);
    assert_eq!(execute.on_miss, OnMiss::Forward);
    assert_eq!(execute.shape.rows, RowShape::Objects);
    assert_eq!(execute.form, ValueForm::D1);
    let wanted = Duration::from_secs(9)..=Duration::from_secs(10);
    assert!(wanted.contains(&execute.deadline), "{:?}", execute.deadline);
}

#[tokio::test]
async fn every_header_reaches_the_node() {
    let server = Server::start(Double::leading()).await;
    let request = "11111111-2222-4333-8444-555555555555";
    server
        .post(
            &format!("{DATABASES}/{KNOWN}/raw"),
            r#"{"batch":[{"sql":"a","params":[7]},{"sql":"b"}]}"#,
        )
        .header("x-d1-bookmark", &bookmark().to_string())
        .header("tidemark-deadline", "250ms")
        .header("tidemark-on-miss", "stale")
        .header("tidemark-request-id", request)
        .header("tidemark-values", "exact")
        .send()
        .await;
    let [execute] = server.node.executed().try_into().unwrap();
    let statements: Vec<_> = execute.statements.iter().map(|s| s.sql.as_str()).collect();
    assert_eq!(statements, ["a", "b"]);
    assert_eq!(execute.statements[0].params, [Value::Integer(7)]);
    assert_eq!(execute.read, ReadContract::Bookmark(bookmark()));
    assert_eq!(execute.on_miss, OnMiss::Stale);
    assert_eq!(execute.request, Some(request.parse().unwrap()));
    assert_eq!(execute.shape.rows, RowShape::Arrays);
    assert_eq!(execute.form, ValueForm::Exact);
    assert!(
        execute.deadline <= Duration::from_millis(250),
        "{:?}",
        execute.deadline
    );

    for (text, read) in [
        ("first-primary", ReadContract::FirstPrimary),
        (" first-unconstrained ", ReadContract::FirstUnconstrained),
    ] {
        server
            .query(SELECT)
            .header("x-d1-bookmark", text)
            .send()
            .await;
        assert_eq!(server.node.executed().last().unwrap().read, read);
    }
}

#[tokio::test]
async fn answer_has_the_nodes_bytes_and_the_bookmark() {
    let server = Server::start(Double::leading()).await;
    let results = r#"[{"results":[{"x":"ü🌊"}],"success":true,"meta":{}}]"#;
    server.node.script([
        Turn::Answer(Bytes::from(results)),
        Turn::Repeat(Bytes::from("[]")),
    ]);
    let got = server.query(SELECT).send().await;
    assert_eq!(
        got.result(),
        json!([{"results":[{"x":"ü🌊"}],"success":true,"meta":{}}])
    );
    assert_eq!(
        got.header("x-d1-bookmark"),
        Some(bookmark().to_string().as_str())
    );
    assert_eq!(
        got.header("tidemark-served-by"),
        Some("WEUR/primary/00000000000000a1")
    );
    assert_eq!(got.header("tidemark-repeated"), None);
    assert_eq!(
        got.header("content-length"),
        Some(got.body.len().to_string().as_str())
    );

    let got = server.query(SELECT).send().await;
    assert_eq!(got.header("tidemark-repeated"), Some("true"));
}

/// An answer in a shape that nobody expects here would be none.
#[tokio::test]
async fn request_id_of_a_request_for_another_shape_is_refused() {
    let server = Server::start(Double::leading()).await;
    let objects = r#"[{"results":[{"n":1}]}]"#;
    let arrays = r#"[{"results":{"columns":["n"],"rows":[[1]]}}]"#;
    let raw = format!("{DATABASES}/{KNOWN}/raw");
    for (results, good, bad) in [(objects, "query", "raw"), (arrays, "raw", "query")] {
        for way in [good, bad] {
            server.node.script([Turn::Repeat(Bytes::from(results))]);
            let ask = match way {
                "raw" => server.post(&raw, SELECT),
                _ => server.query(SELECT),
            };
            let got = ask.send().await;
            if way == good {
                assert_eq!(got.status, 200, "{got:?}");
            } else {
                let why = got.failure(400, 7400, "bad_request");
                assert!(why.contains("tidemark-request-id"), "{why}");
                // It must not read as if nothing had been done.
                assert!(why.contains("took effect"), "{why}");
                assert_eq!(got.header("tidemark-repeated"), Some("true"));
                let state = bookmark().to_string();
                assert_eq!(got.header("x-d1-bookmark"), Some(state.as_str()));
            }
        }
    }
}

#[tokio::test]
async fn large_answer_arrives_whole_with_its_length() {
    let server = Server::start(Double::leading()).await;
    let results = json!([{"results": vec!["a tide of text"; 100_000]}]);
    server
        .node
        .script([Turn::Answer(Bytes::from(results.to_string()))]);
    let got = server.query(SELECT).send().await;
    assert_eq!(got.result(), results);
    assert_eq!(
        got.header("content-length"),
        Some(got.body.len().to_string().as_str())
    );
}

#[tokio::test]
async fn large_body_reaches_the_node_whole_or_is_explained() {
    let server = Server::start(Double::leading()).await;
    let text = "a tide of text".repeat(100_000);
    let body = json!({"sql": "select ?", "params": [text]}).to_string();
    server.query(body.clone()).send().await.result();
    let [execute] = server.node.executed().try_into().unwrap();
    assert_eq!(execute.statements[0].params, [Value::Text(text)]);
    server
        .query(body[1..].to_owned())
        .send()
        .await
        .failure(400, 7400, "bad_request");
}

#[tokio::test]
async fn unicode_sql_and_values_reach_the_node_unchanged() {
    let server = Server::start(Double::leading()).await;
    server
        .query(r#"{"sql":"select 'ü\u0000🌊'","params":["\ud83c\udf0a\u0000é"]}"#)
        .send()
        .await;
    let [execute] = server.node.executed().try_into().unwrap();
    assert_eq!(execute.statements[0].sql, "select 'ü\0🌊'");
    assert_eq!(
        execute.statements[0].params,
        [Value::Text("🌊\0é".to_owned())]
    );
}

#[tokio::test]
async fn every_kind_of_failure_has_its_status_code_and_headers() {
    let server = Server::start(Double::leading()).await;
    for kind in FailureKind::ALL {
        let wait = Duration::from_millis(1200);
        server.node.script([Turn::Fail(
            Failure::new(kind, "because \"of\" this").retry_after(wait),
        )]);
        let got = server.query(SELECT).send().await;
        let message = got.failure(kind.status(), kind.code(), kind.name());
        assert_eq!(message, "because \"of\" this");
        assert_eq!(got.header("retry-after"), Some("2"));
        let no_retry = (kind == FailureKind::Unknown).then_some("false");
        assert_eq!(got.header("x-should-retry"), no_retry, "{kind:?}");
        assert_eq!(got.header("x-d1-bookmark"), None);
    }
}

#[tokio::test]
async fn waits_below_a_second_are_kept_quiet_by_the_unavailable_alone() {
    let server = Server::start(Double::leading()).await;
    let moment = Some(Duration::from_millis(50));
    for (kind, wait, told) in [
        (FailureKind::Unavailable, moment, None),
        (FailureKind::Unavailable, Some(Duration::ZERO), Some("0")),
        (FailureKind::Unavailable, None, None),
        (FailureKind::Overloaded, moment, Some("1")),
        (FailureKind::Overloaded, None, Some("1")),
        (FailureKind::Deadline, moment, Some("1")),
    ] {
        let failure = Failure {
            retry_after: wait,
            ..Failure::new(kind, "wait")
        };
        server.node.script([Turn::Fail(failure)]);
        let got = server.query(SELECT).send().await;
        assert_eq!(got.header("retry-after"), told, "{kind:?} {wait:?}");
    }
}

#[tokio::test]
async fn bad_header_is_named_and_nothing_runs() {
    let server = Server::start(Double::leading()).await;
    for (name, value) in [
        ("tidemark-deadline", "soon"),
        ("tidemark-deadline", "121s"),
        ("tidemark-deadline", "-1s"),
        ("tidemark-on-miss", "wait"),
        ("tidemark-request-id", "42"),
        (
            "tidemark-request-id",
            "00000000-0000-0000-0000-000000000000",
        ),
        ("tidemark-values", "lossy"),
    ] {
        let got = server.query(SELECT).header(name, value).send().await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(message.contains(name), "{message}");
    }
    let got = server
        .query(SELECT)
        .header_bytes("tidemark-on-miss", b"\xff")
        .send()
        .await;
    got.failure(400, 7400, "bad_request");
    for bad in ["", "first", "00000000-00000000"] {
        let got = server
            .query(SELECT)
            .header("x-d1-bookmark", bad)
            .send()
            .await;
        got.failure(400, 7900, "bad_bookmark");
    }
    let got = server
        .query(SELECT)
        .header_bytes("x-d1-bookmark", b"\xff")
        .send()
        .await;
    got.failure(400, 7900, "bad_bookmark");
    assert!(server.node.executed().is_empty());
}

#[tokio::test]
async fn bad_body_is_explained_and_nothing_runs() {
    let server = Server::start(Double::leading()).await;
    let required = "Invalid property: sql => Required | Invalid property: batch => Required";
    for (body, says) in [
        ("", "malformed"),
        ("{", "malformed"),
        ("[]", "malformed"),
        ("\"x\"", "malformed"),
        (r#"{"sql":1}"#, "malformed"),
        (r#"{"sql":"a"} x"#, "malformed"),
        (r#"{"sql":"\ud800"}"#, "malformed"),
        ("{}", required),
        (r#"{"params":[]}"#, required),
        (r#"{"sql":"a","batch":[{"sql":"b"}]}"#, "Not allowed"),
        (r#"{"sql":"a","params":[1,{"a":1}]}"#, "params[1]"),
        (r#"{"batch":[{"sql":"a"},{"params":[]}]}"#, "batch[1].sql"),
    ] {
        let got = server.query(body).send().await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(message.contains(says), "{body}: {message}");
    }
    let got = server.query(&b"{\"sql\":\"\xff\"}"[..]).send().await;
    got.failure(400, 7400, "bad_request");
    let got = server.query(r#"{"batch":[]}"#).send().await;
    assert_eq!(got.failure(400, 7500, "sql"), "No SQL statements detected.");
    assert!(server.node.executed().is_empty());
}

#[tokio::test]
async fn unknown_database_is_404_however_it_is_spelt() {
    let server = Server::start(Double::leading()).await;
    for database in [
        "nope",
        "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f507",
        "00000000-0000-0000-0000-000000000000",
        "catalogue",
        "-bad",
        "b%20d",
        "%C3%BC",
    ] {
        let got = server
            .post(&format!("{DATABASES}/{database}/query"), SELECT)
            .send()
            .await;
        let message = got.failure(404, 7404, "no_database");
        assert!(message.ends_with("could not be found"), "{message}");
    }
    let long = "x".repeat(5000);
    let got = server
        .post(&format!("{DATABASES}/{long}/query"), SELECT)
        .send()
        .await;
    assert!(got.failure(404, 7404, "no_database").len() < 200);
    assert!(server.node.executed().is_empty());
}

#[tokio::test]
async fn panic_of_the_node_leaves_the_outcome_unknown_and_the_connection_open() {
    let server = Server::start(Double::leading()).await;
    server.node.script([Turn::Panic]);
    server
        .query(SELECT)
        .send()
        .await
        .failure(424, 7904, "unknown");
    server.query(SELECT).send().await.result();
}

#[tokio::test]
async fn node_that_does_not_answer_leaves_the_outcome_unknown() {
    let server = Server::start(Double::leading()).await;
    server.node.script([Turn::Hang]);
    let got = server
        .query(SELECT)
        .header("tidemark-deadline", "10ms")
        .send()
        .await;
    got.failure(424, 7904, "unknown");
    assert_eq!(got.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn deadline_of_zero_passes_before_anything_runs() {
    let server = Server::start(Double::leading()).await;
    let got = server
        .query(SELECT)
        .header("tidemark-deadline", "0s")
        .send()
        .await;
    got.failure(408, 7903, "deadline");
    assert!(server.node.executed().is_empty());
}

/// The two paths of queries go past the router, unless something in them is encoded.
#[tokio::test]
async fn path_with_encoded_names_leads_where_the_plain_one_does() {
    let server = Server::start(Double::leading()).await;
    for last in ["query", "raw"] {
        let mut answers = Vec::new();
        for database in ["shop", "%73hop"] {
            let got = server.post(&format!("{DATABASES}/{database}/{last}"), SELECT);
            let got = got.send().await;
            assert!(got.header("date").is_some());
            let headers = got
                .headers
                .keys()
                .map(ToString::to_string)
                .collect::<BTreeSet<_>>();
            answers.push((got.status, headers, got.text().to_owned()));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].0, 200);
    }
    let shapes: Vec<_> = server
        .node
        .executed()
        .iter()
        .map(|one| one.shape.rows)
        .collect();
    let (objects, arrays) = (RowShape::Objects, RowShape::Arrays);
    assert_eq!(shapes, [objects, objects, arrays, arrays]);
}

#[tokio::test]
async fn path_that_is_almost_that_of_a_query_is_none() {
    let server = Server::start(Double::leading()).await;
    let others = ["shop/query/", "shop/raw/x", "shop/quer", "shop/QUERY"];
    let others = others.map(|path| format!("{DATABASES}/{path}"));
    let d2 = DATABASES.replace("/d1/", "/d2/");
    for path in others.into_iter().chain([format!("{d2}/shop/query")]) {
        let got = server.post(&path, SELECT).send().await;
        got.failure(404, 7000, "bad_request");
    }
    assert!(server.node.executed().is_empty());
}
