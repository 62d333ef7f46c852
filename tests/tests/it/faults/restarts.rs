//! Restarts in every order: three voters and a replica go down one after another, by kill -9 or in order, and come up
//! one after another, until each order of the voters has been gone through.

use std::time::Duration;

use tidemark_tests::{Cell, Layout, Node};

use super::{PATIENCE, PROGRESS, at_work, rounds};

/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];
/// The place of the replica among those that go down and come up.
const REPLICA: usize = 3;

/// `TIDEMARK_ROUNDS=36` goes through all of them, whatever the seed.
#[tokio::test(flavor = "multi_thread")]
async fn voters_that_go_down_and_come_up_in_any_order_lose_nothing() {
    let test = "voters_that_go_down_and_come_up_in_any_order_lose_nothing";
    let (mut cell, mut workload, mut random) = at_work(test, Layout::default()).await;
    let mut orders: Vec<_> = ORDERS
        .iter()
        .flat_map(|down| ORDERS.iter().map(move |up| (down, up)))
        .collect();
    random.shuffle(&mut orders);
    for (down, up) in orders.iter().cycle().take(rounds(6)) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let mut down = down.to_vec();
        down.insert(random.usize(0..=3), REPLICA);
        let mut up = up.to_vec();
        up.insert(random.usize(0..=3), REPLICA);
        for (gone, at) in down.into_iter().enumerate() {
            let leader = cell.says_it_leads().await;
            workload.fault(leader.filter(|leader| *leader == at));
            let node = node(&mut cell, at);
            if random.bool() {
                node.kill();
            } else {
                node.stop().await;
            }
            // With two voters there is progress to be had between two of them; with fewer there is none.
            if gone == 0 {
                workload.progress(random.usize(..20), PATIENCE).await;
            }
        }
        for at in &up {
            node(&mut cell, *at).start();
            let pause = Duration::from_millis(random.u64(..500));
            tokio::time::sleep(pause).await;
        }
        for at in up {
            node(&mut cell, at).ready().await;
        }
    }
    workload.progress(PROGRESS, PATIENCE).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

fn node(cell: &mut Cell, at: usize) -> &mut Node {
    if at == REPLICA {
        &mut cell.replicas[0]
    } else {
        &mut cell.voters[at]
    }
}
