//! Ways that damage bytes, in both directions and at any place: the heads and the bodies of requests, the frames of
//! WebSockets and what is in them. Nothing that was damaged is taken for what was sent, and all goes on.

use std::num::NonZeroU64;

use tidemark_tests::{Layout, Node, wait};

use super::{PATIENCE, PROGRESS, at_work, rounds};

const RELAYED: Layout = Layout {
    voters: 3,
    replicas: 1,
    relays: true,
};
/// So many bytes are damaged, at least, before the ways are mended.
const DAMAGED_MIN: u64 = 40;
/// Bytes from one that is damaged to the next, on average, with which a cell goes on: more than a message has. With less,
/// no message gets through that has all of what waits.
const WORKABLE_BYTES: u64 = 20_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_damaged_between_voters_is_taken_for_what_was_sent() {
    let test = "nothing_that_is_damaged_between_voters_is_taken_for_what_was_sent";
    let (mut cell, mut workload, mut random) = at_work(test, RELAYED).await;
    for _ in 0..rounds(2) {
        for mean in [1_000, 10_000, WORKABLE_BYTES] {
            let every = random.u64(mean / 2..mean * 2);
            workload
                .progress(random.usize(1..=PROGRESS), PATIENCE)
                .await;
            workload.fault(None);
            let before = cell.ways.damaged();
            cell.ways.damage(NonZeroU64::new(every));
            if mean == WORKABLE_BYTES {
                workload.progress(PROGRESS, PATIENCE).await;
            } else {
                let what = format!("bytes are damaged, one in {every}");
                wait::until(&what, PATIENCE, async || {
                    (cell.ways.damaged() >= before + DAMAGED_MIN).then_some(())
                })
                .await;
            }
            cell.ways.damage(None);
            workload.progress(PROGRESS, PATIENCE).await;
        }
    }
    let damaged = cell.ways.damaged();
    let refused = refusals(cell.nodes());
    eprintln!("{damaged} bytes damaged, {refused} messages refused by their CRC");
    assert!(refused > 0, "no message was refused by its CRC");
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

/// The stream, and what a replica hands on to the primary: requests of clients, and the answers to them.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_damaged_between_a_replica_and_its_primary_is_taken_for_what_was_sent() {
    let test =
        "nothing_that_is_damaged_between_a_replica_and_its_primary_is_taken_for_what_was_sent";
    let layout = Layout {
        voters: 1,
        replicas: 2,
        relays: true,
    };
    let (mut cell, mut workload, mut random) = at_work(test, layout).await;
    for _ in 0..rounds(3) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        workload.fault(None);
        let every = random.u64(2_000..50_000);
        let before = cell.ways.damaged();
        cell.ways.damage(NonZeroU64::new(every));
        // The primary itself is not in question.
        workload.progress(PROGRESS, PATIENCE).await;
        let what = format!("bytes are damaged, one in {every}");
        wait::until(&what, PATIENCE, async || {
            (cell.ways.damaged() >= before + DAMAGED_MIN).then_some(())
        })
        .await;
        cell.ways.damage(None);
        workload.progress(PROGRESS, PATIENCE).await;
    }
    let damaged = cell.ways.damaged();
    let refused = refusals(cell.nodes());
    eprintln!("{damaged} bytes damaged, {refused} messages, requests and answers refused");
    assert!(refused > 0, "nothing was refused by its CRC");
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

/// How often nodes say that something is not what was sent.
fn refusals<'n>(nodes: impl Iterator<Item = &'n Node>) -> usize {
    let words = ["has CRC", "is not what"];
    let of_node = |node: &Node| {
        let log = node.log();
        let found = log
            .lines()
            .filter(|line| words.iter().any(|words| line.contains(words)));
        found.count()
    };
    nodes.map(of_node).sum()
}
