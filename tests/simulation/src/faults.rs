//! What happens to the cluster: faults drawn from the seed, one after another and several at a time.
//!
//! At most one fault touches the network at a time, since two on one link would undo each other; crashes, slow disks
//! and wrong clocks go on beside it. As many voters are down at a time as a cell survives, but for power failures,
//! which take all nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemark_protocol::node::Role;
use turmoil::Sim;

use crate::layout::Tuning;
use crate::node::Site;
use crate::world::baton::Stage;

/// Time between two faults.
const PAUSE_MS: std::ops::Range<u64> = 300..5_000;
/// How long one lasts.
const LASTS_MS: std::ops::Range<u64> = 200..8_000;
/// A way that has become long.
const LONG_WAY: Duration = Duration::from_millis(700);
/// A disk that has become slow.
const SLOW_FLUSH: Duration = Duration::from_millis(400);
/// How far a clock is wrong, in milliseconds.
const SKEW_MAX_MS: i64 = 3_600_000;

/// Kinds of faults, as they are counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Kind {
    Crash,
    PowerFailure,
    Cut,
    CutOneWay,
    Isolation,
    Hold,
    Glitch,
    LongWay,
    SlowDisk,
    ClockJump,
}

/// Every kind, as often as it is to come.
const KINDS: &[Kind] = &[
    Kind::Crash,
    Kind::Crash,
    Kind::Crash,
    Kind::PowerFailure,
    Kind::Cut,
    Kind::CutOneWay,
    Kind::CutOneWay,
    Kind::Isolation,
    Kind::Isolation,
    Kind::Hold,
    Kind::Hold,
    Kind::Glitch,
    Kind::Glitch,
    Kind::LongWay,
    Kind::SlowDisk,
    Kind::ClockJump,
];

/// How a fault is undone.
#[derive(Debug)]
enum Undo {
    Start(usize),
    Repair(Vec<(usize, usize)>),
    RepairOneWay(usize, usize),
    Release(Vec<(usize, usize)>),
    Shorten(usize, usize),
    SpeedUp(usize),
}

/// The faults of a run.
pub(crate) struct Faults {
    sites: Vec<Arc<Site>>,
    tuning: Tuning,
    stage: Arc<Stage>,
    random: fastrand::Rng,
    next_ms: u64,
    active: Vec<(u64, Undo)>,
    counts: BTreeMap<Kind, u64>,
}

impl Faults {
    pub(crate) fn new(
        sites: Vec<Arc<Site>>,
        tuning: Tuning,
        stage: Arc<Stage>,
        random: fastrand::Rng,
    ) -> Self {
        Self {
            sites,
            tuning,
            stage,
            random,
            next_ms: 0,
            active: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// How often each kind happened.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let named = self.counts.iter();
        named
            .map(|(kind, count)| (format!("{kind:?}"), *count))
            .collect()
    }

    /// Sets the lengths of all ways.
    pub(crate) fn lay_ways(&self, sim: &Sim<'_>) {
        for a in 0..self.sites.len() {
            for b in a + 1..self.sites.len() {
                self.lay_way(sim, a, b);
            }
        }
    }

    fn lay_way(&self, sim: &Sim<'_>, a: usize, b: usize) {
        let is_near = |at: usize| self.sites[at].role == Role::Primary;
        let longest = if is_near(a) && is_near(b) {
            self.tuning.near_max
        } else {
            self.tuning.far
        };
        sim.set_link_max_message_latency(self.name(a), self.name(b), longest);
    }

    /// It is `now_ms`: undoes what is over, and does what comes next.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        let (over, active) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|(until, _)| *until <= now_ms);
        self.active = active;
        for (_, undo) in over {
            self.undo(sim, &undo);
        }
        if now_ms >= self.next_ms {
            self.next_ms = now_ms + self.random.u64(PAUSE_MS);
            self.strike(sim, now_ms);
        }
    }

    /// Undoes everything.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, undo) in std::mem::take(&mut self.active) {
            self.undo(sim, &undo);
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        let kind = KINDS[self.random.usize(..KINDS.len())];
        let until = now_ms + self.random.u64(LASTS_MS);
        let at = self.victim();
        let is_network = matches!(
            kind,
            Kind::Cut
                | Kind::CutOneWay
                | Kind::Isolation
                | Kind::Hold
                | Kind::Glitch
                | Kind::LongWay
        );
        if is_network && (self.touches_network() || self.sites.len() < 2) {
            return;
        }
        let mut to = self.random.usize(..self.sites.len().max(2) - 1);
        to += usize::from(to >= at);
        match kind {
            Kind::Crash => {
                if !self.may_crash(at) {
                    return;
                }
                self.note(&format!("crash {}", self.name(at)));
                self.crash(sim, at);
                self.active.push((until, Undo::Start(at)));
            }
            Kind::PowerFailure => {
                self.note("the power fails");
                for at in 0..self.sites.len() {
                    if !self.is_down(at) {
                        self.crash(sim, at);
                        let until = now_ms + self.random.u64(LASTS_MS);
                        self.active.push((until, Undo::Start(at)));
                    }
                }
            }
            Kind::Cut | Kind::Glitch => {
                self.note(&format!("{kind:?} {} and {}", self.name(at), self.name(to)));
                sim.partition(self.name(at), self.name(to));
                let until = if kind == Kind::Glitch {
                    now_ms + 100
                } else {
                    until
                };
                self.active.push((until, Undo::Repair(vec![(at, to)])));
            }
            Kind::CutOneWay => {
                self.note(&format!("cut {} to {}", self.name(at), self.name(to)));
                sim.partition_oneway(self.name(at), self.name(to));
                self.active.push((until, Undo::RepairOneWay(at, to)));
            }
            Kind::Isolation => {
                self.note(&format!("isolate {}", self.name(at)));
                let ways = self.ways_of(at);
                for (a, b) in &ways {
                    sim.partition(self.name(*a), self.name(*b));
                }
                self.active.push((until, Undo::Repair(ways)));
            }
            Kind::Hold => {
                self.note(&format!("hold {}", self.name(at)));
                let ways = self.ways_of(at);
                for (a, b) in &ways {
                    sim.hold(self.name(*a), self.name(*b));
                }
                self.active.push((until, Undo::Release(ways)));
            }
            Kind::LongWay => {
                self.note(&format!("long way {} to {}", self.name(at), self.name(to)));
                sim.set_link_max_message_latency(self.name(at), self.name(to), LONG_WAY);
                self.active.push((until, Undo::Shorten(at, to)));
            }
            Kind::SlowDisk => {
                self.note(&format!("slow disk {}", self.name(at)));
                self.sites[at].speed.set_flush_max(SLOW_FLUSH);
                self.active.push((until, Undo::SpeedUp(at)));
            }
            Kind::ClockJump => {
                let ahead = self.random.i64(-SKEW_MAX_MS..=SKEW_MAX_MS);
                self.note(&format!("clock of {}: {ahead} ms", self.name(at)));
                self.sites[at].ahead_ms.store(ahead, Ordering::Relaxed);
            }
        }
        *self.counts.entry(kind).or_default() += 1;
    }

    /// The leader, or anybody.
    fn victim(&mut self) -> usize {
        let leader = self.sites[0].watch.leader();
        let leader = leader.and_then(|name| self.sites.iter().position(|site| site.name == name));
        match leader {
            Some(leader) if self.random.bool() => leader,
            _ => self.random.usize(..self.sites.len()),
        }
    }

    fn undo(&self, sim: &mut Sim<'_>, undo: &Undo) {
        match undo {
            Undo::Start(at) => {
                self.note(&format!("start {}", self.name(*at)));
                sim.bounce(self.name(*at));
            }
            Undo::Repair(ways) => {
                self.note("repair");
                for (a, b) in ways {
                    sim.repair(self.name(*a), self.name(*b));
                }
            }
            Undo::RepairOneWay(from, to) => {
                self.note("repair");
                sim.repair_oneway(self.name(*from), self.name(*to));
            }
            Undo::Release(ways) => {
                self.note("release");
                for (a, b) in ways {
                    sim.release(self.name(*a), self.name(*b));
                }
            }
            Undo::Shorten(a, b) => {
                self.note("short way");
                self.lay_way(sim, *a, *b);
            }
            Undo::SpeedUp(at) => {
                self.note("quick disk");
                self.sites[*at].speed.set_flush_max(self.tuning.flush_max);
            }
        }
    }

    /// As when the machine loses its power: what the process does while it is taken down is not on the disk.
    fn crash(&self, sim: &mut Sim<'_>, at: usize) {
        let site = &self.sites[at];
        let mut folders = site
            .folders
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        folders.crash().expect("a folder that can be copied");
        sim.crash(self.name(at));
        self.stage.settle();
        folders
            .forget_former()
            .expect("a folder that can be removed");
        site.watch.crashed(&site.name);
    }

    fn may_crash(&self, at: usize) -> bool {
        let is_voter = |at: usize| self.sites[at].role == Role::Primary;
        let down = (0..self.sites.len()).filter(|at| is_voter(*at) && self.is_down(*at));
        // One that is alone may be down, too.
        let survivable = self.sites[at].layout.minority().max(1);
        !self.is_down(at) && (!is_voter(at) || down.count() < survivable)
    }

    fn is_down(&self, at: usize) -> bool {
        let mut undos = self.active.iter();
        undos.any(|(_, undo)| matches!(undo, Undo::Start(down) if *down == at))
    }

    fn touches_network(&self) -> bool {
        let mut undos = self.active.iter();
        undos.any(|(_, undo)| !matches!(undo, Undo::Start(_) | Undo::SpeedUp(_)))
    }

    fn ways_of(&self, at: usize) -> Vec<(usize, usize)> {
        let others = (0..self.sites.len()).filter(|other| *other != at);
        others.map(|other| (at, other)).collect()
    }

    fn name(&self, at: usize) -> &str {
        &self.sites[at].name
    }

    fn note(&self, what: &str) {
        self.sites[0].watch.note(what);
    }
}
