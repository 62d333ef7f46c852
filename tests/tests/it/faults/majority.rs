//! No majority anywhere: each of three voters is alone. What needs the others is refused at once, what does
//! not goes on, and so does all when they are back.

use std::time::{Duration, Instant};

use tidemark_tests::{Layout, Query, Reply, wait};

use super::{PATIENCE, PROGRESS, at_work, rounds};

const RELAYED: Layout = Layout {
    voters: 3,
    replicas: 1,
    relays: true,
};
/// What a request allows: far more than a refusal may take.
const DEADLINE: &str = "100s";
/// Most time for a refusal: a wait for a leader, and a machine that has more to do.
const PROMPT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn voters_without_a_majority_refuse_writes_at_once_and_go_on_reading() {
    let test = "voters_without_a_majority_refuse_writes_at_once_and_go_on_reading";
    let (mut cell, mut workload, mut random) = at_work(test, RELAYED).await;
    for _ in 0..rounds(1) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let leader = cell.leader().await;
        let count = "SELECT count(*) AS n FROM entries";
        let known = cell.voters[leader].api().query("history", count).ok().await;
        let rows = known.rows()[0]["n"].as_u64().expect("a count");
        let known = known.bookmark();
        for node in cell.nodes() {
            // From its own copy: what has not come by now will not come later.
            let query = node.api().query("history", count).bookmark(&known);
            query.header("tidemark-on-miss", "error").ok().await;
        }
        workload.fault(Some(leader));
        (0..3).for_each(|at| cell.ways.isolate(at));
        wait::until("no voter is ready", PATIENCE, async || {
            for voter in &cell.voters {
                let ready = voter.api().get("/ready").await;
                if ready.is_ok_and(|reply| reply.status == 200) {
                    return None;
                }
            }
            Some(())
        })
        .await;

        for node in cell.nodes() {
            let api = node.api();
            let insert = api.query("history", "INSERT INTO entries (value) VALUES (999999999)");
            refused(node.name(), insert).await;
            refused(node.name(), api.query("history", count)).await;
            let latest = api.query("history", count).bookmark("first-primary");
            refused(node.name(), latest).await;

            let anything = api.query("history", count).bookmark("first-unconstrained");
            answered(node.name(), anything, 0).await;
            let since = api.query("history", count).bookmark(&known);
            answered(node.name(), since, rows).await;
        }
        workload.reads(10, PATIENCE).await;

        cell.ways.heal();
        workload.progress(PROGRESS, PATIENCE).await;
    }
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

/// Nothing happened, and the answer says when to come back.
async fn refused(node: &str, query: Query) {
    let (reply, took) = sent(query).await;
    assert_eq!(reply.status, 503, "{node}, after {took:?}: {}", reply.text);
    assert!(took < PROMPT, "{node} took {took:?} to say: {}", reply.text);
    assert!(
        reply.header("retry-after").is_some(),
        "{node}: {:?}",
        reply.headers
    );
    let kind = reply.header("tidemark-failure");
    assert_eq!(kind, Some("unavailable"), "{node}: {}", reply.text);
}

/// Answered by the node itself, from a state of at least so many rows.
async fn answered(node: &str, query: Query, rows: u64) {
    let (reply, took) = sent(query).await;
    assert_eq!(reply.status, 200, "{node}, after {took:?}: {}", reply.text);
    assert!(took < PROMPT, "{node} took {took:?}");
    let count = reply.rows()[0]["n"].as_u64().expect("a count");
    assert!(
        count >= rows,
        "{node} knows of {count} rows, expected {rows}"
    );
    assert_eq!(reply.meta()["served_by_primary"], false, "{node}");
}

async fn sent(query: Query) -> (Reply, Duration) {
    let begun = Instant::now();
    let reply = query.header("tidemark-deadline", DEADLINE).send().await;
    (reply.expect("the node answers"), begun.elapsed())
}
