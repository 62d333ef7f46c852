//! One epoch: faults, peace, judgement, and the table of the next.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tidemark_protocol::{DatabaseId, Position};

use super::fault::{Elders, Fault};
use super::report::{Judged, Report};
use super::{LOAD, Soak, lock};
use crate::agreement;
use crate::cell::Cell;
use crate::history::{Fate, History, check, check_values};
use crate::node::Node;
use crate::wait;
use crate::workload::{DATABASE, Epoch, Table, Workload, agreed_rows};

/// Time for anything that must come about on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest time between two faults, and of one.
const PEACE_MAX: Duration = Duration::from_secs(4);
const FAULT_MAX: Duration = Duration::from_secs(6);
/// How often clients are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What an epoch works on.
pub(super) struct Run<'a> {
    pub(super) soak: &'a Soak,
    pub(super) cell: &'a mut Cell,
    pub(super) random: &'a mut fastrand::Rng,
    pub(super) elders: Elders,
    pub(super) report: &'a Mutex<Report>,
}

impl Run<'_> {
    /// Goes through it. `last` is the last state of the epoch before, which none of this may precede. Returns the
    /// next epoch, and the last state of this.
    pub(super) async fn through(
        mut self,
        epoch: Epoch,
        length: Duration,
        last: Option<Position>,
    ) -> (Epoch, Option<Position>) {
        let number = epoch.number;
        let workload = Workload::of_epoch(self.cell, self.soak.seed, LOAD, &epoch);
        let (workload, struck) = self.faults(workload, length).await;
        let (history, next) = workload.end().await;

        let nodes: Vec<_> = self.cell.nodes().collect();
        let (rows, reached) = settled_rows(&nodes, number).await;
        agreement::verified(&nodes, PATIENCE).await;
        let judged = tokio::task::spawn_blocking(move || {
            let told = check(&history, &rows).into_iter();
            let values = check_values(&history, &rows).into_iter();
            let mut violations: Vec<_> = told
                .map(|one| one.to_string())
                .chain(values.map(|one| one.to_string()))
                .collect();
            violations.extend(last.and_then(|last| went_back(&history, last)));
            Judged::of(&history, &struck, violations)
        });
        let judged = judged.await.expect("judging does not fail");
        lock(self.report).judged(number, judged);

        drop_table(self.cell, number).await;
        make_table(self.cell, next.number).await;
        (next, Some(reached))
    }

    /// One fault after another, and progress during and after each. Returns when each was, from the beginning of
    /// the clients' work, and what.
    async fn faults(
        &mut self,
        mut workload: Workload,
        length: Duration,
    ) -> (Workload, Vec<(Duration, &'static str)>) {
        let ends = Instant::now() + length;
        let mut struck = Vec::new();
        progress(&mut workload, "at the beginning").await;
        while Instant::now() < ends {
            self.rest(&mut workload, PEACE_MAX).await;
            let leader = self.cell.leader().await;
            let fault = Fault::any(self.cell, self.random, self.elders, leader);
            let (_, now) = workload.acknowledged();
            struck.push((now, fault.name()));
            lock(self.report).struck(fault.name());
            let hits_leader = match fault {
                Fault::Voter(_, at) | Fault::RestartVoter(at) => at == leader,
                Fault::Power => leader != self.elders.voter,
                Fault::Door(..) | Fault::Replica(..) => false,
            };
            workload.fault(hits_leader.then_some(leader));
            fault.strike(self.cell, self.elders).await;
            self.rest(&mut workload, FAULT_MAX).await;
            if fault.leaves_a_majority() {
                progress(&mut workload, fault.name()).await;
            }
            fault.undo(self.cell).await;
            if let Some(point) = self.soak.saboteur {
                super::fault::sabotage(self.cell, point).await;
            }
            progress(&mut workload, "in peace").await;
        }
        (workload, struck)
    }

    /// Lets some time pass, during which every client must go on.
    async fn rest(&mut self, workload: &mut Workload, at_most: Duration) {
        let until = Instant::now() + at_most.mul_f64(self.random.f64());
        while Instant::now() < until {
            assert!(!workload.lacks_clients(), "a client has ended");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Waits until one more write is acknowledged.
async fn progress(workload: &mut Workload, when: &str) {
    let (before, _) = workload.acknowledged();
    wait::until(
        &format!("a write is acknowledged, {when}"),
        PATIENCE,
        async || {
            assert!(!workload.lacks_clients(), "a client has ended");
            (workload.acknowledged().0 > before).then_some(())
        },
    )
    .await;
}

/// The rows of an epoch, the same on all nodes, and the state that they are of. A write in doubt may take effect after
/// its client has gone: then it is looked again.
async fn settled_rows(nodes: &[&Node], epoch: u32) -> (Vec<crate::history::Entry>, Position) {
    wait::until("all nodes have the same rows", PATIENCE, async || {
        let before = agreement::settled(nodes, PATIENCE).await;
        let rows = agreed_rows(nodes, epoch).await;
        let after = agreement::settled(nodes, PATIENCE).await;
        let catalogue = DatabaseId::CATALOGUE.to_string();
        let (_, reached) = *after.iter().find(|(uuid, _)| *uuid != catalogue)?;
        (before == after).then_some((rows, reached))
    })
    .await
}

/// An answer of this epoch that is older than the epoch before.
fn went_back(history: &History, last: Position) -> Option<String> {
    let read = history.reads.iter().map(|read| read.position);
    let written = history.writes.iter().filter_map(|write| match &write.fate {
        Fate::Committed(told) => told.position,
        Fate::Failed | Fate::Unknown => None,
    });
    let mut all = read.chain(written);
    let older = all.find(|position| !position.reached(&last))?;
    Some(format!(
        "an answer is of {older}, and {last} was agreed upon in an earlier epoch"
    ))
}

async fn drop_table(cell: &Cell, epoch: u32) {
    agreed(cell, &Table::of(epoch).drop).await;
}

/// Makes the table of an epoch, and the database before the first.
pub(super) async fn make_table(cell: &Cell, epoch: u32) {
    if epoch == 0 {
        let leader = cell.leader().await;
        cell.voters[leader].api().create(DATABASE).await;
    }
    agreed(cell, &Table::of(epoch).create).await;
}

/// Has something done that may be done twice, and waits until all nodes have it.
async fn agreed(cell: &Cell, sql: &str) {
    wait::until(sql, PATIENCE, async || {
        let database = cell.client(0).database(DATABASE);
        database.exec(sql).await.ok().map(|_| ())
    })
    .await;
    let nodes: Vec<_> = cell.nodes().collect();
    agreement::settled(&nodes, PATIENCE).await;
}
