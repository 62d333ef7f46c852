//! Wall clocks that jump while nodes run, forward and back, by seconds or years: nothing that anybody is promised rests on
//! them.

use std::time::{Duration, SystemTime};

use tidemark_tests::{Cell, Clocks, Layout, Load, Node, Seed, Workload, wait};

use super::{PATIENCE, PROGRESS, rounds};
use crate::PROGRAM;

/// How far a clock may be from the right time, in seconds: from a second to ten years, either way.
const JUMPS_S: [i64; 6] = [1, 60, 16 * 60, 3600, 40 * 86_400, 10 * 365 * 86_400];
const LOAD: Load = Load {
    writers: 16,
    sessions: 8,
    readers: 8,
    rest: Duration::from_millis(20),
};
/// Longer than a request is remembered.
const AGE_S: i64 = 16 * 60;
/// How well a node's clock is known from outside.
const INEXACT_S: i64 = 60;

/// Sets the clock of a node, and waits until its SQL shows that.
#[allow(
    clippy::disallowed_methods,
    reason = "the clock of this machine is what is compared with"
)]
async fn set(node: &Node, ahead_s: i64) {
    Clocks::set(node, ahead_s);
    let what = format!("the clock of {} is {ahead_s} s ahead", node.name());
    wait::soon(&what, async || {
        let query = node.api().query("history", "SELECT unixepoch() AS now");
        let reply = query.bookmark("first-unconstrained").send().await.ok()?;
        let there = reply.rows().first()?["now"].as_i64()?;
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let here = i64::try_from(here.ok()?.as_secs()).ok()?;
        ((there - here - ahead_s).abs() < INEXACT_S).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_break_no_promise() {
    let seed = Seed::of("clocks_that_jump_break_no_promise");
    let mut random = seed.stream(0);
    let clocks = Clocks::new(PROGRAM);
    let mut cell = Cell::of(&clocks.program(), Layout::default()).await;
    let mut workload = Workload::start(&cell, seed, LOAD).await;
    for round in 0..rounds(6) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let leader = cell.leader().await;
        for _ in 0..random.usize(1..=3) {
            let nodes: Vec<_> = cell.nodes().collect();
            let node = if random.bool() {
                nodes[leader]
            } else {
                nodes[random.usize(..nodes.len())]
            };
            let jump = random.choice(JUMPS_S).expect("there are jumps");
            let ahead_s = if random.bool() { jump } else { -jump };
            workload.fault(None);
            set(node, ahead_s).await;
        }
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        if round % 2 == 1 {
            // Another's clock counts from now on.
            workload.fault(Some(leader));
            cell.voters[leader].kill();
            cell.successor(leader).await;
            workload.progress(PROGRESS, PATIENCE).await;
            cell.voters[leader].start();
            cell.voters[leader].ready().await;
        }
    }
    workload.progress(PROGRESS, PATIENCE).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

/// A client that was not answered tries again under the same id. Whatever the clocks did meanwhile, and whoever leads,
/// that counts once.
#[tokio::test(flavor = "multi_thread")]
async fn retries_are_known_again_whatever_the_clocks_say() {
    let clocks = Clocks::new(PROGRAM);
    let mut cell = Cell::of(&clocks.program(), Layout::default()).await;
    let leader = cell.leader().await;
    let api = cell.voters[leader].api();
    api.create("history").await;
    let table = "CREATE TABLE retried (n INTEGER PRIMARY KEY, word TEXT)";
    api.query("history", table).ok().await;
    write(&cell, leader, 1, "first").await;

    // Its own clock jumps, with other writes before and after.
    for (n, ahead_s) in [(2, AGE_S), (4, -AGE_S), (6, 3 * AGE_S)] {
        write(&cell, leader, n, "before").await;
        set(&cell.voters[leader], ahead_s).await;
        write(&cell, leader, n + 1, "after").await;
        assert_known(&cell, leader, 1, "first").await;
    }
    // Its successors' clocks are ahead of it, and of each other.
    let mut ahead_s = 3 * AGE_S;
    let mut last = leader;
    for n in [8, 9] {
        for (at, voter) in cell.voters.iter().enumerate().filter(|(at, _)| *at != last) {
            set(
                voter,
                ahead_s + AGE_S * i64::try_from(at + 1).expect("three voters"),
            )
            .await;
        }
        ahead_s += 4 * AGE_S;
        cell.voters[last].kill();
        let next = cell.successor(last).await;
        write(&cell, next, n, "later").await;
        assert_known(&cell, next, 1, "first").await;
        cell.voters[last].start();
        cell.voters[last].ready().await;
        last = next;
    }
    let count = "SELECT count(*) AS n FROM retried";
    let reply = cell.voters[last].api().query("history", count).ok().await;
    assert_eq!(reply.rows()[0]["n"], 9);
    cell.verified(PATIENCE).await;
    cell.stop().await;
}

fn insert(cell: &Cell, at: usize, n: u32, word: &str) -> tidemark_tests::Query {
    let sql = format!("INSERT INTO retried (word) VALUES ('{word}')");
    let request = format!("00000000-0000-4000-8000-{n:012}");
    let query = cell.voters[at].api().query("history", &sql);
    query.header("tidemark-request-id", &request)
}

async fn write(cell: &Cell, at: usize, n: u32, word: &str) {
    wait::soon("a write is acknowledged", async || {
        let reply = insert(cell, at, n, word).send().await.ok()?;
        (reply.status == 200).then_some(())
    })
    .await;
}

async fn assert_known(cell: &Cell, at: usize, n: u32, word: &str) {
    let reply = insert(cell, at, n, word).ok().await;
    let repeated = reply.header("tidemark-repeated");
    assert_eq!(repeated, Some("true"), "request {n}: {}", reply.text);
}
