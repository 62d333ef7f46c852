//! Cells under faults: whatever is done to their voters, what clients were told holds.
//!
//! Each scenario lets a [`Workload`] go on through its faults and has its record judged: no acknowledged
//! write is lost or counts twice, no refused one counts, nobody sees what is not committed, sessions and
//! strong reads are as fresh as they ask, and in the end all nodes are the same.
//!
//! `TIDEMARK_ROUNDS` says how often each fault is repeated; the default suits a gate.

use std::time::Duration;

use tidemark_tests::{Blow, Cell, Layout, Load, Seed, Workload};

use crate::PROGRAM;

mod clocks;
mod cut;
mod damage;
mod five;
mod kill;
mod large;
mod majority;
mod members;
mod pause;
mod points;
mod power;
mod restarts;
mod saboteurs;
mod storm;

/// The variable that says how often a fault is repeated.
const ROUNDS: &str = "TIDEMARK_ROUNDS";
/// Time for anything that must come about under load on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Writes that show that a cell is at work.
const PROGRESS: usize = 100;

/// How often a fault is repeated: `TIDEMARK_ROUNDS`, or this.
pub(crate) fn rounds(default: usize) -> usize {
    match std::env::var(ROUNDS) {
        Ok(text) => text.parse().expect("TIDEMARK_ROUNDS is a number"),
        Err(_) => default,
    }
}

/// A cell at work, and where the scenario's choices come from.
async fn at_work(test: &str, layout: Layout) -> (Cell, Workload, fastrand::Rng) {
    let seed = Seed::of(test);
    let cell = Cell::of(PROGRAM, layout).await;
    let workload = Workload::start(&cell, seed, Load::default()).await;
    (cell, workload, seed.stream(0))
}

/// Hits whoever leads, round after round, at any time of the work: writes go on without it and with it.
/// `progress`: most writes before and after each blow.
async fn hit_leaders(
    cell: &mut Cell,
    workload: &mut Workload,
    random: &mut fastrand::Rng,
    (blow, rounds, progress): (Blow, usize, usize),
) {
    for _ in 0..rounds {
        workload
            .progress(random.usize(1..=progress), PATIENCE)
            .await;
        let leader = cell.leader().await;
        workload.fault(Some(leader));
        blow.strike(cell, leader);
        // One that comes back must find that others have acted meanwhile.
        cell.successor(leader).await;
        workload
            .progress(random.usize(1..=progress), PATIENCE)
            .await;
        blow.undo(cell, leader).await;
        workload.progress(progress, PATIENCE).await;
    }
}
