//! Connections: kept, bounded, drained.

use std::time::Duration;

use tidemark_gateway::ServeConfig;
use tidemark_protocol::node::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::double::{Double, Turn};
use crate::server::{PATIENCE, Server};

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

async fn start(serving: ServeConfig) -> Server {
    Server::start_as(Double::leading(), Role::Primary, |_| {}, serving).await
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.base.trim_start_matches("http://"))
        .await
        .unwrap()
}

/// Reads one answer to [`HEALTH`].
async fn healthy(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nok") {
        let mut chunk = [0; 1024];
        match timeout(PATIENCE, stream.read(&mut chunk)).await.unwrap() {
            Ok(0) | Err(_) => return false,
            Ok(got) => seen.extend_from_slice(&chunk[..got]),
        }
    }
    true
}

#[tokio::test]
async fn stop_closes_idle_connections_and_waits_for_busy_ones() {
    let server = start(ServeConfig::default()).await;
    let mut idle = connect(&server).await;
    idle.write_all(HEALTH).await.unwrap();
    assert!(healthy(&mut idle).await);

    server.node.script([Turn::Hang]);
    let ask = server
        .query(r#"{"sql":"x"}"#)
        .header("tidemark-deadline", "100ms");
    let busy = tokio::spawn(ask.send());
    let began = async {
        while server.node.executed().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, began).await.unwrap();
    server.stop.cancel();

    assert_eq!(
        timeout(PATIENCE, idle.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    busy.await.unwrap().failure(424, 7904, "unknown");
    timeout(PATIENCE, server.ended).await.unwrap().unwrap();
}

/// The head of one answer, to a request for this path.
async fn head(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let got = timeout(PATIENCE, stream.read(&mut chunk)).await.unwrap();
        let got = got.unwrap();
        assert_ne!(got, 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..got]);
    }
    String::from_utf8(seen).unwrap()
}

/// At stake: clients go by themselves before connections are closed on them.
#[tokio::test]
async fn stop_sends_everybody_elsewhere_before_it_closes() {
    let server = start(ServeConfig {
        farewell: PATIENCE,
        ..ServeConfig::default()
    })
    .await;
    let mut kept = connect(&server).await;
    let before = head(&mut kept, "/ready").await;
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");
    assert!(!before.contains("connection: close"), "{before}");
    server.stop.cancel();
    let goodbye = head(&mut kept, "/health").await;
    assert!(goodbye.starts_with("HTTP/1.1 200"), "{goodbye}");
    assert!(goodbye.contains("connection: close"), "{goodbye}");
    let mut rest = Vec::new();
    let closed = timeout(PATIENCE, kept.read_to_end(&mut rest))
        .await
        .unwrap();
    closed.unwrap();
    // Whoever has not heard yet is still served.
    let mut late = connect(&server).await;
    let refused = head(&mut late, "/ready").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
}

#[tokio::test]
async fn stop_cuts_what_does_not_finish() {
    let drain = Duration::from_millis(50);
    let server = start(ServeConfig {
        drain,
        ..ServeConfig::default()
    })
    .await;
    server.node.script([Turn::Hang]);
    let mut busy = connect(&server).await;
    let request = "POST /client/v4/accounts/a/d1/database/shop/query HTTP/1.1\r\nhost: x\r\n\
                   tidemark-deadline: 120s\r\ncontent-length: 11\r\n\r\n{\"sql\":\"x\"}";
    busy.write_all(request.as_bytes()).await.unwrap();
    let began = async {
        while server.node.executed().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, began).await.unwrap();
    server.stop.cancel();
    timeout(PATIENCE, server.ended).await.unwrap().unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, busy.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn connection_over_the_bound_waits_for_another_to_close() {
    let server = start(ServeConfig {
        connections_max: 1,
        ..ServeConfig::default()
    })
    .await;
    let mut first = connect(&server).await;
    first.write_all(HEALTH).await.unwrap();
    assert!(healthy(&mut first).await);
    let mut second = connect(&server).await;
    second.write_all(HEALTH).await.unwrap();
    let early = timeout(Duration::from_millis(50), second.read(&mut [0; 1])).await;
    assert!(early.is_err(), "served beyond the bound");
    drop(first);
    assert!(healthy(&mut second).await);
}

#[tokio::test]
async fn connection_that_sends_no_request_is_closed() {
    let head_wait = Duration::from_millis(50);
    let server = start(ServeConfig {
        head_wait,
        ..ServeConfig::default()
    })
    .await;
    let mut silent = connect(&server).await;
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /health HT").await.unwrap();
    for stream in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(!rest.ends_with(b"ok"));
    }
}

#[tokio::test]
async fn client_that_takes_nothing_of_its_answer_is_cut_off() {
    let write_wait = Duration::from_millis(50);
    let server = start(ServeConfig {
        write_wait,
        ..ServeConfig::default()
    })
    .await;
    // More than the sockets hold.
    let results = bytes::Bytes::from(vec![b' '; 64 << 20]);
    server.node.script([Turn::Answer(results)]);
    let mut stream = connect(&server).await;
    let request = "POST /client/v4/accounts/a/d1/database/shop/query HTTP/1.1\r\nhost: x\r\n\
                   content-length: 11\r\n\r\n{\"sql\":\"x\"}";
    stream.write_all(request.as_bytes()).await.unwrap();
    let cut = async {
        // A write fails once the server has closed its end.
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, cut).await.unwrap();
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(ServeConfig::default()).await;
    let mut stream = connect(&server).await;
    stream
        .write_all(
            &[
                HEALTH,
                b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            ]
            .concat(),
        )
        .await
        .unwrap();
    let mut all = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut all))
        .await
        .unwrap()
        .unwrap();
    let statuses: Vec<_> = all
        .lines()
        .filter(|line| line.contains("HTTP/1.1"))
        .collect();
    assert_eq!(statuses.len(), 2, "{all}");
    assert!(
        statuses[0].contains("HTTP/1.1 200") && all.contains("HTTP/1.1 404"),
        "{all}"
    );
}
