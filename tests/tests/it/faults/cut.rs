//! One voter of three that hears nobody, or that nobody hears: the follower must not disturb the others, the
//! leader must not hold them up.
//!
//! A direction that is cut lets no new connection come about, as TCP has it; what flows over one that is
//! there goes on in the other direction until somebody's deadline passes.

use tidemark_tests::{Layout, Ways, wait};

use super::{PATIENCE, PROGRESS, at_work, rounds};

const RELAYED: Layout = Layout {
    voters: 3,
    replicas: 1,
    relays: true,
};

/// Cuts a voter off by `cut`, again and again, and demands progress each time.
async fn check(test: &str, leads: bool, cut: fn(&Ways, usize)) {
    let (mut cell, mut workload, mut random) = at_work(test, RELAYED).await;
    for _ in 0..rounds(2) {
        workload
            .progress(random.usize(1..=PROGRESS), PATIENCE)
            .await;
        let leader = cell.leader().await;
        let at = if leads {
            leader
        } else {
            (leader + random.usize(1..3)) % 3
        };
        workload.fault(leads.then_some(leader));
        cut(&cell.ways, at);
        if leads {
            cell.successor(leader).await;
        }
        workload.progress(PROGRESS, PATIENCE).await;
        let alone = cell.voters[at].api();
        wait::until("the one that is cut off notices", PATIENCE, async || {
            let ready = alone.get("/ready").await;
            ready.is_ok_and(|reply| reply.status == 503).then_some(())
        })
        .await;
        cell.ways.heal();
        workload.progress(PROGRESS, PATIENCE).await;
    }
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_that_hears_nobody_holds_up_nobody() {
    let test = "follower_that_hears_nobody_holds_up_nobody";
    check(test, false, Ways::deafen_to_all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_that_nobody_hears_holds_up_nobody() {
    let test = "follower_that_nobody_hears_holds_up_nobody";
    check(test, false, Ways::mute).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_hears_nobody_is_succeeded() {
    let test = "leader_that_hears_nobody_is_succeeded";
    check(test, true, Ways::deafen_to_all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_nobody_hears_is_succeeded() {
    let test = "leader_that_nobody_hears_is_succeeded";
    check(test, true, Ways::mute).await;
}
