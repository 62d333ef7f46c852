//! A request's way through the nodes, as a collector of spans is told it.

mod collector;

use tidemark_tests::{Api, Cluster, Place, wait};

use self::collector::{Collector, Span};
use crate::PROGRAM;

/// The span of a client, in a trace of its own.
const CLIENT: &str = "00f067aa0ba902b7";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const DROPPED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const LATER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const REQUEST: &str = "0190a0b0-1111-7222-8333-444455556666";

async fn started(words: &[&str]) -> (Collector, Cluster) {
    let collector = Collector::start().await;
    let words = [&["--otlp-endpoint", collector.url()], words].concat();
    let cluster = Cluster::told(PROGRAM, &[Place::near("WEUR")], &words).await;
    cluster.primary.api().create("shop").await;
    let create = cluster.primary.api().query("shop", "CREATE TABLE t (a)");
    create.ok().await;
    cluster.settled(wait::SOON).await;
    (collector, cluster)
}

fn parent(trace: &str, is_kept: bool) -> String {
    format!("00-{trace}-{CLIENT}-{:02x}", u8::from(is_kept))
}

async fn insert(api: &Api, trace: &str, is_kept: bool) {
    let insert = api.query("shop", "INSERT INTO t VALUES (1)");
    insert
        .header("traceparent", &parent(trace, is_kept))
        .ok()
        .await;
}

/// The one span of this name below `above`.
fn below<'s>(spans: &'s [Span], above: &str, name: &str) -> &'s Span {
    let mut found = spans
        .iter()
        .filter(|span| span.parent == above && span.name == name);
    match (found.next(), found.next()) {
        (Some(one), None) => one,
        _ => panic!("not one '{name}' below {above}: {spans:#?}"),
    }
}

/// Who looks for a slow write finds, from the client's own span down, which node it was at and what it waited for.
#[tokio::test]
async fn write_by_way_of_a_replica_is_one_trace_over_both_nodes() {
    let (collector, cluster) = started(&[]).await;
    let replica = cluster.replicas[0].api();
    let insert = replica.query("shop", "INSERT INTO t VALUES (1)");
    let insert = insert.header("tidemark-request-id", REQUEST);
    insert
        .header("traceparent", &parent(TRACE, true))
        .ok()
        .await;

    let spans = wait::soon("both nodes have told", async || {
        let spans = collector.of(TRACE);
        let ended = |role: &str| {
            let mut requests = spans.iter().filter(|span| span.name == "query");
            requests.any(|span| span.resource["tidemark.role"] == role)
        };
        (ended("primary") && ended("replica")).then_some(spans)
    })
    .await;
    let at_replica = below(&spans, CLIENT, "query");
    let forward = below(&spans, &at_replica.id, "forward");
    let at_primary = below(&spans, &forward.id, "query");
    let write = below(&spans, &at_primary.id, "write");
    for span in [at_replica, forward, at_primary, write] {
        assert_eq!(span.fields["request"], REQUEST, "{span:?}");
    }
    for stage in ["queue", "execute", "replicate", "flush"] {
        below(&spans, &write.id, stage);
    }
    let committed = &below(&spans, &write.id, "replicate").events;
    assert_eq!(*committed, ["committed"]);
    assert_eq!(write.events, ["answered"]);
    assert_eq!(write.fields["db"], at_primary.fields["db"]);
    assert!(write.fields.contains_key("term"), "{write:?}");
    assert!(write.fields.contains_key("position"), "{write:?}");
    // A request without a session is for the primary, whatever it does.
    assert_eq!(at_replica.fields["forwarded"], "contract");
    assert_eq!(at_replica.fields["http.response.status_code"], "200");
    let nodes = [at_replica, at_primary].map(|span| &span.resource);
    let [at_replica, at_primary] = nodes;
    assert_eq!(at_replica["cloud.region"], "WEUR");
    assert_eq!(at_primary["cloud.region"], "ENAM");
    assert_eq!(at_primary["service.name"], "tidemark");
    let instances = nodes.map(|resource| &resource["service.instance.id"]);
    assert_ne!(instances[0], instances[1]);
    assert_eq!(
        below(&spans, &forward.id, "query").fields["peer"],
        *instances[0],
        "who handed it on"
    );
}

/// A client that keeps one trace in a thousand decides that for all nodes.
#[tokio::test]
async fn trace_is_kept_where_its_client_says_so_whatever_the_share() {
    let (collector, cluster) = started(&["--otlp-ratio", "0"]).await;
    let replica = cluster.replicas[0].api();
    insert(&replica, DROPPED, false).await;
    replica.query("shop", "INSERT INTO t VALUES (2)").ok().await;
    insert(&replica, LATER, true).await;
    wait::soon("both nodes have told of the later one", async || {
        let spans = collector.of(LATER);
        let requests = spans.iter().filter(|span| span.name == "query");
        (requests.count() == 2).then_some(())
    })
    .await;
    // Spans leave a node in the order in which they end.
    assert!(collector.of(DROPPED).is_empty());
    assert_eq!(collector.all(), collector.of(LATER).len());
}

/// What a session waits for at a replica is the thing to look at when its reads are slow.
#[tokio::test]
async fn wait_for_a_bookmark_is_a_span() {
    let (collector, cluster) = started(&[]).await;
    let (primary, replica) = (cluster.primary.api(), cluster.replicas[0].api());
    let way = &cluster.ways[0];
    way.cut_both();
    let written = primary.query("shop", "INSERT INTO t VALUES (1)").ok().await;
    let bookmark = written
        .header("x-d1-bookmark")
        .expect("a bookmark")
        .to_owned();
    let read = replica
        .query("shop", "SELECT a FROM t")
        .bookmark(&bookmark)
        .header("tidemark-on-miss", "error")
        .header("tidemark-deadline", "30s")
        .header("traceparent", &parent(TRACE, true));
    let read = tokio::spawn(read.ok());
    wait::soon("the read has come", async || {
        let shown = replica.get("/metrics").await.expect("the node answers");
        let in_flight = "tidemark_http_requests_in_flight 1\n";
        shown.text.contains(in_flight).then_some(())
    })
    .await;
    way.heal_both();
    read.await.expect("the read is answered");
    let spans = wait::soon("the replica has told", async || {
        let spans = collector.of(TRACE);
        spans
            .iter()
            .any(|span| span.name == "query")
            .then_some(spans)
    })
    .await;
    let waited = below(&spans, &below(&spans, CLIENT, "query").id, "wait");
    assert_eq!(waited.fields["met"], "true");
    assert!(waited.fields.contains_key("wanted"), "{waited:?}");
}
