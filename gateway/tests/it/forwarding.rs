//! What a node that does not lead passes on, and what it says when that fails. A write that may have
//! happened must never be reported as one that did not.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tidemark_gateway::ServeConfig;
use tidemark_protocol::guard::{Guard, body_crc};
use tidemark_protocol::node::Role;
use tidemark_protocol::{Failure, FailureKind, OnMiss, ReadContract, RequestId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::double::{Double, KNOWN, Turn, bookmark};
use crate::server::{DATABASES, Server};

const INSERT: &str = r#"{"sql":"insert into t values (?)","params":["ü"]}"#;

async fn replica_of(upstream: &str) -> Server {
    let node = Double::following(upstream);
    Server::start_as(node, Role::Replica, |_| {}, ServeConfig::default()).await
}

/// The whole answer of a node that has nothing to say.
fn no_content() -> String {
    let guard = Guard::of(&["204"], std::iter::empty(), Some(body_crc([])));
    format!("HTTP/1.1 204 No Content\r\ntidemark-guard: {guard}\r\n\r\n")
}

/// An address at which nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A server that reads each request and then does `then` with the connection.
async fn upstream<F>(then: fn(TcpStream) -> F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            // All bodies here end in a brace, requests without one in an empty line.
            while !seen.ends_with(b"}") && !seen.ends_with(b"\r\n\r\n{") {
                let mut chunk = [0; 1024];
                let got = stream.read(&mut chunk).await.unwrap();
                seen.extend_from_slice(&chunk[..got]);
                if got == 0 || (seen.ends_with(b"\r\n\r\n") && !seen.starts_with(b"POST")) {
                    break;
                }
            }
            tokio::spawn(then(stream));
        }
    });
    base
}

#[tokio::test]
async fn request_is_passed_on_as_it_came_and_the_answer_as_it_is() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&format!("{}/", primary.base)).await;
    replica.node.script([Turn::Forward]);
    primary
        .node
        .script([Turn::Repeat(Bytes::from(r#"[{"results":[]}]"#))]);
    let request = "11111111-2222-4333-8444-555555555555";
    let got = replica
        .query(INSERT)
        .header("x-d1-bookmark", &bookmark().to_string())
        .header("tidemark-on-miss", "error")
        .header("tidemark-deadline", "5s")
        .header("tidemark-request-id", request)
        .header("connection", "x-private")
        .header("x-private", "1")
        .send()
        .await;
    assert_eq!(got.result(), json!([{"results": []}]));
    assert_eq!(
        got.header("x-d1-bookmark"),
        Some(bookmark().to_string().as_str())
    );
    assert_eq!(got.header("tidemark-repeated"), Some("true"));
    assert_eq!(
        got.header("tidemark-served-by"),
        Some("WEUR/primary/00000000000000a1")
    );

    let [here] = replica.node.executed().try_into().unwrap();
    let [there] = primary.node.executed().try_into().unwrap();
    assert_eq!(there.statements, here.statements);
    assert_eq!(there.read, ReadContract::Bookmark(bookmark()));
    assert_eq!(there.on_miss, OnMiss::Error);
    assert_eq!(there.request, Some(request.parse().unwrap()));
    assert!(
        there.deadline <= here.deadline + Duration::from_millis(1),
        "{:?}",
        there.deadline
    );
}

#[tokio::test]
async fn failure_of_the_primary_is_passed_back_as_it_is() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    replica.node.script([Turn::Forward]);
    let failure = Failure::new(FailureKind::Overloaded, "too much").retry_after(Duration::ZERO);
    primary.node.script([Turn::Fail(failure)]);
    let got = replica.query(INSERT).send().await;
    assert_eq!(got.failure(429, 7500, "overloaded"), "too much");
    assert_eq!(got.header("retry-after"), Some("0"));
    assert_eq!(
        got.header("tidemark-served-by"),
        Some("WEUR/primary/00000000000000a1")
    );
}

#[tokio::test]
async fn request_without_a_name_gets_one_on_the_way() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    replica.node.script([Turn::Forward, Turn::Forward]);
    replica.query(INSERT).send().await.result();
    replica.query(INSERT).send().await.result();
    let [first, second] = primary.node.executed().try_into().unwrap();
    assert!(first.request.is_some());
    assert_ne!(first.request, second.request, "they are two");
}

/// At stake: other SQL than the client's, or the same under another name, counts.
#[tokio::test]
async fn request_that_was_damaged_between_nodes_is_not_run() {
    let primary = Server::start(Double::leading()).await;
    let passed = || primary.query(INSERT).passed_on();
    for damaged in [
        passed().header("x-d1-bookmark", "first-primary"),
        passed().body(INSERT.replace("into t", "into u")),
        // Whose guard was damaged beyond recognition.
        primary
            .query(INSERT)
            .header("tidemark-forwarded-by", "00000000000000c3"),
    ] {
        let got = damaged.send().await;
        assert_eq!(got.status, 503, "{}", got.text());
        assert_eq!(got.header("tidemark-failure"), Some("unavailable"));
        assert_eq!(got.header("retry-after"), None, "it may be sent again");
        assert!(got.text().contains("damaged"), "{}", got.text());
    }
    assert!(primary.node.executed().is_empty());
    passed().send().await.result();
    assert_eq!(primary.node.executed().len(), 1);
}

/// At stake: a client believes what no node has said.
#[tokio::test]
async fn answer_that_was_damaged_between_nodes_is_not_passed_back() {
    // Another status than the one that was sent.
    let damaged = upstream(|mut stream| async move {
        let answer = no_content().replace("204 No Content", "200 OK");
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let replica = replica_of(&damaged.await).await;
    replica.node.script([Turn::Forward]);
    let got = replica.query(INSERT).send().await;
    got.failure(424, 7904, "unknown");
    replica.node.script([Turn::Forward]);
    let path = format!("{DATABASES}/{KNOWN}/time_travel/bookmark");
    let got = replica.get(&path).send().await;
    got.failure(503, 7905, "unavailable");

    // Another body: it has to break off, as its head has left.
    let damaged = upstream(|mut stream| async move {
        let guard = Guard::of(&["200"], std::iter::empty(), Some(body_crc([&b"one"[..]])));
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntidemark-guard: {guard}\r\n\r\ntwo");
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let replica = replica_of(&damaged.await).await;
    replica.node.script([Turn::Forward]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}{DATABASES}/shop/query", replica.base);
    let answer = client.post(url).body(INSERT).send().await;
    let body = async { answer?.bytes().await };
    assert!(body.await.is_err());
}

#[tokio::test]
async fn large_answer_is_passed_back_whole() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    replica.node.script([Turn::Forward]);
    let results = json!([{"results": vec!["a tide of text"; 100_000]}]);
    primary
        .node
        .script([Turn::Answer(Bytes::from(results.to_string()))]);
    let got = replica.query(INSERT).send().await;
    assert_eq!(
        got.header("content-length"),
        Some(got.body.len().to_string().as_str())
    );
    assert_eq!(got.result(), results);
}

#[tokio::test]
async fn database_unknown_here_is_asked_for_there() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    replica.node.forget_databases();
    replica.query(INSERT).send().await.result();
    assert!(replica.node.executed().is_empty());
    assert_eq!(primary.node.executed().len(), 1);
    let got = replica
        .post(&format!("{DATABASES}/nope/query"), INSERT)
        .send()
        .await;
    got.failure(404, 7404, "no_database");
}

#[tokio::test]
async fn request_is_passed_on_once_only() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    replica.node.script([Turn::Forward]);
    let from = crate::server::Ask::passed_on;
    from(replica.query(INSERT))
        .send()
        .await
        .failure(503, 7905, "unavailable");
    let created = from(replica.post(DATABASES, r#"{"name":"x"}"#))
        .send()
        .await;
    created.failure(503, 7905, "unavailable");
    let deleted = from(replica.ask(Method::DELETE, &format!("{DATABASES}/{KNOWN}")))
        .send()
        .await;
    deleted.failure(503, 7905, "unavailable");
    assert!(primary.node.executed().is_empty());
}

#[tokio::test]
async fn nodes_that_believe_in_each_other_stop_after_one_hop() {
    let one = replica_of("http://127.0.0.1:1").await;
    let other = replica_of(&one.base).await;
    one.node.follow(Some(other.base.clone()));
    one.node.script([Turn::Forward]);
    other.node.script([Turn::Forward]);
    let got = one.query(INSERT).send().await;
    got.failure(503, 7905, "unavailable");
    assert_eq!(
        (one.node.executed().len(), other.node.executed().len()),
        (1, 1)
    );
}

#[tokio::test]
async fn primary_that_cannot_be_reached_is_unavailable() {
    let replica = replica_of(&nobody().await).await;
    replica.node.script([Turn::Forward]);
    let got = replica.query(INSERT).send().await;
    got.failure(503, 7905, "unavailable");
    assert_eq!(got.header("retry-after"), Some("1"), "nobody is to follow");
    assert_eq!(
        got.header("tidemark-served-by"),
        Some("APAC/replica/00000000000000b2")
    );
    let got = replica.post(DATABASES, r#"{"name":"x"}"#).send().await;
    got.failure(503, 7905, "unavailable");
    assert_eq!(got.header("retry-after"), Some("1"));

    let follower = follower_of(&nobody().await).await;
    follower
        .node
        .script(std::iter::repeat_n(Turn::Forward, 100));
    let ask = follower.query(INSERT).header("tidemark-deadline", "500ms");
    let got = ask.send().await;
    got.failure(503, 7905, "unavailable");
    assert_eq!(got.header("retry-after"), None, "a moment, not a second");
}

/// At stake: an outage must be told at once, also where the node last followed says nothing any more.
#[tokio::test]
async fn silent_node_is_not_waited_for_where_nobody_is_to_follow_it() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = replica_of(&format!("http://{}", silent.local_addr().unwrap())).await;
    let got = replica.get(&format!("{DATABASES}/{KNOWN}/time_travel/bookmark"));
    replica.node.script([Turn::Forward]);
    let got = got.header("tidemark-deadline", "60s").send().await;
    got.failure(503, 7905, "unavailable");
    assert_eq!(got.header("retry-after"), Some("1"));
}

/// At stake: a leader that hands over and stops in order answers what it has, and takes no connections.
#[tokio::test]
async fn answer_of_a_leader_that_stops_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let follower = follower_of(&format!("http://{}", listener.local_addr().unwrap())).await;
    let asking = tokio::spawn(follower.query(INSERT).send());
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(listener);
    learns(&follower, None).await;
    // As long as it takes another follower to give a silent node up, which began later: by then this one has
    // been asked for a sign of life as well.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = follower_of(&format!("http://{}", silent.local_addr().unwrap())).await;
    let given_up = tokio::spawn(other.query(INSERT).send());
    learns(&other, None).await;
    given_up.await.unwrap().failure(424, 7904, "unknown");
    stream.write_all(no_content().as_bytes()).await.unwrap();
    assert_eq!(asking.await.unwrap().status, 204);
}

#[tokio::test]
async fn node_that_leads_no_more_passes_on_what_it_had_let_in() {
    let successor = Server::start(Double::leading()).await;
    let deposed = Server::start(Double::leading()).await;
    deposed.node.be_patient(Duration::from_secs(2));
    deposed.node.script([not_leading(), Turn::Forward]);
    let asking = tokio::spawn(deposed.query(INSERT).send());
    learns(&deposed, Some(successor.base.clone())).await;
    asking.await.unwrap().result();
    assert_eq!(successor.node.executed().len(), 1);

    // Whoever passed it on looks for itself, and an outage is believed.
    deposed.node.script([not_leading()]);
    let passed = deposed.query(INSERT).passed_on();
    passed.send().await.failure(503, 7905, "unavailable");
    let outage = Failure::new(FailureKind::Unavailable, "no majority");
    let outage = Turn::Fail(outage.retry_after(Duration::from_secs(1)));
    deposed.node.script([outage]);
    let got = deposed.query(INSERT).send().await;
    assert_eq!(got.failure(503, 7905, "unavailable"), "no majority");
    assert_eq!(deposed.node.executed().len(), 4);
}

#[tokio::test]
async fn bookmark_that_was_asked_for_in_vain_leaves_no_doubt() {
    let broken = upstream(|stream| async { drop(stream) }).await;
    let replica = replica_of(&broken).await;
    replica.node.script([Turn::Forward]);
    let path = format!("{DATABASES}/{KNOWN}/time_travel/bookmark");
    let got = replica.get(&path).send().await;
    got.failure(503, 7905, "unavailable");
}

#[tokio::test]
async fn no_known_primary_is_unavailable() {
    let server = Server::start(Double::leading()).await;
    server.node.script([Turn::Forward]);
    server
        .query(INSERT)
        .send()
        .await
        .failure(503, 7905, "unavailable");
}

#[tokio::test]
async fn connection_that_breaks_after_the_request_is_unknown() {
    let replica = replica_of(&upstream(|stream| async { drop(stream) }).await).await;
    replica.node.script([Turn::Forward]);
    let got = replica.query(INSERT).send().await;
    got.failure(424, 7904, "unknown");
    assert_eq!(got.header("x-should-retry"), Some("false"));
    let got = replica.post(DATABASES, r#"{"name":"x"}"#).send().await;
    got.failure(424, 7904, "unknown");
    let got = replica
        .ask(Method::DELETE, &format!("{DATABASES}/{KNOWN}"))
        .send()
        .await;
    got.failure(424, 7904, "unknown");
}

#[tokio::test]
async fn primary_that_does_not_answer_in_time_is_unknown() {
    let replica = replica_of(
        &upstream(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream); // held until the test ends
        })
        .await,
    )
    .await;
    replica.node.script([Turn::Forward]);
    let got = replica
        .query(INSERT)
        .header("tidemark-deadline", "50ms")
        .send()
        .await;
    got.failure(424, 7904, "unknown");
}

#[tokio::test]
async fn answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let broken = upstream(|mut stream| async move {
        let guard = Guard::of(&["200"], std::iter::empty(), None);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\ntidemark-guard: {guard}\r\n\r\n{{\"result\":["
        );
        stream.write_all(head.as_bytes()).await.unwrap();
    });
    let replica = replica_of(&broken.await).await;
    replica.node.script([Turn::Forward]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}{DATABASES}/shop/query", replica.base);
    let answer = client.post(url).body(INSERT).send().await.unwrap();
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn what_is_not_http_in_return_is_unknown() {
    let odd = upstream(|mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
    });
    let replica = replica_of(&odd.await).await;
    replica.node.script([Turn::Forward]);
    replica
        .query(INSERT)
        .send()
        .await
        .failure(424, 7904, "unknown");
}

#[tokio::test]
async fn databases_are_the_primarys_business() {
    let primary = Server::start(Double::leading()).await;
    let replica = replica_of(&primary.base).await;
    let result = replica
        .post(DATABASES, r#"{"name":"fresh"}"#)
        .send()
        .await
        .result();
    assert_eq!(result["name"], "fresh");
    let [created] = primary.node.created().try_into().unwrap();
    assert!(created.request.is_some());
    assert!(replica.node.created().is_empty());

    // The replica has not heard of it yet and asks the primary.
    let result = replica
        .get(&format!("{DATABASES}/fresh"))
        .send()
        .await
        .result();
    assert_eq!(result["name"], "fresh");
    let listed = replica
        .get(&format!("{DATABASES}?name=fresh&per_page=10"))
        .send()
        .await;
    assert_eq!(listed.json()["result_info"]["total_count"], 1);

    let got = replica
        .ask(Method::DELETE, &format!("{DATABASES}/fresh"))
        .send()
        .await;
    assert_eq!(got.result(), json!(null));
    let got = replica.get(&format!("{DATABASES}/fresh")).send().await;
    got.failure(404, 7404, "no_database");
}

#[tokio::test]
async fn catalogue_is_looked_up_here_when_the_primary_is_gone() {
    for base in [
        nobody().await,
        upstream(|stream| async { drop(stream) }).await,
    ] {
        let replica = replica_of(&base).await;
        let got = replica.get(&format!("{DATABASES}/shop")).send().await;
        assert_eq!(got.result()["uuid"], KNOWN);
        assert_eq!(
            got.header("tidemark-served-by"),
            Some("APAC/replica/00000000000000b2")
        );
        let got = replica.get(DATABASES).send().await;
        assert_eq!(got.json()["result_info"]["total_count"], 1);
        // It may have been created a moment ago.
        let got = replica.get(&format!("{DATABASES}/fresh")).send().await;
        got.failure(503, 7905, "unavailable");
    }
}

#[tokio::test]
async fn only_what_concerns_the_request_travels() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = replica_of(&format!("http://{}", listener.local_addr().unwrap())).await;
    replica.node.script([Turn::Forward]);
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(INSERT.as_bytes()) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        stream.write_all(no_content().as_bytes()).await.unwrap();
        String::from_utf8(seen).unwrap()
    });
    let got = replica
        .query(INSERT)
        .header("authorization", "Bearer t")
        .header("connection", "keep-alive, X-Private")
        .header("x-private", "1")
        .header("te", "trailers")
        .header("x-public", "2")
        .send()
        .await;
    assert_eq!(got.status, 204);
    let seen = seen.await.unwrap();
    let (head, _) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(
        lines.next(),
        Some(format!("POST {DATABASES}/shop/query HTTP/1.1").as_str())
    );
    let headers: std::collections::BTreeMap<_, _> =
        lines.map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(headers["authorization"], "Bearer t");
    assert_eq!(headers["x-public"], "2");
    assert_eq!(headers["tidemark-forwarded-by"], "00000000000000b2");
    assert_eq!(headers["content-length"], INSERT.len().to_string());
    assert!(headers["tidemark-request-id"].parse::<RequestId>().is_ok());
    assert!(headers["tidemark-deadline"].ends_with("ms"));
    for hop in ["connection", "x-private", "te", "transfer-encoding"] {
        assert!(!headers.contains_key(hop), "{head}");
    }
}

/// A node that goes on looking for the leader, and follows `upstream` so far.
async fn follower_of(upstream: &str) -> Server {
    let server = replica_of(upstream).await;
    server.node.be_patient(Duration::from_secs(2));
    server.node.script([Turn::Forward, Turn::Forward]);
    server
}

/// How a node says that it does not lead.
fn not_leading() -> Turn {
    let failure = Failure::new(FailureKind::Unavailable, "this node does not lead");
    Turn::Fail(failure.retry_after(Duration::from_millis(200)))
}

/// Has `follower` learn of `leader` once it has tried the one before.
async fn learns(follower: &Server, leader: Option<String>) {
    let tried = async {
        while follower.node.executed().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), tried)
        .await
        .unwrap();
    follower.node.follow(leader);
}

#[tokio::test]
async fn what_a_dead_or_deposed_leader_did_not_do_is_done_by_its_successor() {
    let done = || Turn::Answer(Bytes::from(r#"[{"results":[]}]"#));
    let deposed = Server::start(Double::leading()).await;
    deposed.node.script([not_leading()]);
    for old in [nobody().await, deposed.base.clone()] {
        let successor = Server::start(Double::leading()).await;
        successor.node.script([done()]);
        let follower = follower_of(&old).await;
        let asking = tokio::spawn(follower.query(INSERT).send());
        learns(&follower, Some(successor.base.clone())).await;
        assert_eq!(asking.await.unwrap().result(), json!([{"results": []}]));
        let [done] = successor.node.executed().try_into().unwrap();
        if let [refused] = &deposed.node.executed()[..] {
            assert_eq!(done.request, refused.request, "it is the same request");
        }
        let names: Vec<_> = follower.node.executed().iter().map(|e| e.request).collect();
        assert_eq!(names, [None, None], "it is handed to the node as it came");
    }
}

#[tokio::test]
async fn follower_that_is_elected_does_itself_what_it_had_passed_on() {
    let follower = replica_of(&nobody().await).await;
    follower.node.be_patient(Duration::from_secs(2));
    let answer = Turn::Answer(Bytes::from(r#"[{"results":[]}]"#));
    follower.node.script([Turn::Forward, answer]);
    let asking = tokio::spawn(follower.query(INSERT).send());
    learns(&follower, None).await;
    assert_eq!(asking.await.unwrap().result(), json!([{"results": []}]));
    assert_eq!(follower.node.executed().len(), 2);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_passed_on_again() {
    let broken = upstream(|stream| async move { drop(stream) }).await;
    let successor = Server::start(Double::leading()).await;
    let follower = follower_of(&broken).await;
    let asking = tokio::spawn(follower.query(INSERT).send());
    learns(&follower, Some(successor.base.clone())).await;
    asking.await.unwrap().failure(424, 7904, "unknown");
    assert!(successor.node.executed().is_empty());
}

#[tokio::test]
async fn leader_that_speaks_of_an_outage_is_believed() {
    let leader = Server::start(Double::leading()).await;
    let outage = Failure::new(FailureKind::Unavailable, "no majority");
    leader
        .node
        .script([Turn::Fail(outage.retry_after(Duration::from_secs(1)))]);
    let follower = follower_of(&leader.base).await;
    let got = follower.query(INSERT).send().await;
    assert_eq!(got.failure(503, 7905, "unavailable"), "no majority");
    assert_eq!(got.header("retry-after"), Some("1"));
    assert_eq!(leader.node.executed().len(), 1);
}

/// At stake: two nodes that each take the other for the leader.
#[tokio::test]
async fn search_for_a_leader_ends_and_never_goes_in_circles() {
    let one = follower_of(&nobody().await).await;
    let other = follower_of(&one.base).await;
    one.node.follow(Some(other.base.clone()));
    for server in [&one, &other] {
        server.node.script(std::iter::repeat_n(Turn::Forward, 100));
    }
    let ask = one.query(INSERT).header("tidemark-deadline", "1s");
    ask.send().await.failure(503, 7905, "unavailable");
    assert!(
        one.node.executed().len() < 20,
        "it pauses between its tries"
    );
    // Each try came to the other once, and went no further.
    assert!(other.node.executed().len() <= one.node.executed().len());
}
