//! Clients at work on the simulated cluster, and the record of what they were told.
//!
//! As in the tests of real processes there are *writers*, *sessions* and *readers*; they speak HTTP over the simulated
//! network, to a node picked anew for each request. They only take notes; an answer that no fault explains is a
//! violation.

mod door;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemark_checker::{Asked, Entry, History, Recorder, Summary, check, check_values};
use tidemark_protocol::{Bookmark, RequestId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::door::{Ask, Door};
use self::worker::Worker;
use crate::layout::Layout;
use crate::watch::{Watch, agree};

/// The database of a history.
const DATABASE: &str = "history";
const TABLE: &str = "CREATE TABLE entries (place INTEGER PRIMARY KEY, value INTEGER NOT NULL)";
const ALL: &str = "SELECT place, value FROM entries ORDER BY place";
/// Writers, sessions and readers.
const WRITERS: u32 = 4;
const SESSIONS: u32 = 4;
const READERS: u32 = 2;
/// Time for a cluster to begin.
const BEGINNING_MAX: Duration = Duration::from_secs(60);
/// Time in which a healed cluster has to make progress, end what clients wait for, and agree.
const PROGRESS_MAX: Duration = Duration::from_secs(60);
/// Writes and reads that are progress.
const PROGRESS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most violations that are shown.
const SHOWN_MAX: usize = 10;

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The cluster begins.
    Beginning,
    /// Clients work; faults may happen.
    Working,
    /// All faults are undone; progress is demanded.
    Healed,
    /// It is over.
    Done,
}

/// What the clients of a run have in common with whoever runs it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) layout: Layout,
    pub(crate) rest: Duration,
    pub(crate) seed: u64,
    pub(crate) watch: Arc<Watch>,
    pub(crate) phase: std::sync::atomic::AtomicU8,
    pub(crate) recorder: Recorder,
    pub(crate) stop: AtomicBool,
    pub(crate) summary: std::sync::Mutex<Option<Summary>>,
}

impl Table {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Beginning,
            1 => Phase::Working,
            2 => Phase::Healed,
            _ => Phase::Done,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.watch.note(&format!("{phase:?}"));
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// All of it, from the first table to the verdict.
    pub(crate) async fn run(self: Arc<Self>) {
        if let Err(violation) = Arc::clone(&self).conduct().await {
            self.watch.violate(&violation);
        }
        self.enter(Phase::Done);
    }

    async fn conduct(self: Arc<Self>) -> Result<(), String> {
        let mut random = fastrand::Rng::with_seed(self.seed ^ 0x636c_6965_6e74_7300);
        let door = Door::new();
        self.make_the_table(&door, &mut random).await?;
        let mut clients = JoinSet::new();
        for number in 0..WRITERS + SESSIONS + READERS {
            let worker = Worker::new(number, random.fork(), Arc::clone(&self), door.clone());
            if number < WRITERS {
                clients.spawn(write(worker));
            } else if number < WRITERS + SESSIONS {
                clients.spawn(converse(worker));
            } else {
                clients.spawn(read(worker));
            }
        }
        self.enter(Phase::Working);
        while self.phase() == Phase::Working {
            if let Some(ended) = clients.try_join_next() {
                return Err(format!("a client ended early: {ended:?}"));
            }
            sleep(LOOK_EVERY).await;
        }
        let recorder = &self.recorder;
        let (writes, reads) = (recorder.acknowledged(), recorder.answered());
        until("progress of writers and readers", || {
            recorder.acknowledged() >= writes + PROGRESS && recorder.answered() >= reads + PROGRESS
        })
        .await?;
        self.stop.store(true, Ordering::Relaxed);
        let all_ended = async {
            while let Some(ended) = clients.join_next().await {
                ended.map_err(|panicked| format!("a client: {panicked}"))?;
            }
            Ok::<_, String>(())
        };
        let ended = timeout(PROGRESS_MAX, all_ended).await;
        ended.map_err(|_late| "clients wait for ever".to_owned())??;
        self.judge(&door).await
    }

    async fn make_the_table(&self, door: &Door, random: &mut fastrand::Rng) -> Result<(), String> {
        let until = Instant::now() + BEGINNING_MAX;
        let create = RequestId::new(uuid::Builder::from_u128(random.u128(..)).into_uuid());
        let table = RequestId::new(uuid::Builder::from_u128(random.u128(..)).into_uuid());
        let mut created = false;
        loop {
            let hosts = self.layout.hosts();
            let host = &hosts[random.usize(..hosts.len())];
            let answer = if created {
                let ask = Ask::query(DATABASE, TABLE).named(table);
                door.ask(host, ask).await
            } else {
                door.ask(host, Ask::create(DATABASE).named(create)).await
            };
            match answer {
                Ok(_) if created => return Ok(()),
                Ok(_) => created = true,
                Err(refusal) if Instant::now() > until => {
                    return Err(format!("the cluster did not begin: {refusal:?}"));
                }
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until all nodes agree and have verified their content, and holds the record against the rows.
    async fn judge(&self, door: &Door) -> Result<(), String> {
        let hosts = self.layout.hosts();
        until("agreement of all nodes", || {
            agree(&self.watch.last(), hosts.len())
        })
        .await
        .map_err(|late| format!("{late}: {}", self.positions()))?;
        let history = self.recorder.take();
        let summary = Summary::of(&history);
        *self.summary.lock().map_err(|error| error.to_string())? = Some(summary);
        let mut rows: Option<Vec<Entry>> = None;
        for host in &hosts {
            let verified = door.ask(host, Ask::verify(DATABASE)).await;
            let verified = verified.map_err(|refusal| format!("verify {host}: {refusal:?}"))?;
            if verified.json["result"]["intact"] != true {
                return Err(format!("{host} is not intact: {}", verified.json));
            }
            let ask = Ask::query(DATABASE, ALL).bookmark("first-unconstrained");
            let answer = door.ask(host, ask).await;
            let answer = answer.map_err(|refusal| format!("rows of {host}: {refusal:?}"))?;
            let own = answer.rows()?;
            match &rows {
                Some(rows) if *rows != own => {
                    return Err(format!("{host} has other rows than {}", hosts[0]));
                }
                Some(_) => {}
                None => rows = Some(own),
            }
        }
        sound(&history, &rows.unwrap_or_default())
    }

    fn positions(&self) -> String {
        let last = self.watch.last();
        let each = last.iter().map(|(host, status)| {
            let databases = status.databases.iter();
            let positions = databases.map(|d| format!("{} {:?}", d.position, d.damaged));
            let positions = positions.collect::<Vec<_>>().join(", ");
            format!("{host} leads {}: {positions}", status.leading)
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

/// An error if the record contradicts what is there in the end.
fn sound(history: &History, rows: &[Entry]) -> Result<(), String> {
    let told = check(history, rows).into_iter().map(|one| one.to_string());
    let values = check_values(history, rows).into_iter();
    let violations: Vec<_> = told.chain(values.map(|one| one.to_string())).collect();
    if violations.is_empty() {
        return Ok(());
    }
    let shown = &violations[..violations.len().min(SHOWN_MAX)];
    Err(format!(
        "{} violations, such as:\n{}",
        violations.len(),
        shown.join("\n")
    ))
}

async fn until(what: &str, done: impl Fn() -> bool) -> Result<(), String> {
    let late = Instant::now() + PROGRESS_MAX;
    while !done() {
        if Instant::now() > late {
            return Err(format!("no {what} within {PROGRESS_MAX:?}"));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn write(mut worker: Worker) {
    while !worker.stopped() {
        worker.write(None).await;
        worker.rest().await;
    }
}

/// A session: reads and writes, each with the newest bookmark before it.
async fn converse(mut worker: Worker) {
    let mut newest: Option<Bookmark> = None;
    while !worker.stopped() {
        let start = newest.map_or("first-unconstrained".to_owned(), |newest| {
            newest.to_string()
        });
        let reached = if worker.random.u32(..4) == 0 {
            worker.write(Some(&start)).await
        } else {
            let asked = newest.map_or(Asked::Anything, |newest| Asked::From(newest.claimed()));
            worker.read(Some(&start), asked, true).await
        };
        newest = reached.or(newest);
        worker.rest().await;
    }
}

/// A reader outside sessions: takes what there is, or asks for everything.
async fn read(mut worker: Worker) {
    while !worker.stopped() {
        let (start, asked) = match worker.random.u32(..4) {
            0 => (Some("first-unconstrained"), Asked::Anything),
            1 => (Some("first-primary"), Asked::Everything),
            2 => (Some("linearizable"), Asked::Everything),
            _ => (None, Asked::Acknowledged),
        };
        worker.read(start, asked, false).await;
        worker.rest().await;
    }
}
