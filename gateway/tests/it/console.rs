//! The console's files, and the map that it and clients draw the cluster from.

use tidemark_gateway::ServeConfig;
use tidemark_protocol::node::Role;
use tokio::net::TcpListener;

use crate::double::Double;
use crate::server::{DATABASES, Server};

const MAP: &str = "/tidemark/v1/cluster";

async fn locked() -> Server {
    Server::start_with(Double::leading(), |config| {
        config.tokens = vec!["secret".to_owned()];
    })
    .await
}

async fn replica_of(upstream: &str) -> Server {
    let node = Double::following(upstream);
    Server::start_as(node, Role::Replica, |_| {}, ServeConfig::default()).await
}

#[tokio::test]
async fn page_and_all_that_it_names_need_no_token() {
    let server = locked().await;
    let page = server.get("/").send().await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let named = page
        .text()
        .split('"')
        .filter(|part| part.starts_with("/console/"));
    let mut named: Vec<_> = named.map(str::to_owned).collect();
    let style = server.get("/console/console.css").send().await;
    let fonts = style.text().split(['"', '(', ')']);
    named.extend(
        fonts
            .filter(|part| part.starts_with("/console/"))
            .map(str::to_owned),
    );
    assert!(named.len() > 4, "{named:?}");
    for path in named {
        let got = server.get(&path).send().await;
        assert_eq!(got.status, 200, "{path}");
        assert!(!got.body.is_empty(), "{path}");
    }
    assert_eq!(server.get(MAP).send().await.status, 401);
}

#[tokio::test]
async fn page_may_load_and_ask_nothing_but_its_node() {
    let server = locked().await;
    let page = server.get("/").send().await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    for source in policy
        .split(';')
        .flat_map(|rule| rule.split_whitespace().skip(1))
    {
        assert!(["'none'", "'self'"].contains(&source), "{source}");
    }
    let text = page.text();
    for inline in [
        "<style", " style=", "<script>", " onclick", " onload", "http://", "https://",
    ] {
        assert!(!text.contains(inline), "{inline}");
    }
}

#[tokio::test]
async fn file_that_the_browser_has_is_not_sent_again() {
    let server = Server::start(Double::leading()).await;
    let first = server.get("/console/console.js").send().await;
    let tag = first.header("etag").unwrap();
    for known in [tag.to_owned(), format!("\"other\", W/{tag}")] {
        let again = server.get("/console/console.js");
        let again = again.header("if-none-match", &known).send().await;
        assert_eq!(
            (again.status.as_u16(), again.body.len()),
            (304, 0),
            "{known}"
        );
    }
    let changed = server.get("/console/console.js");
    let changed = changed.header("if-none-match", "\"other\"").send().await;
    assert_eq!(changed.body, first.body);
    assert_eq!(server.get("/console/nothing.js").send().await.status, 404);
}

#[tokio::test]
async fn map_is_drawn_by_the_node_that_leads_or_else_here() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    let got = replica.get(MAP).send().await;
    assert_eq!(
        got.header("tidemark-served-by"),
        Some("WEUR/primary/00000000000000a1")
    );
    let map = got.result();
    assert_eq!(map["drawn_by"], "00000000000000a1");
    assert_eq!(map["cluster"], "00000000000000c1");
    assert_eq!(map["nodes"][0]["region"], "WEUR");
    assert_eq!(map["commits"], 41);

    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let alone = replica_of(&gone).await;
    let got = alone.get(MAP).send().await;
    assert_eq!(
        got.header("tidemark-served-by"),
        Some("APAC/replica/00000000000000b2")
    );
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn page_of_a_replica_may_write_without_tokens_and_pages_of_others_may_not() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    let from = async |origin: &str, site: &str, name: &str| {
        let body = format!(r#"{{"name":"{name}"}}"#);
        let ask = replica.post(DATABASES, body).header("origin", origin);
        ask.header("sec-fetch-site", site).send().await
    };
    let own = from(&replica.base, "same-origin", "harbour").await;
    assert_eq!(own.result()["name"], "harbour");
    let other = from("http://elsewhere.example", "cross-site", "wreck").await;
    assert_eq!(other.status, 403);
    assert_eq!(primary.node.created().len(), 1);
}
