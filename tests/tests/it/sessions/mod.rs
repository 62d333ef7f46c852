//! The four guarantees of a session, over the REST API and over a Worker's binding, at three replicas that lag.
//!
//! What is at stake is what a bookmark is for: whoever holds one never reads below it, whatever the way between
//! the replica asked and the primary does meanwhile.

use std::time::Duration;

use tidemark_deploy::{Direction, Link};
use tidemark_tests::{Lagging, Meddled, Meddler, Seed, Sessions, wait};

use crate::PROGRAM;
use crate::faults::rounds;

/// Sessions for each of the REST API, the binding, and both in turn.
const EACH: u32 = 4;
/// What each of a session's clients rests between two requests, on average.
const REST: Duration = Duration::from_millis(20);
/// Reads that are answered while a trouble lasts, and after it.
const READS: std::ops::Range<usize> = 50..200;
/// One-way delays.
const DELAYS_MS: std::ops::Range<u64> = 20..120;
/// Most jitter.
const JITTER_MAX_MS: u64 = 100;
/// Chance of a message to be meddled with.
const MEDDLING: f64 = 0.25;
/// Messages that are, each time, at least.
const MEDDLED_MIN: u64 = 10;
/// What must have been seen of each thing without which nothing was tested.
const SEEN_MIN: usize = 10;

/// What happens to one replica's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    /// It is longer or shorter, and less steady, from now on.
    Change,
    /// Nothing flows for a while, in either direction or in one.
    Pause,
    /// Every connection breaks.
    Sever,
    /// Connections are held; when the replica has made new ones, what was held arrives.
    Overtake,
    /// Messages of the stream come twice, late once more, or in another order.
    Meddle,
}

const TROUBLES: [Trouble; 5] = [
    Trouble::Change,
    Trouble::Pause,
    Trouble::Sever,
    Trouble::Overtake,
    Trouble::Meddle,
];

impl Trouble {
    async fn strike(self, cluster: &Lagging, at: usize, random: &mut fastrand::Rng) {
        let way = &cluster.ways[at];
        match self {
            Self::Change => way.relay.set_link(some_link(random)),
            Self::Pause => match random.choice([Direction::ToTarget, Direction::FromTarget]) {
                Some(direction) if random.bool() => way.relay.cut(direction),
                _ => way.relay.cut_both(),
            },
            Self::Sever => way.meddler.sever(),
            Self::Overtake => {
                let before = way.meddler.streams();
                way.meddler.hold();
                wait::soon("the replica connects anew", async || {
                    (way.meddler.streams() > before).then_some(())
                })
                .await;
            }
            Self::Meddle => {
                let before = meddled(&way.meddler);
                way.meddler.meddle(MEDDLING);
                wait::soon("messages are meddled with", async || {
                    (meddled(&way.meddler) >= before + MEDDLED_MIN).then_some(())
                })
                .await;
            }
        }
    }

    fn undo(self, cluster: &Lagging, at: usize) {
        let way = &cluster.ways[at];
        match self {
            Self::Change | Self::Sever => {}
            Self::Pause => way.relay.heal_both(),
            Self::Overtake => way.meddler.release(),
            Self::Meddle => way.meddler.meddle(0.0),
        }
    }
}

fn some_link(random: &mut fastrand::Rng) -> Link {
    Link {
        delay: Duration::from_millis(random.u64(DELAYS_MS)),
        jitter: Duration::from_millis(random.u64(..=JITTER_MAX_MS)),
        ..Link::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_at_lagging_replicas_keep_their_guarantees_and_others_go_back() {
    let seed = Seed::of("sessions_at_lagging_replicas_keep_their_guarantees_and_others_go_back");
    let mut random = seed.stream(0);
    let mut cluster = Lagging::start(PROGRAM, random.u64(..)).await;
    for way in &cluster.ways {
        way.relay.set_link(some_link(&mut random));
    }
    let mut sessions = Sessions::start(&cluster, seed, EACH, REST).await;
    // Each kind in turn, on any replica, and never the same order.
    let mut troubles = Vec::new();
    for round in 0..rounds(10) {
        if troubles.is_empty() {
            troubles = TROUBLES.to_vec();
            random.shuffle(&mut troubles);
        }
        let trouble = troubles.pop().expect("it was filled");
        let at = random.usize(..cluster.ways.len());
        eprintln!(
            "round {round}: {trouble:?} at {}",
            cluster.replicas[at].name()
        );
        trouble.strike(&cluster, at, &mut random).await;
        sessions.reads(random.usize(READS)).await;
        trouble.undo(&cluster, at);
        sessions.reads(random.usize(READS)).await;
    }
    let findings = sessions.judged(&cluster).await;

    // The same run without tokens.
    assert!(
        findings.summary.stale_reads() >= SEEN_MIN,
        "{}",
        findings.summary
    );
    for guarantee in ["read your writes", "monotonic reads"] {
        let broken = findings.careless.get(guarantee).copied().unwrap_or(0);
        assert!(broken >= SEEN_MIN, "{guarantee}: {broken}");
    }
    // What the sessions cost.
    let (mut held_up, mut noticed) = (0, 0);
    for replica in &cluster.replicas {
        let metrics = replica.api().get("/metrics").await.expect("metrics").text;
        let waited = sum(&metrics, "tidemark_replica_waits_total", "met");
        let forwarded = sum(&metrics, "tidemark_replica_forwards_total", "behind");
        eprintln!(
            "{}: {waited} reads waited until they could be answered, {forwarded} were forwarded because they could not",
            replica.name()
        );
        held_up += waited + forwarded;
        noticed += sum(&metrics, "tidemark_replica_resyncs_total", "base");
        noticed += sum(&metrics, "tidemark_replica_disconnects_total", "protocol");
    }
    assert!(held_up >= SEEN_MIN, "{held_up}");
    eprintln!("streams that did not fit were noticed {noticed} times");
    let meddled: u64 = cluster.ways.iter().map(|way| meddled(&way.meddler)).sum();
    assert!(noticed > 0 || meddled == 0, "{meddled} messages");
    for (way, replica) in cluster.ways.iter().zip(&cluster.replicas) {
        let (streams, meddled) = (way.meddler.streams(), way.meddler.meddled());
        eprintln!("{}: {streams} streams, {meddled:?}", replica.name());
    }
    cluster.stop().await;
}

fn meddled(meddler: &Meddler) -> u64 {
    let Meddled {
        swapped,
        doubled,
        replayed,
    } = meddler.meddled();
    swapped + doubled + replayed
}

/// The sum of a counter's lines with this label.
fn sum(metrics: &str, name: &str, label: &str) -> usize {
    let label = format!("\"{label}\"");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(&label));
    let value = |line: &str| line.rsplit(' ').next()?.parse::<usize>().ok();
    lines.filter_map(value).sum()
}
