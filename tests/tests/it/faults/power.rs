//! The power fails under real processes: of a node's files that is left which was synced, and of the rest any part, whole,
//! torn or not at all.
//!
//! A voter syncs its log before it says that it has an entry, and little else: what is in its databases it finds out by
//! their checksums. A replica syncs nothing for the sake of what it shows, and can fetch all of it again.

use std::time::Duration;

use tidemark_tests::{Layout, Load, Lost, Node, PoweredCell, Seed, Workload};

use super::{PATIENCE, PROGRESS, rounds};
use crate::PROGRAM;

const LAYOUT: Layout = Layout {
    voters: 3,
    replicas: 1,
    relays: false,
};
/// The file systems are served by one thread each, beside all the rest.
const LOAD: Load = Load {
    writers: 16,
    sessions: 4,
    readers: 4,
    rest: Duration::from_millis(20),
};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_power_fails_lose_nothing_that_was_acknowledged() {
    if !PoweredCell::available() {
        return;
    }
    let seed = Seed::of("nodes_whose_power_fails_lose_nothing_that_was_acknowledged");
    let mut random = seed.stream(0);
    let mut powered = PoweredCell::start(PROGRAM, LAYOUT).await;
    let mut workload = Workload::start(&powered.cell, seed, LOAD).await;
    let mut lost = Lost::default();
    for round in 0..rounds(4) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        if round % 2 == 0 {
            workload.fault(None);
            for of_one in powered.fail_all(&mut random) {
                lost.add(of_one);
            }
            powered.cell.nodes_mut().for_each(Node::start);
            for node in powered.cell.nodes_mut() {
                node.ready().await;
            }
        } else {
            let leader = powered.cell.leader().await;
            let at = random.usize(..LAYOUT.voters);
            workload.fault((at == leader).then_some(leader));
            lost.add(powered.fail(at, &mut random));
            workload.progress(random.usize(..PROGRESS), PATIENCE).await;
            powered.cell.voters[at].start();
            powered.cell.voters[at].ready().await;
        }
    }
    workload.progress(PROGRESS, PATIENCE).await;
    eprintln!("lost: {lost:?}");
    assert!(lost.changes > 0, "nothing was lost that was not synced");
    workload.judged(&powered.cell, PATIENCE).await;
    powered.cell.stop().await;
}
