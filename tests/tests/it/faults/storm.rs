//! Faults of every kind, at random, on as many voters at a time as a cell survives, and on all at once.

use tidemark_tests::{Blow, Layout};

use super::{PATIENCE, PROGRESS, at_work, rounds};

/// Once in so many rounds the power fails: all nodes at once.
const POWER_FAILS: usize = 8;

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
            let blow = random.choice(Blow::ALL).expect("there are blows");
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
