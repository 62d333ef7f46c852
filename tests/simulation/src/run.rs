//! One run: a cluster of a seed, from its first start to the verdict.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemark_checker::Recorder;
use tidemark_protocol::node::Role;
use tidemark_protocol::{Incarnation, NodeId, Region};
use turmoil::{Builder, Sim};

use crate::clients::{Phase, Table};
use crate::faults::Faults;
use crate::layout::{Layout, Tuning};
use crate::node::Site;
use crate::watch::Watch;
use crate::world::baton::Stage;
use crate::world::disk::{Folders, Speed};
use crate::world::handles::Time;

/// Time between two looks at the network: what is shorter than this happens at once.
const TICK: Duration = Duration::from_millis(5);
/// Time under faults.
const WORK_MS: std::ops::Range<u64> = 60_000..180_000;
/// Time for everything else, at most.
const REST_MAX: Duration = Duration::from_secs(600);
/// Segments on their way per connection.
const SEGMENTS_MAX: usize = 4096;
/// Host of all clients.
const CLIENTS: &str = "clients";
/// Regions of replicas.
const REGIONS: [&str; 3] = ["WEUR", "APAC", "OC"];

/// What is decided besides the seed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Points of the product that break it on purpose.
    pub broken: Vec<String>,
    /// Time under faults. `None`: of the seed.
    pub work: Option<Duration>,
}

/// What became of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// How long it took, by the clock of the simulation.
    pub simulated_ms: u64,
    /// Voters and replicas.
    pub nodes: [u64; 2],
    /// How often each kind of fault happened.
    pub faults: BTreeMap<String, u64>,
    /// Terms that had a leader.
    pub terms: usize,
    /// What clients did.
    pub clients: String,
    /// Hash of all that was seen: the same for every run of the seed.
    pub trace: u64,
    /// The first thing that was wrong.
    pub violation: Option<String>,
}

/// What panicked first, whoever that was.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
static HOOK: OnceLock<()> = OnceLock::new();

/// Runs the cluster of `seed`. Once in a process: whatever a process counts, such as the seeds of hash maps, goes on.
pub fn run(seed: u64, options: &Options) -> Outcome {
    watch_panics();
    for point in &options.broken {
        let set = fail::cfg(point, "return");
        set.unwrap_or_else(|error| panic!("{point}: {error}"));
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let layout = Layout::drawn(&mut random);
    let tuning = Tuning::drawn(&mut random);
    let drawn = Duration::from_millis(random.u64(WORK_MS));
    let work = options.work.unwrap_or(drawn);
    let root = root();
    let time = Arc::new(Time::default());
    let watch = Arc::new(Watch::new(Arc::clone(&time)));
    watch.note(&format!("{layout:?} {tuning:?}"));
    let stage = Arc::new(Stage::default());
    let sites = sites(
        layout,
        tuning,
        root.path(),
        &mut random,
        &stage,
        &time,
        &watch,
    );

    let mut sim = Builder::new()
        .rng_seed(random.u64(..))
        .tick_duration(TICK)
        .simulation_duration(work + REST_MAX)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(tuning.near_max)
        .tcp_capacity(SEGMENTS_MAX)
        .enable_random_order()
        .build();
    for site in &sites {
        let site = Arc::clone(site);
        sim.host(site.name.clone(), move || {
            let site = Arc::clone(&site);
            async move {
                let ended = Arc::clone(&site).live().await;
                let how =
                    ended.map_or_else(|error| format!("{error:#}"), |()| "it stopped".to_owned());
                site.watch
                    .violate(&format!("{} cannot go on: {how}", site.name));
                Ok(())
            }
        });
    }
    let table = Arc::new(Table {
        layout,
        rest: tuning.rest,
        seed,
        watch: Arc::clone(&watch),
        phase: AtomicU8::new(Phase::Beginning as u8),
        recorder: Recorder::default(),
        stop: AtomicBool::new(false),
        summary: Mutex::default(),
    });
    sim.client(CLIENTS, {
        let table = Arc::clone(&table);
        async move {
            table.run().await;
            Ok(())
        }
    });
    let faults = Faults::new(sites, tuning, Arc::clone(&stage), random.fork());
    let mut runner = Runner {
        sim,
        faults,
        table: Arc::clone(&table),
        watch: Arc::clone(&watch),
        time,
        work_until: None,
    };
    runner.faults.lay_ways(&runner.sim);
    runner.drive(work);
    let Runner { sim, faults, .. } = runner;
    let simulated_ms = millis(sim.elapsed());
    let summary = table.summary.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = Outcome {
        seed,
        simulated_ms,
        nodes: [layout.voters, layout.replicas],
        faults: faults.counts(),
        terms: watch.terms(),
        clients: summary
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        trace: watch.trace(),
        violation: watch.violation(),
    };
    drop(summary);
    // The process is about to end: nobody takes the nodes down.
    std::mem::forget(sim);
    outcome
}

struct Runner<'a> {
    sim: Sim<'a>,
    faults: Faults,
    table: Arc<Table>,
    watch: Arc<Watch>,
    time: Arc<Time>,
    /// When the faults end, once clients work.
    work_until: Option<u64>,
}

impl Runner<'_> {
    fn drive(&mut self, work: Duration) {
        loop {
            let now_ms = millis(self.sim.elapsed());
            self.time.set_ms(now_ms);
            match self.table.phase() {
                Phase::Beginning | Phase::Healed => {}
                Phase::Working => {
                    let until = *self.work_until.get_or_insert(now_ms + millis(work));
                    if now_ms < until {
                        self.faults.step(&mut self.sim, now_ms);
                    } else {
                        self.faults.heal(&mut self.sim);
                        self.table.enter(Phase::Healed);
                    }
                }
                Phase::Done => return,
            }
            if let Err(error) = self.sim.step() {
                self.watch
                    .violate(&format!("the simulation ended: {error}"));
            }
            if let Some(panic) = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.watch.violate(&panic);
            }
            if self.watch.violation().is_some() {
                return;
            }
        }
    }
}

fn sites(
    layout: Layout,
    tuning: Tuning,
    root: &Path,
    random: &mut fastrand::Rng,
    stage: &Arc<Stage>,
    time: &Arc<Time>,
    watch: &Arc<Watch>,
) -> Vec<Arc<Site>> {
    let voters = layout
        .voters()
        .map(|(node, name)| (Role::Primary, node, name, "ENAM"));
    let replicas = layout.replicas().zip(REGIONS);
    let replicas = replicas.map(|((node, name), region)| (Role::Replica, node, name, region));
    let all: Vec<(Role, NodeId, String, &str)> = voters.chain(replicas).collect();
    let site = |(role, node, name, region): (Role, NodeId, String, &str)| {
        let region: Region = region.parse().expect("a region");
        let speed = Arc::new(Speed::default());
        speed.set_flush_max(tuning.flush_max);
        Arc::new(Site {
            role,
            node,
            folders: Mutex::new(Folders::new(root.join(&name))),
            name,
            region,
            incarnation: Incarnation(random.u128(..)),
            speed,
            ahead_ms: Arc::new(AtomicI64::new(0)),
            pause_max: tuning.pause_max,
            random: Mutex::new(random.fork()),
            layout,
            tuning,
            stage: Arc::clone(stage),
            time: Arc::clone(time),
            watch: Arc::clone(watch),
        })
    };
    all.into_iter().map(site).collect()
}

/// A folder for all disks, in memory if there is a file system there.
fn root() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let prefix = format!("tidemark-sim-{}-", std::process::id());
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(&prefix);
    let made = if memory.is_dir() {
        builder.tempdir_in(memory)
    } else {
        builder.tempdir()
    };
    made.expect("a temporary folder")
}

/// A panic is a violation, wherever it happens and whoever catches it.
fn watch_panics() {
    HOOK.get_or_init(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let mut first = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| panic.to_string());
            drop(first);
            former(panic);
        }));
    });
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("not for ever")
}
