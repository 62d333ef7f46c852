//! The moments after a leader's death: whoever asks another node then waits for the successor and is answered,
//! without trying again; and replicas find the successor by themselves.

use std::time::{Duration, Instant};

use tidemark_tests::{Api, Cell, wait};
use tokio::task::JoinSet;

use crate::PROGRAM;

const ROUNDS: usize = 2;
/// What each request allows itself.
const DEADLINE: &str = "10s";

/// Asks once, and gives the bookmark of the answer.
async fn answered(name: String, api: Api, sql: String) -> String {
    let begun = Instant::now();
    let query = api.query("moments", &sql);
    let reply = query.header("tidemark-deadline", DEADLINE).send().await;
    let reply = reply.expect("the node lives");
    assert_eq!(reply.status, 200, "{name}: {sql}: {}", reply.text);
    eprintln!("{name} answered after {:?}: {sql}", begun.elapsed());
    reply.bookmark()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_other_nodes_wait_for_the_successor_and_replicas_follow_it() {
    let mut cell = Cell::start(PROGRAM).await;
    let leader = cell.leader().await;
    cell.voters[leader].api().create("moments").await;
    let replica = cell.replicas[0].api();
    let table = "CREATE TABLE moment (n INTEGER PRIMARY KEY)";
    let made = replica.query("moments", table).ok().await;
    for voter in &cell.voters {
        let read = voter.api().query("moments", "SELECT n FROM moment");
        read.bookmark(&made.bookmark()).ok().await;
    }
    for round in 0..ROUNDS {
        let leader = cell.leader().await;
        cell.voters[leader].kill();
        let killed = Instant::now();
        let mut asked = JoinSet::new();
        for (at, node) in cell.nodes().enumerate().filter(|(at, _)| *at != leader) {
            let read = "SELECT count(*) FROM moment".to_owned();
            let write = format!("INSERT INTO moment VALUES ({})", round * 10 + at);
            for sql in [read, write] {
                asked.spawn(answered(node.name().to_owned(), node.api(), sql));
            }
        }
        let mut written = Vec::new();
        while let Some(bookmark) = asked.join_next().await {
            written.push(bookmark.expect("every request is answered at its first try"));
        }
        let newest = written.into_iter().max().expect("some were written");
        wait::soon("the replica follows the successor", async || {
            let read = replica.query("moments", "SELECT count(*) AS n FROM moment");
            let read = read.bookmark(&newest).header("tidemark-on-miss", "error");
            let reply = read.send().await.expect("the replica lives");
            (reply.status == 200).then_some(())
        })
        .await;
        eprintln!("the replica has it {:?} after the kill", killed.elapsed());
        cell.voters[leader].start();
        cell.voters[leader].ready().await;
    }
    cell.verified(Duration::from_secs(30)).await;
    cell.stop().await;
}
