//! Whatever goes wrong, the client gets D1's envelope: its SDKs parse nothing else.

use reqwest::Method;
use tidemark_gateway::GatewayConfig;

use crate::double::{Double, KNOWN};
use crate::server::{DATABASES, Server};

const SELECT: &str = r#"{"sql":"select 1"}"#;

fn with_tokens(config: &mut GatewayConfig) {
    config.tokens = vec!["first-secret".to_owned(), "second".to_owned()];
}

#[tokio::test]
async fn path_that_leads_nowhere_is_7000() {
    let server = Server::start_with(Double::leading(), with_tokens).await;
    for path in [
        "/client/v4/zones",
        "/client/v4/accounts/a/d1/database/",
        "/tidemark/v2",
    ] {
        let got = server.get(path).send().await;
        assert_eq!(
            got.failure(404, 7000, "bad_request"),
            "No route for that URI"
        );
    }
}

#[tokio::test]
async fn method_that_a_path_lacks_is_405() {
    let server = Server::start(Double::leading()).await;
    let query = format!("{DATABASES}/{KNOWN}/query");
    for (method, path) in [
        (Method::GET, query.as_str()),
        (Method::DELETE, DATABASES),
        (Method::POST, "/tidemark/v1/status"),
        (Method::POST, "/health"),
    ] {
        let got = server.ask(method, path).send().await;
        got.failure(405, 7001, "bad_request");
        assert!(got.header("allow").is_some(), "{got:?}");
    }
}

#[tokio::test]
async fn missing_or_wrong_token_is_10000() {
    let server = Server::start_with(Double::leading(), with_tokens).await;
    for value in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer first-secre"),
        Some("Bearer first-secret2"),
        Some("Bearer first-secret, Bearer second"),
        Some("Basic first-secret"),
        Some("first-secret"),
    ] {
        for ask in [
            server.query(SELECT),
            server.get(DATABASES),
            server.post(DATABASES, r#"{"name":"x"}"#),
            server.get("/tidemark/v1/status"),
            server.ask(Method::DELETE, &format!("{DATABASES}/{KNOWN}")),
            server.post("/tidemark/v1/databases/shop/verify", ""),
        ] {
            let ask = match value {
                Some(value) => ask.header("authorization", value),
                None => ask,
            };
            let got = ask.send().await;
            assert_eq!(
                got.failure(401, 10000, "unauthenticated"),
                "Authentication error"
            );
            assert_eq!(got.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert!(server.node.executed().is_empty());
}

#[tokio::test]
async fn each_token_opens_the_api() {
    let server = Server::start_with(Double::leading(), with_tokens).await;
    for value in ["Bearer first-secret", "bearer second", "Bearer  second "] {
        server
            .query(SELECT)
            .header("authorization", value)
            .send()
            .await
            .result();
    }
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_where_no_token_is_needed() {
    let server = Server::start(Double::leading()).await;
    let own = server.base.as_str();
    for (name, value) in [
        ("origin", "http://example.com"),
        ("origin", "https://127.0.0.1"),
        ("origin", "http://127.0.0.1:1"),
        ("origin", "null"),
        ("origin", ""),
        ("sec-fetch-site", "cross-site"),
    ] {
        let got = server.query(SELECT).header(name, value);
        got.send().await.failure(403, 7403, "forbidden");
        let got = server.get(DATABASES).header(name, value);
        got.send().await.failure(403, 7403, "forbidden");
    }
    // A name that somebody has made to lead here.
    let rebound = server.query(SELECT).header("host", "example.com:8787");
    let rebound = rebound.header("origin", "http://example.com:8787");
    rebound.send().await.failure(403, 7403, "forbidden");
    assert!(server.node.executed().is_empty());

    for (name, value) in [("origin", own), ("sec-fetch-site", "same-origin")] {
        let got = server.query(SELECT).header(name, value).send().await;
        got.result();
    }
    let named = server.query(SELECT).header("host", "localhost:8787");
    let named = named.header("origin", "http://localhost:8787");
    named.send().await.result();
    let server = Server::start_with(Double::leading(), with_tokens).await;
    let got = server
        .query(SELECT)
        .header("authorization", "Bearer second")
        .header("origin", "http://example.com");
    got.send().await.result();
}

/// At stake: a name made to lead to this machine, whose pages read here as if it were their own site.
#[tokio::test]
async fn where_no_token_is_needed_what_reads_must_know_the_node() {
    let known = |config: &mut GatewayConfig| config.urls = vec!["http://tide.test:8787".to_owned()];
    let server = Server::start_with(Double::leading(), known).await;
    let one = format!("{DATABASES}/{KNOWN}");
    for path in [DATABASES, one.as_str(), "/tidemark/v1/status"] {
        for host in ["example.com:8787", "127.0.0.1.example.com", "10.0.0.1", ""] {
            let got = server.get(path).header("host", host).send().await;
            got.failure(403, 7403, "forbidden");
        }
        for host in [
            "localhost",
            "127.0.0.9:1",
            "[::1]",
            "[::1]:8787",
            "tide.test:8787",
        ] {
            server.get(path).header("host", host).send().await.result();
        }
    }
    // What a Worker's binding says.
    let got = server.query(SELECT).header("host", "d1").send().await;
    got.result();
    let server = Server::start_with(Double::leading(), with_tokens).await;
    let got = server.get(DATABASES).header("host", "db.example.com");
    let got = got.header("authorization", "Bearer second");
    got.send().await.result();
}

#[tokio::test]
async fn probes_and_metrics_need_no_token() {
    let server = Server::start_with(Double::leading(), with_tokens).await;
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(server.get(path).send().await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn panic_in_a_handler_is_500_and_the_connection_lives() {
    let server = Server::start(Double::leading()).await;
    server.node.panic_on_status();
    let got = server.get("/tidemark/v1/status").send().await;
    assert_eq!(got.failure(500, 7500, "internal"), "internal error");
    server.query(SELECT).send().await.result();
}

#[tokio::test]
async fn bad_account_and_path_that_is_no_text_are_refused() {
    let server = Server::start(Double::leading()).await;
    for path in [
        "/client/v4/accounts/a%20b/d1/database",
        "/client/v4/accounts/a.b/d1/database",
    ] {
        server
            .get(path)
            .send()
            .await
            .failure(400, 7400, "bad_request");
        server
            .post(path, r#"{"name":"x"}"#)
            .send()
            .await
            .failure(400, 7400, "bad_request");
        let one = format!("{path}/{KNOWN}");
        server
            .get(&one)
            .send()
            .await
            .failure(400, 7400, "bad_request");
        server
            .post(&format!("{one}/query"), SELECT)
            .send()
            .await
            .failure(400, 7400, "bad_request");
    }
    let got = server
        .post(&format!("{DATABASES}/%ff/query"), SELECT)
        .send()
        .await;
    got.failure(400, 7400, "bad_request");
}
