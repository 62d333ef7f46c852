//! Clients at work on a cell, and the record of what they were told.
//!
//! - *Writers* insert values, half of them through all nodes as an application would, half at one node
//!   picked anew for each try. A write in doubt is tried again under its id, or given up and stays in doubt.
//! - *Sessions* write and read at nodes picked anew, each request with the newest bookmark before it.
//! - *Readers* belong to no session: half take whatever a node has, half ask for everything.
//!
//! They go on through whatever happens to the cluster and only take notes. An answer that no fault explains
//! (a statement refused, a bookmark of a lost history) ends its client with a panic, which [`Workload`] passes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemark_client::Client;
use tidemark_protocol::Bookmark;
use tokio::task::JoinSet;

use crate::cell::Cell;
use crate::history::{
    Check, Contradiction, Entry, History, Recorder, Summary, check, check_values,
};
use crate::node::Node;
use crate::seed::Seed;
use crate::wait;

mod reader;
mod session;
mod table;
mod worker;
mod writer;

pub(crate) use table::Table;
use worker::Worker;

/// The database of a history.
pub(crate) const DATABASE: &str = "history";
/// Most violations that are shown.
const SHOWN_MAX: usize = 20;
/// How long a request at one node may take, the client's own retries included.
const ONE_NODE_DEADLINE: Duration = Duration::from_secs(3);
/// The first client's stream of choices; smaller numbers are the test's.
const STREAMS_FROM: u64 = 1000;
/// More than there are clients.
const STREAMS_PER_EPOCH: u64 = 10_000;

/// How many clients, and how fast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Writers.
    pub writers: u32,
    /// Sessions.
    pub sessions: u32,
    /// Readers outside sessions.
    pub readers: u32,
    /// What each rests between two requests, on average.
    pub rest: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            writers: 64,
            sessions: 8,
            readers: 4,
            rest: Duration::from_millis(50),
        }
    }
}

/// One history of several that the same clients write, each in a table of its own, so that what was judged can be
/// forgotten.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Epoch {
    /// From 0.
    pub number: u32,
    /// By the clients' numbers, what each brings along from the epoch before. Whoever is missing begins anew.
    pub carried: Vec<Carried>,
}

/// What a client brings along.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Values that it has tried to write. None of them is written again.
    pub written: u64,
    /// How far its session has come.
    pub newest: Option<Bookmark>,
}

/// Clients at work. Dropping it ends them.
#[derive(Debug)]
pub struct Workload {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<(u32, Carried)>,
    epoch: u32,
}

impl Workload {
    /// Makes the table and sets the clients to work. Half the writers, the sessions and the readers speak to
    /// one node at a time and hear of every fault.
    pub async fn start(cell: &Cell, seed: Seed, load: Load) -> Self {
        let leader = cell.leader().await;
        let api = cell.voters[leader].api();
        api.create(DATABASE).await;
        api.query(DATABASE, &Table::of(0).create).ok().await;
        Self::of_epoch(cell, seed, load, &Epoch::default())
    }

    /// The same on the table of an epoch, which is on all nodes already, by clients that go on from where they were.
    pub fn of_epoch(cell: &Cell, seed: Seed, load: Load, epoch: &Epoch) -> Self {
        let alone = cell.nodes().map(one_node).collect();
        Self::with_clients(cell, seed, load, epoch, &alone)
    }

    /// The same with clients as applications have them: each has all nodes to choose from, and the default
    /// deadline.
    pub async fn of_applications(cell: &Cell, seed: Seed, load: Load) -> Self {
        let all = (0..cell.nodes().count()).map(|first| cell.client(first));
        let leader = cell.leader().await;
        let api = cell.voters[leader].api();
        api.create(DATABASE).await;
        api.query(DATABASE, &Table::of(0).create).ok().await;
        Self::with_clients(cell, seed, load, &Epoch::default(), &all.collect())
    }

    fn with_clients(
        cell: &Cell,
        seed: Seed,
        load: Load,
        epoch: &Epoch,
        choice: &Arc<[Client]>,
    ) -> Self {
        let table = Arc::new(Table::of(epoch.number));
        let recorder = Arc::new(Recorder::default());
        let stop = Arc::new(AtomicBool::new(false));
        let Load {
            writers,
            sessions,
            readers,
            rest,
        } = load;
        let carried = |number: u32| epoch.carried.get(number as usize).copied();
        let worker = |number: u32, random: fastrand::Rng| Worker {
            number,
            table: Arc::clone(&table),
            carried: carried(number).unwrap_or_default(),
            random,
            choice: Arc::clone(choice),
            recorder: Arc::clone(&recorder),
            stop: Arc::clone(&stop),
            rest,
        };
        let mut clients = JoinSet::new();
        for number in 0..writers + sessions + readers {
            let stream = u64::from(number) + u64::from(epoch.number) * STREAMS_PER_EPOCH;
            let mut random = seed.stream(STREAMS_FROM + stream);
            let first = random.usize(..choice.len());
            let worker = worker(number, random);
            let even = number % 2 == 0;
            if number < writers {
                let own = even.then(|| cell.client(first));
                clients.spawn(async move { (number, writer::run(worker, own).await) });
            } else if number < writers + sessions {
                clients.spawn(async move { (number, session::run(worker).await) });
            } else {
                clients.spawn(async move { (number, reader::run(worker, even).await) });
            }
        }
        Self {
            recorder,
            stop,
            clients,
            epoch: epoch.number,
        }
    }

    /// Takes note of what the test does to the cluster, by the place of the leader if it hits that one.
    pub fn fault(&self, leader: Option<usize>) {
        self.recorder.fault(leader.map(Cell::voter_id));
    }

    /// Waits until `more` writes are acknowledged. Panics if a client has ended meanwhile.
    pub async fn progress(&mut self, more: usize, deadline: Duration) {
        let goal = self.recorder.acknowledged() + more;
        let what = format!("{more} writes are acknowledged");
        self.until(&what, deadline, |recorder| recorder.acknowledged() >= goal)
            .await;
    }

    /// Waits until `more` reads are answered. Panics if a client has ended meanwhile.
    pub async fn reads(&mut self, more: usize, deadline: Duration) {
        let goal = self.recorder.answered() + more;
        let what = format!("{more} reads are answered");
        self.until(&what, deadline, |recorder| recorder.answered() >= goal)
            .await;
    }

    async fn until(&mut self, what: &str, deadline: Duration, done: impl Fn(&Recorder) -> bool) {
        let Self {
            recorder, clients, ..
        } = self;
        wait::until(what, deadline, async || {
            if let Some(ended) = clients.try_join_next() {
                panic!("a client ended early: {ended:?}");
            }
            done(recorder).then_some(())
        })
        .await;
    }

    /// Lets every client finish what it is at; returns which checks find fault with what they were told, each
    /// once, and what cannot be by the values alone, if the rows of `node` are what is there in the end. For nodes
    /// that lie: a client that ends early for what it is told is no surprise.
    pub async fn findings(mut self, node: &Node) -> (Vec<Check>, Vec<Contradiction>) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            drop(ended);
        }
        let history = self.recorder.take();
        eprintln!("{}", Summary::of(&history));
        let rows = entries(node, self.epoch).await;
        let violations = check(&history, &rows);
        for violation in violations.iter().take(SHOWN_MAX) {
            eprintln!("{violation}");
        }
        let mut checks: Vec<_> = violations.iter().map(|one| one.check()).collect();
        checks.sort_unstable();
        checks.dedup();
        (checks, check_values(&history, &rows))
    }

    /// Writes acknowledged so far, and how long it has been going on.
    pub fn acknowledged(&self) -> (usize, Duration) {
        (self.recorder.acknowledged(), self.recorder.now())
    }

    /// Whether a client has ended, which none does unless it is told what no fault explains.
    pub fn lacks_clients(&mut self) -> bool {
        self.clients.try_join_next().is_some()
    }

    /// Lets every client finish what it is at; returns the record.
    pub async fn stop(self) -> History {
        self.end().await.0
    }

    /// The same, and the epoch in which they go on.
    pub async fn end(mut self) -> (History, Epoch) {
        self.stop.store(true, Ordering::Relaxed);
        let mut carried = Vec::new();
        while let Some(ended) = self.clients.join_next().await {
            carried.push(ended.expect("a client only takes notes"));
        }
        carried.sort_unstable_by_key(|(number, _)| *number);
        let next = Epoch {
            number: self.epoch + 1,
            carried: carried.into_iter().map(|(_, carried)| carried).collect(),
        };
        (self.recorder.take(), next)
    }

    /// Stops the clients, waits until all nodes agree and have verified their content, and panics if the
    /// record contradicts it.
    pub async fn judged(self, cell: &Cell, deadline: Duration) -> Summary {
        let epoch = self.epoch;
        let history = self.stop().await;
        let summary = Summary::of(&history);
        eprintln!("{summary}");
        cell.verified(deadline).await;
        let nodes: Vec<_> = cell.nodes().collect();
        let rows = agreed_rows(&nodes, epoch).await;
        assert_sound(&history, &rows);
        summary
    }
}

/// The rows of an epoch, which must be the same on all nodes.
pub(crate) async fn agreed_rows(nodes: &[&Node], epoch: u32) -> Vec<Entry> {
    let rows = entries(nodes[0], epoch).await;
    for node in &nodes[1..] {
        assert_eq!(entries(node, epoch).await, rows, "rows on {}", node.name());
    }
    rows
}

/// Panics if the record contradicts what is there in the end.
pub(crate) fn assert_sound(history: &History, rows: &[Entry]) {
    let told = check(history, rows).into_iter().map(|one| one.to_string());
    let values = check_values(history, rows).into_iter();
    let violations: Vec<_> = told.chain(values.map(|one| one.to_string())).collect();
    let shown = &violations[..violations.len().min(SHOWN_MAX)];
    assert!(
        violations.is_empty(),
        "{} violations, such as:\n{}",
        violations.len(),
        shown.join("\n")
    );
}

/// The rows of an epoch on this node.
async fn entries(node: &Node, epoch: u32) -> Vec<Entry> {
    let query = node.api().query(DATABASE, &Table::of(epoch).all);
    let reply = query.bookmark("first-unconstrained").ok().await;
    let entry = |row: &serde_json::Value| Entry {
        place: row["place"].as_u64().expect("a place"),
        value: row["value"].as_u64().expect("a value"),
    };
    reply.rows().iter().map(entry).collect()
}

/// The Rust client, speaking to `node` alone.
fn one_node(node: &Node) -> Client {
    Client::builder(node.url())
        .deadline(ONE_NODE_DEADLINE)
        .build()
        .expect("a client of a loopback URL")
}
