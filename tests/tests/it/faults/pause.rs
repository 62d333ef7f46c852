//! A leader that stands still, as under a debugger or a hypervisor, and goes on when another leads.

use tidemark_tests::{Cell, Layout, Load, Seed, Workload};

use super::{PATIENCE, PROGRESS, rounds};
use crate::PROGRAM;

/// Readers: half of them strong, of whom some should find the old leader at the moment when it wakes.
const READERS: u32 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_stood_still_while_another_led_answers_nothing_old() {
    let test = "leader_that_stood_still_while_another_led_answers_nothing_old";
    let seed = Seed::of(test);
    let mut random = seed.stream(0);
    let mut cell = Cell::of(PROGRAM, Layout::default()).await;
    let load = Load {
        readers: READERS,
        ..Load::default()
    };
    let mut workload = Workload::start(&cell, seed, load).await;
    for _ in 0..rounds(3) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let leader = cell.leader().await;
        workload.fault(Some(leader));
        cell.voters[leader].freeze();
        let successor = cell.successor(leader).await;
        // The old one must find, when it wakes, that others have acted meanwhile.
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        cell.voters[leader].thaw();
        workload.progress(PROGRESS, PATIENCE).await;
        assert_ne!(leader, successor);
    }
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}
