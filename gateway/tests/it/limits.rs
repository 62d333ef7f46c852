//! Bounds: what is over one is refused at once, in D1's words, and nothing of it runs.

use std::time::Duration;

use tidemark_protocol::d1::QueryBounds;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::double::{Double, Turn};
use crate::server::{PATIENCE, Server};

const SELECT: &str = r#"{"sql":"select 1"}"#;
const OVERLOADED: &str = "D1 DB is overloaded. Too many requests queued.";

fn body_of(bytes: usize) -> String {
    let frame = r#"{"sql":""}"#.len();
    format!(r#"{{"sql":"{}"}}"#, "x".repeat(bytes - frame))
}

#[tokio::test]
async fn body_up_to_the_bound_runs_and_one_byte_more_is_413() {
    let max = 100_000;
    let server = Server::start_with(Double::leading(), |config| {
        config.limits.body_bytes_max = max
    })
    .await;
    server.query(body_of(max)).send().await.result();
    let got = server.query(body_of(max + 1)).send().await;
    let message = got.failure(413, 7907, "too_large");
    assert!(message.contains("100000"), "{message}");
    // Much more than the sockets hold: the client must still get to read the refusal.
    server
        .query(vec![b' '; 20 << 20])
        .send()
        .await
        .failure(413, 7907, "too_large");
    assert_eq!(server.node.executed().len(), 1);
}

#[tokio::test]
async fn chunked_body_is_bounded_too() {
    let server = Server::start_with(Double::leading(), |config| {
        config.limits.body_bytes_max = 1000
    })
    .await;
    for (bytes, status) in [(1000, "200"), (1001, "413")] {
        let body = body_of(bytes);
        let (first, second) = body.split_at(500);
        let request = format!(
            "POST /client/v4/accounts/a/d1/database/shop/query HTTP/1.1\r\nhost: x\r\n\
             connection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len()
        );
        let answer = raw(&server, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn sql_text_is_bounded_by_the_body_alone() {
    let server = Server::start(Double::leading()).await;
    let got = server.query(body_of(20 << 20)).send().await;
    got.result(); // the engine bounds each of its statements
}

#[tokio::test]
async fn batch_and_parameters_are_bounded() {
    let server = Server::start_with(Double::leading(), |config| {
        config.limits.query = QueryBounds {
            statements_max: 2,
            params_max: 3,
        };
    })
    .await;
    for within in [
        r#"{"sql":"0123456789","params":[1,2,3]}"#,
        r#"{"batch":[{"sql":"a"},{"sql":"b","params":[1,2,3]}]}"#,
    ] {
        server.query(within).send().await.result();
    }
    let got = server
        .query(r#"{"batch":[{"sql":"a"},{"sql":"b"},{"sql":"c"}]}"#)
        .send()
        .await;
    assert_eq!(
        got.failure(413, 7907, "too_large"),
        "the batch has more than 2 statements"
    );
    let got = server
        .query(r#"{"sql":"a","params":[1,2,3,4]}"#)
        .send()
        .await;
    let message = got.failure(413, 7907, "too_large");
    assert_eq!(message, "params[3] exceeds the limit of 3 parameters");
    assert_eq!(server.node.executed().len(), 2);
}

#[tokio::test]
async fn one_request_too_many_is_429_until_another_ends() {
    let server =
        Server::start_with(Double::leading(), |config| config.limits.requests_max = 1).await;
    server.node.script([Turn::Hang]);
    let busy = tokio::spawn(
        server
            .query(SELECT)
            .header("tidemark-deadline", "120s")
            .send(),
    );
    until(|| server.node.executed().len() == 1).await;

    let got = server.query(SELECT).send().await;
    assert_eq!(got.failure(429, 7500, "overloaded"), OVERLOADED);
    assert_eq!(got.header("retry-after"), Some("1"));
    assert_eq!(server.get("/health").send().await.status, 200);

    busy.abort(); // the client goes away, and with it its request
    let again = async {
        while server.query(SELECT).send().await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn bodies_held_at_once_are_bounded_together() {
    let server = Server::start_with(Double::leading(), |config| {
        config.limits.bodies_bytes_max = 100_000;
    })
    .await;
    server.node.script([Turn::Hang]);
    let held = server
        .query(body_of(60_000))
        .header("tidemark-deadline", "120s");
    let held = tokio::spawn(held.send());
    until(|| server.node.executed().len() == 1).await;

    let got = server.query(body_of(60_000)).send().await;
    assert_eq!(got.failure(429, 7500, "overloaded"), OVERLOADED);
    // Small ones are not counted.
    server.query(SELECT).send().await.result();
    held.abort();
    let again = async {
        while server.query(body_of(60_000)).send().await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn body_that_does_not_come_by_the_deadline_is_408() {
    let server = Server::start(Double::leading()).await;
    let mut stream = connect(&server).await;
    let head = "POST /client/v4/accounts/a/d1/database/shop/query HTTP/1.1\r\nhost: x\r\n\
                connection: close\r\ntidemark-deadline: 50ms\r\ncontent-length: 100\r\n\r\n{\"sql\"";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":7903"), "{answer}");
    assert!(server.node.executed().is_empty());
}

#[tokio::test]
async fn body_over_the_bound_is_413_however_slowly_it_comes() {
    let server = Server::start_with(Double::leading(), |config| {
        config.limits.body_bytes_max = 10
    })
    .await;
    for body in [
        "content-length: 100\r\n\r\n",
        "content-length: 100\r\n\r\n{\"sql\"",
        "transfer-encoding: chunked\r\n\r\nc\r\n{\"sql\":\"abcd\r\n",
    ] {
        let request = format!(
            "POST /client/v4/accounts/a/d1/database/shop/query HTTP/1.1\r\nhost: x\r\n\
             connection: close\r\ntidemark-deadline: 50ms\r\n{body}"
        );
        let answer = raw(&server, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{body}: {answer}");
    }
}

#[tokio::test]
async fn body_that_breaks_off_runs_nothing() {
    let server = Server::start(Double::leading()).await;
    let mut stream = connect(&server).await;
    let head = "POST /client/v4/accounts/a/d1/database/shop/query HTTP/1.1\r\nhost: x\r\n\
                content-length: 100\r\n\r\n{\"sql\":\"select 1\"}";
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    // Another request after it: by the time it is answered the first one is settled.
    let wait = Duration::from_millis(20);
    let settled = timeout(wait, until(|| !server.node.executed().is_empty())).await;
    assert!(settled.is_err());
    server.query(SELECT).send().await.result();
    assert_eq!(server.node.executed().len(), 1);
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.base.trim_start_matches("http://"))
        .await
        .unwrap()
}

async fn raw(server: &Server, request: &str) -> String {
    let mut stream = connect(server).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn until(mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, met).await.unwrap();
}
