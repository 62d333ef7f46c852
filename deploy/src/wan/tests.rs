//! The service between real sockets: what its HTTP face says is what bytes undergo.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);
/// Time in which something that must not happen would have happened.
const A_WHILE: Duration = Duration::from_millis(200);
/// The list that the containers run with.
const SHIPPED: &str = include_str!("../../wan.toml");

fn config(text: &str) -> WanConfig {
    WanConfig::parse(text).unwrap()
}

/// Why this list of links is refused.
async fn refusal(text: &str) -> String {
    let config = match WanConfig::parse(text) {
        Ok(config) => config,
        Err(error) => return format!("{error}: {}", std::error::Error::source(&error).unwrap()),
    };
    Wan::start(config).await.unwrap_err().to_string()
}

/// Two links to an echo, and their HTTP face.
struct Service {
    wan: Arc<Wan>,
    url: String,
    http: reqwest::Client,
}

impl Service {
    async fn start() -> Self {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = peer.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        // A name, as containers have it, not an address.
        let target = format!("localhost:{}", target.port());
        let wan = Wan::start(config(&format!(
            "[[link]]\nname = 'there'\nfrom = 'WEUR'\nto = 'ENAM'\ndelay = '20ms'\n\
             listen = '127.0.0.1:0'\ntarget = '{target}'\n\
             [[link]]\nname = 'here'\nfrom = 'ENAM'\nto = 'WEUR'\ndelay = '0ms'\n\
             listen = 'localhost:0'\ntarget = '{target}'\n\
             [[link]]\nname = 'elsewhere'\nfrom = 'OC'\nto = 'ENAM'\ndelay = '0ms'\n\
             listen = 'localhost:0'\ntarget = '{target}'\n"
        )))
        .await
        .unwrap();
        let wan = Arc::new(wan);
        let face = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", face.local_addr().unwrap());
        let router = control(Arc::clone(&wan));
        tokio::spawn(async move { axum::serve(face, router).await });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { wan, url, http }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let method = method.parse().unwrap();
        let request = self.http.request(method, format!("{}{path}", self.url));
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(text.into()))
    }

    async fn connect(&self, link: &str) -> TcpStream {
        let listen = self.wan.state(link).unwrap().listen;
        TcpStream::connect(listen).await.unwrap()
    }
}

/// The time a byte takes there and back.
async fn round_trip(way: &mut TcpStream) -> Duration {
    let sent = Instant::now();
    way.write_all(b"x").await.unwrap();
    timeout(SOON, way.read_exact(&mut [0]))
        .await
        .unwrap()
        .unwrap();
    sent.elapsed()
}

#[tokio::test]
async fn delay_is_shown_changed_and_restored() {
    let service = Service::start().await;
    let mut way = service.connect("there").await;
    assert!(round_trip(&mut way).await >= Duration::from_millis(40));

    let (status, state) = service
        .ask(
            "PATCH",
            "/links/there",
            r#"{"delay_ms":150.5,"bytes_per_second":1000000}"#,
        )
        .await;
    assert_eq!(status, 200, "{state}");
    assert_eq!(state["delay_ms"], 150.5);
    assert_eq!(state["bytes_per_second"], 1_000_000);
    assert!(round_trip(&mut way).await >= Duration::from_millis(300));

    let (_, state) = service.ask("PUT", "/links/there", "").await;
    assert_eq!(state["delay_ms"], 20.0);
    assert_eq!(state["bytes_per_second"], serde_json::Value::Null);
    assert_eq!(state["connections"], 1);
    assert_eq!(state["bytes_from_target"], 2);
    assert!(round_trip(&mut way).await < Duration::from_millis(300));
}

#[tokio::test]
async fn region_is_cut_on_one_side_and_healed() {
    let service = Service::start().await;
    let mut from = service.connect("there").await;
    let mut to = service.connect("here").await;
    let mut other = service.connect("elsewhere").await;
    for way in [&mut from, &mut to] {
        round_trip(way).await;
    }

    // What leaves Europe leaves by either link, whichever side made the connection.
    let (status, states) = service
        .ask("PATCH", "/regions/weur", r#"{"cut":"out"}"#)
        .await;
    assert_eq!(status, 200, "{states}");
    assert_eq!(states[0]["cut"], "to-target");
    assert_eq!(states[1]["cut"], "from-target");
    assert_eq!(states.as_array().unwrap().len(), 2);
    for way in [&mut from, &mut to] {
        way.write_all(b"y").await.unwrap();
        assert!(timeout(A_WHILE, way.read(&mut [0])).await.is_err());
    }
    round_trip(&mut other).await;

    let (_, states) = service.ask("PUT", "/regions/WEUR", "{}").await;
    assert_eq!(states[0]["cut"], "none");
    for way in [&mut from, &mut to] {
        timeout(SOON, way.read_exact(&mut [0]))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_change_is_told_and_changes_nothing() {
    let service = Service::start().await;
    let before = service.wan.states();
    for (method, path, body, status, text) in [
        (
            "GET",
            "/links/nowhere",
            "",
            404,
            "there is no link 'nowhere'",
        ),
        ("PATCH", "/links/nowhere", "{}", 404, "there is no link"),
        (
            "PUT",
            "/regions/APAC",
            "{}",
            404,
            "no link joins region APAC",
        ),
        ("PUT", "/regions/4", "{}", 400, "'4' is not a region name"),
        (
            "PATCH",
            "/links/there",
            "{",
            400,
            "the change cannot be understood: EOF",
        ),
        (
            "PATCH",
            "/links/there",
            r#"{"delay":1}"#,
            400,
            "unknown field `delay`",
        ),
        (
            "PATCH",
            "/links/there",
            r#"{"cut":"in"}"#,
            400,
            "unknown variant `in`",
        ),
        (
            "PATCH",
            "/links/there",
            r#"{"delay_ms":-1}"#,
            400,
            "delay_ms is -1, expected 0 to 60000",
        ),
        (
            "PATCH",
            "/links/there",
            r#"{"jitter_ms":60001}"#,
            400,
            "jitter_ms is 60001",
        ),
        (
            "PATCH",
            "/links/there",
            r#"{"bytes_per_second":0}"#,
            400,
            "nonzero",
        ),
    ] {
        let (got, answer) = service.ask(method, path, body).await;
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(text), "{error}");
    }
    let large = " ".repeat(5000);
    assert_eq!(service.ask("PATCH", "/links/there", &large).await.0, 413);
    assert_eq!(service.wan.states(), before);
    assert_eq!(service.ask("GET", "/health", "").await.0, 200);
    assert_eq!(
        service
            .ask("GET", "/links", "")
            .await
            .1
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_named() {
    let link = |name: &str, from: &str, more: &str| {
        format!(
            "[[link]]\nname = '{name}'\nfrom = '{from}'\nto = 'ENAM'\nlisten = '127.0.0.1:0'\n\
             target = '127.0.0.1:1'\n{more}\n"
        )
    };
    for (text, expected) in [
        ("seed = 1".to_owned(), "no link is listed"),
        (
            link("a", "OC", "") + &link("a", "OC", ""),
            "link 'a' is listed twice",
        ),
        (link("a/b", "OC", ""), "'a/b' is not a link's name"),
        (
            link("a", "MOON", ""),
            "the distance between MOON and ENAM is not known",
        ),
        (
            link("a", "OC", "delay = '61s'"),
            "the delay is 61s, expected at most 60s",
        ),
        (
            link("a", "OC", "delay = '40'"),
            "'40' is not a length of time",
        ),
        (link("a", "OC", "loss = 1"), "unknown field `loss`"),
        (link("a", "4", ""), "'4' is not a region name"),
        (
            link("a", "OC", "").replace("127.0.0.1:0", "127.0.0.1"),
            "link 'a': cannot listen on '127.0.0.1'",
        ),
    ] {
        let error = refusal(&text).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn shipped_list_joins_every_replica_to_every_voter() {
    let config = config(SHIPPED);
    let links = config.validate().unwrap();
    assert_eq!(links.len(), 15);
    let mut pairs: Vec<_> = config
        .links
        .iter()
        .map(|link| (link.from.to_string(), link.target.clone()))
        .collect();
    pairs.dedup();
    assert_eq!(pairs.len(), 15, "{pairs:?}");
    let oc = config
        .links
        .iter()
        .position(|link| link.from.as_str() == "OC");
    assert_eq!(links[oc.unwrap()].delay, Duration::from_micros(100_500));
}
