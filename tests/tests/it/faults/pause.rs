//! A leader that stands still, as under a debugger or a hypervisor, and goes on when another leads.

use tidemark_tests::{Blow, Cell, Layout, Load, Seed, Workload};

use super::{PATIENCE, PROGRESS, hit_leaders, rounds};
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
    let stops = (Blow::Freeze, rounds(3), PROGRESS);
    hit_leaders(&mut cell, &mut workload, &mut random, stops).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}
