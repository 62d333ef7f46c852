//! What operators' machines look at.

use reqwest::Method;
use serde_json::json;

use crate::double::{Double, KNOWN, bookmark};
use crate::server::{DATABASES, Server};

#[tokio::test]
async fn status_is_the_nodes_own_account() {
    let server = Server::start(Double::leading()).await;
    let result = server.get("/tidemark/v1/status").send().await.result();
    assert_eq!(result["region"], "WEUR");
    assert_eq!(result["role"], "primary");
    assert_eq!(result["databases"][0]["uuid"], KNOWN);
    assert_eq!(result["databases"][0]["position"]["seq"], 41);
}

#[tokio::test]
async fn verify_takes_a_uuid_a_name_or_the_catalogue() {
    let server = Server::start(Double::leading()).await;
    for name in [KNOWN, "shop", "catalogue"] {
        let path = format!("/tidemark/v1/databases/{name}/verify");
        let result = server.post(&path, "").send().await.result();
        let checksum = bookmark().claimed().checksum.0;
        assert_eq!(
            (&result["intact"], &result["computed"]),
            (&json!(true), &json!(checksum))
        );
    }
    for name in ["nope", "00000000-0000-0000-0000-000000000000"] {
        let path = format!("/tidemark/v1/databases/{name}/verify");
        server
            .post(&path, "")
            .send()
            .await
            .failure(404, 7404, "no_database");
    }
}

#[tokio::test]
async fn readiness_follows_the_node_and_health_does_not() {
    let server = Server::start(Double::leading()).await;
    let got = server.get("/ready").send().await;
    assert_eq!(got.status, 200);
    // Whoever was told of this address sees who is there before it sends a token.
    let signature = "WEUR/primary/00000000000000a1";
    assert_eq!(got.header("tidemark-served-by"), Some(signature));
    assert_eq!(got.header("tidemark-cluster"), Some("00000000000000c1"));
    server.node.not_ready();
    let got = server.get("/ready").send().await;
    assert_eq!(got.failure(503, 7905, "unavailable"), "still recovering");
    let got = server.get("/health").send().await;
    assert_eq!((got.status.as_u16(), got.text()), (200, "ok"));
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_status() {
    let server = Server::start(Double::leading()).await;
    server.query(r#"{"sql":"select 1"}"#).send().await;
    server.query("{}").send().await;
    server.get("/nowhere").send().await;
    let got = server.get("/metrics").send().await;
    let text = got.text();
    for line in [
        r#"tidemark_http_requests_total{route="query",status="200"} 1"#,
        r#"tidemark_http_requests_total{route="query",status="400"} 1"#,
        r#"tidemark_http_requests_total{route="other",status="404"} 1"#,
        r#"tidemark_http_request_duration_seconds_count{route="query"} 2"#,
        "tidemark_http_requests_in_flight 0",
        "tidemark_http_forwarded_total 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn node_that_is_not_ready_does_not_say_what_does_not_exist() {
    let server = Server::start(Double::leading()).await;
    server.node.forget_databases();
    server.node.not_ready();
    let one = format!("{DATABASES}/shop");
    for ask in [
        server.query(r#"{"sql":"select 1"}"#),
        server.get(&one),
        server.ask(Method::DELETE, &one),
        server.post("/tidemark/v1/databases/shop/verify", ""),
    ] {
        ask.send().await.failure(503, 7905, "unavailable");
    }
}
