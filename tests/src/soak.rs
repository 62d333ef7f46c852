//! A cell under random faults for hours: what it promises holds, and what it takes of the machine does not grow.
//!
//! 1. Three voters and three replicas run as processes, each voter behind a relay of its own, the ways between voters
//!    through relays too. Sixteen sessions, and readers and writers outside sessions, work on them.
//! 2. The run goes in *epochs* of some minutes. During one, faults (`fault`) come and go; at its end all is healed, the
//!    clients rest, all nodes must agree and find their checksums, and both judges look at the epoch's record. Then its
//!    table is dropped, and the clients go on with the next: their sessions, and the values that they have used
//!    up, are carried over; the record is forgotten.
//! 3. Meanwhile every process is measured (`samples`): what it takes of memory, files, threads and disk. The
//!    report has the trend of each process from its start to its end.
//!
//! A voter and a replica, picked by the seed, are *elders*: they are cut off, slowed and stopped like the others, but
//! their processes are never ended, so that they grow old.
//!
//! An end before its time, for whatever reason, is a violation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cell::{Cell, Layout};
use crate::seed::Seed;
use crate::workload::{Epoch, Load};

mod epoch;
mod fault;
mod report;
mod samples;
mod trend;

use fault::Elders;
pub use report::{NodeTrend, Report, Silence};
use samples::Samples;
pub use trend::{Series, Trend};

/// Voters and replicas.
const LAYOUT: Layout = Layout {
    voters: 3,
    replicas: 3,
    relays: true,
};
/// The clients. Their rest leaves time for the nodes on a small machine.
const LOAD: Load = Load {
    writers: 8,
    sessions: 16,
    readers: 8,
    rest: Duration::from_millis(150),
};
/// The first number of the streams that say which faults there are; smaller than the clients'.
const FAULT_STREAM: u64 = 1;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The node program.
    pub program: String,
    /// Where all choices come from.
    pub seed: Seed,
    /// How long, not counting what begins before it is over.
    pub duration: Duration,
    /// Length of an epoch, without its judgement.
    pub epoch: Duration,
    /// How long a process has run before what it takes of the machine is taken for its habit.
    pub warm_up: Duration,
    /// A promise that all nodes are told to break, by the name of its point: the soak has to find it.
    pub saboteur: Option<&'static str>,
}

impl Soak {
    /// Runs it. `told` gets the report so far after every epoch, and last.
    pub async fn run(self, told: impl Fn(&Report)) -> Report {
        let began = Instant::now();
        let report = Arc::new(Mutex::new(Report::of(&self)));
        let (sender, mut epochs) = tokio::sync::mpsc::channel(1);
        let work = {
            let report = Arc::clone(&report);
            let runtime = tokio::runtime::Handle::current();
            // On a thread of its own, where a panic ends it and nothing else.
            tokio::task::spawn_blocking(move || runtime.block_on(self.work(began, report, sender)))
        };
        while let Some(()) = epochs.recv().await {
            told(&lock(&report));
        }
        if let Err(ended) = work.await {
            lock(&report).ended_early(ended);
        }
        let mut report = lock(&report).clone();
        report.conclude(began.elapsed());
        told(&report);
        report
    }

    async fn work(
        self,
        began: Instant,
        report: Arc<Mutex<Report>>,
        epochs: tokio::sync::mpsc::Sender<()>,
    ) {
        let mut cell = Cell::behind_doors(&self.program, LAYOUT).await;
        lock(&report).files = Some(cell.keep_files(true).to_owned());
        let mut random = self.seed.stream(FAULT_STREAM);
        let elders = Elders::pick(&mut random);
        let samples = Samples::begin(&cell, elders, &self);
        epoch::make_table(&cell, 0).await;
        if let Some(point) = self.saboteur {
            fault::sabotage(&mut cell, point).await;
        }
        let mut epoch = Epoch::default();
        let mut last = None;
        while began.elapsed() < self.duration {
            let length = self
                .epoch
                .min(self.duration.saturating_sub(began.elapsed()));
            let run = epoch::Run {
                soak: &self,
                cell: &mut cell,
                random: &mut random,
                elders,
                report: &report,
            };
            (epoch, last) = run.through(epoch, length, last).await;
            {
                let mut report = lock(&report);
                report.measured(&samples);
                report.conclude(began.elapsed());
            }
            // Whoever listens has gone only when the run has.
            let _ = epochs.send(()).await;
            if self.saboteur.is_some() && !lock(&report).sound() {
                break;
            }
        }
        cell.stop().await;
        lock(&report).measured(&samples);
        if lock(&report).sound() {
            cell.keep_files(false);
            lock(&report).files = None;
        }
    }
}

/// Every change of what is behind such a lock is whole, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
