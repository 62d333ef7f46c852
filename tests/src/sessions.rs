//! Sessions of clients without a library: raw HTTP, over the REST API or a Worker's binding, by the rules that
//! Cloudflare's own client has.
//!
//! - Each request carries the session's token: at first a constraint, then the greatest bookmark of the
//!   answers so far. It goes to a node picked anew.
//! - Several requests of a session are under way at once, so that answers come out of order.
//! - What fails is not tried again: a write may stay in doubt.
//!
//! *Careless* clients do the same without a token. What a session is promised they are not, so the same judge has
//! to find fault with them: else nothing was to be seen at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::api::Api;
use crate::history::{History, Recorder, Summary, Violation, broken_guarantees};
use crate::lagging::Lagging;
use crate::seed::Seed;
use crate::wait;
use crate::workload::{DATABASE, Table, agreed_rows, assert_sound};

mod door;
mod lane;
mod token;

use door::Door;
use lane::Lane;
use token::Token;

/// Requests of one session that are under way at once.
const LANES: u32 = 2;
/// Careless clients have numbers from here.
const CARELESS_FROM: u32 = 1000;

/// Sessions at work. Dropping it ends them.
#[derive(Debug)]
pub struct Sessions {
    recorder: Arc<Recorder>,
    stop: Arc<AtomicBool>,
    lanes: JoinSet<()>,
}

/// What a sound run was like.
#[derive(Debug)]
pub struct Findings {
    /// Counts of all that was done.
    pub summary: Summary,
    /// How often those who carried no token did not get what a session is promised.
    pub careless: BTreeMap<&'static str, usize>,
}

impl Sessions {
    /// Makes the table and sets so many sessions to work for each of: the REST API, the binding, both in turn;
    /// and a careless client for each.
    pub async fn start(cluster: &Lagging, seed: Seed, each: u32, rest: Duration) -> Self {
        let api = cluster.primary.api();
        api.create(DATABASE).await;
        api.query(DATABASE, &Table::of(0).create).ok().await;

        let recorder = Arc::new(Recorder::default());
        let stop = Arc::new(AtomicBool::new(false));
        let nodes: Arc<[Api]> = cluster.nodes().map(|node| node.api()).collect();
        let doors: [&'static [Door]; 3] = [
            &[Door::Rest],
            &[Door::Binding],
            &[Door::Rest, Door::Binding],
        ];
        let mut lanes = JoinSet::new();
        let sessions = (0..each * 3).map(|number| (number, Token::new(number % 2 == 0)));
        let careless = (0..3).map(|number| (CARELESS_FROM + number, Token::careless()));
        for (number, token) in sessions.chain(careless) {
            let token = Arc::new(token);
            for lane in 0..LANES {
                let lane = number * LANES + lane;
                let lane = Lane {
                    session: number,
                    number: lane,
                    doors: doors[number as usize % doors.len()],
                    token: Arc::clone(&token),
                    nodes: Arc::clone(&nodes),
                    recorder: Arc::clone(&recorder),
                    stop: Arc::clone(&stop),
                    rest,
                    random: seed.stream(1 + u64::from(lane)),
                };
                lanes.spawn(lane.run());
            }
        }
        Self {
            recorder,
            stop,
            lanes,
        }
    }

    /// Waits until `more` reads are answered. Panics if a client has ended meanwhile.
    pub async fn reads(&mut self, more: usize) {
        let Self {
            recorder, lanes, ..
        } = self;
        let goal = recorder.answered() + more;
        wait::soon("reads are answered", async || {
            if let Some(ended) = lanes.try_join_next() {
                panic!("a client ended early: {ended:?}");
            }
            (recorder.answered() >= goal).then_some(())
        })
        .await;
    }

    /// Stops the clients, waits until all nodes agree and have verified their content, and panics if a
    /// promise was broken.
    pub async fn judged(mut self, cluster: &Lagging) -> Findings {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.lanes.join_next().await {
            ended.expect("a client only takes notes");
        }
        let mut history = self.recorder.take();
        let summary = Summary::of(&history);
        eprintln!("{summary}");
        cluster.verified().await;
        let nodes: Vec<_> = cluster.nodes().collect();
        let rows = agreed_rows(&nodes, 0).await;

        let careless = split_careless(&mut history);
        let mut counts = BTreeMap::new();
        for violation in broken_guarantees(&careless, &rows) {
            if let Violation::Session { guarantee, .. } = violation {
                *counts.entry(guarantee.name()).or_default() += 1;
            }
        }
        eprintln!("what clients without a token did not get: {counts:?}");
        assert_sound(&history, &rows);
        Findings {
            summary,
            careless: counts,
        }
    }
}

/// Takes the sessions of careless clients for none; returns what they would have been.
fn split_careless(history: &mut History) -> History {
    let careless = |session: Option<u32>| session.is_some_and(|number| number >= CARELESS_FROM);
    let mut theirs = History::default();
    for write in &mut history.writes {
        if careless(write.session) {
            theirs.writes.push(write.clone());
            write.session = None;
        }
    }
    for read in &mut history.reads {
        if careless(read.session) {
            theirs.reads.push(read.clone());
            read.session = None;
        }
    }
    theirs
}
