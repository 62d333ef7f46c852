//! Faults of every kind, at random, on as many voters at a time as a cell survives, and on all at once.

use tidemark_tests::{Cell, Layout};

use super::{PATIENCE, PROGRESS, at_work, rounds};

/// What is done to a voter, and undone later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    /// kill -9.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// It hears nobody, and nobody hears it.
    Isolate,
    /// It hears nobody.
    Deafen,
    /// Nobody hears it.
    Mute,
}

const BLOWS: [Blow; 5] = [
    Blow::Kill,
    Blow::Freeze,
    Blow::Isolate,
    Blow::Deafen,
    Blow::Mute,
];
/// Once in so many rounds the power fails: all nodes at once.
const POWER_FAILS: usize = 8;

impl Blow {
    fn strike(self, cell: &mut Cell, at: usize) {
        match self {
            Self::Kill => cell.voters[at].kill(),
            Self::Freeze => cell.voters[at].freeze(),
            Self::Isolate => cell.ways.isolate(at),
            Self::Deafen => cell.ways.deafen_to_all(at),
            Self::Mute => cell.ways.mute(at),
        }
    }

    async fn undo(self, cell: &mut Cell, at: usize) {
        match self {
            Self::Kill => {
                cell.voters[at].start();
                cell.voters[at].ready().await;
            }
            Self::Freeze => cell.voters[at].thaw(),
            Self::Isolate | Self::Deafen | Self::Mute => cell.ways.heal(),
        }
    }
}

async fn check(test: &str, voters: usize) {
    let layout = Layout {
        voters,
        replicas: 1,
        relays: true,
    };
    let (mut cell, mut workload, mut random) = at_work(test, layout).await;
    for round in 0..rounds(6) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        if random.usize(..POWER_FAILS) == 0 {
            eprintln!("round {round}: the power fails");
            workload.fault(None);
            cell.nodes_mut().for_each(tidemark_tests::Node::kill);
            cell.nodes_mut().for_each(tidemark_tests::Node::start);
            for node in cell.nodes_mut() {
                node.ready().await;
            }
            continue;
        }
        let mut struck = Vec::new();
        while struck.len() < (voters - 1) / 2 {
            let leader = cell.leader().await;
            let at = if random.bool() {
                leader
            } else {
                random.usize(..voters)
            };
            let blow = random.choice(BLOWS).expect("there are blows");
            if struck.iter().all(|(_, other)| *other != at) {
                eprintln!("round {round}: {blow:?} voter {}", at + 1);
                workload.fault((at == leader).then_some(leader));
                blow.strike(&mut cell, at);
                struck.push((blow, at));
            }
        }
        let meanwhile = random.usize(0..=PROGRESS);
        workload.progress(meanwhile, PATIENCE).await;
        random.shuffle(&mut struck);
        for (blow, at) in struck {
            blow.undo(&mut cell, at).await;
        }
    }
    workload.progress(PROGRESS, PATIENCE).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_voters_weather_one_fault_after_another() {
    check("three_voters_weather_one_fault_after_another", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_voters_weather_two_faults_at_a_time() {
    check("five_voters_weather_two_faults_at_a_time", 5).await;
}
