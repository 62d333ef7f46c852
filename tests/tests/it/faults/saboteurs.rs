//! Servers that are broken on purpose: what the judge is for.
//!
//! Each test has nodes break one promise (a `sabotage` point), lets clients work as in any other scenario, and
//! demands that the judge finds it, by the check that is meant for it and, where values can show it, by
//! the values alone.

use std::time::Duration;

use tidemark_tests::history::{Check, Contradiction};
use tidemark_tests::{Cell, Layout, Load, Node, Point, Seed, Workload, wait};

use super::{PATIENCE, PROGRESS};
use crate::PROGRAM;

/// What can be broken. `sabotage::term` needs a source that was deposed and ships what was never committed, which no
/// primary does: `replica/tests/saboteur.rs`.
pub(super) const POINTS: &[&str] = &[
    "sabotage::bookmark",
    "sabotage::fsync",
    "sabotage::gate",
    "sabotage::lease",
    "sabotage::frames",
    "sabotage::retry",
    "sabotage::term",
    "sabotage::transaction",
    "sabotage::wait",
];

const LOAD: Load = Load {
    writers: 16,
    sessions: 16,
    readers: 8,
    rest: Duration::from_millis(20),
};
const RELAYED: Layout = Layout {
    voters: 3,
    replicas: 1,
    relays: true,
};

fn broken(name: &'static str) -> Point {
    Point::Set {
        name,
        actions: "return",
    }
}

async fn at_work(test: &str, layout: Layout) -> (Cell, Workload) {
    let cell = Cell::of(PROGRAM, layout).await;
    let workload = Workload::start(&cell, Seed::of(test), LOAD).await;
    (cell, workload)
}

/// A replica that is late and broken in this way, for some hundred writes and reads; what is found.
async fn of_late_replica(test: &str, name: &'static str) -> (Vec<Check>, Vec<Contradiction>) {
    let (mut cell, mut workload) = at_work(test, Layout::default()).await;
    workload.progress(PROGRESS, PATIENCE).await;
    answers_itself(&cell.replicas[0]).await;
    let replica = &mut cell.replicas[0];
    replica
        .tell(&Point::Set {
            name: "replica::before_apply",
            // Longer than a session rests, on a busy machine too.
            actions: "sleep(1000)",
        })
        .await;
    replica.tell(&broken(name)).await;
    workload.progress(5 * PROGRESS, PATIENCE).await;
    let leader = cell.leader().await;
    workload.findings(&cell.voters[leader]).await
}

fn session(guarantee: &str) -> impl Fn(&Contradiction) -> bool + '_ {
    move |one| matches!(one, Contradiction::Session { guarantee: broken, .. } if broken.name() == guarantee)
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_is_late_and_sound_passes() {
    let (found, values) = of_late_replica("replica_that_is_late_and_sound_passes", "none").await;
    assert_eq!(found, []);
    assert_eq!(values, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_does_not_wait_is_found() {
    let test = "replica_that_does_not_wait_is_found";
    let (found, values) = of_late_replica(test, "sabotage::wait").await;
    assert!(found.contains(&Check::Behind), "{found:?}");
    assert!(found.contains(&Check::ReadYourWrites), "{found:?}");
    assert!(values.iter().any(session("read your writes")));
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_loses_bookmarks_is_found() {
    let test = "replica_that_loses_bookmarks_is_found";
    let (found, values) = of_late_replica(test, "sabotage::bookmark").await;
    assert!(found.contains(&Check::Behind), "{found:?}");
    assert!(found.contains(&Check::MonotonicReads), "{found:?}");
    assert!(values.iter().any(session("monotonic reads")));
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_loses_frames_it_has_checked_is_found() {
    let test = "replica_that_loses_frames_it_has_checked_is_found";
    let (found, values) = of_late_replica(test, "sabotage::frames").await;
    assert!(found.contains(&Check::Count), "{found:?}");
    assert!(!values.is_empty());
}

/// The product's own check is enough: the copy is mended.
#[tokio::test(flavor = "multi_thread")]
async fn replica_that_loses_a_transaction_finds_it_itself() {
    let test = "replica_that_loses_a_transaction_finds_it_itself";
    let (mut cell, mut workload) = at_work(test, Layout::default()).await;
    workload.progress(PROGRESS, PATIENCE).await;
    answers_itself(&cell.replicas[0]).await;
    cell.replicas[0]
        .tell(&Point::Set {
            name: "sabotage::transaction",
            // Another of them might be the last of all, which nothing would tell of.
            actions: "1*return",
        })
        .await;
    workload.progress(3 * PROGRESS, PATIENCE).await;
    wait::until("the replica finds it", PATIENCE, async || {
        let log = cell.replicas[0].log();
        log.contains("a copy cannot be continued").then_some(())
    })
    .await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_answers_before_it_commits_is_found() {
    let test = "leader_that_answers_before_it_commits_is_found";
    let (mut cell, mut workload) = at_work(test, RELAYED).await;
    workload.progress(PROGRESS, PATIENCE).await;
    let leader = cell.leader().await;
    cell.voters[leader].tell(&broken("sabotage::gate")).await;
    workload.fault(Some(leader));
    cell.ways.isolate(leader);
    cell.successor(leader).await;
    cell.ways.heal();
    let leader = settled(&cell).await;
    let (found, values) = workload.findings(&cell.voters[leader]).await;
    let missing = values
        .iter()
        .any(|one| matches!(one, Contradiction::Missing { .. }));
    assert!(found.contains(&Check::Lost), "{found:?}");
    assert!(missing, "{values:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_reads_without_its_lease_is_found() {
    let test = "leader_that_reads_without_its_lease_is_found";
    let (mut cell, mut workload) = at_work(test, RELAYED).await;
    workload.progress(PROGRESS, PATIENCE).await;
    let mut leader = cell.leader().await;
    // Who asks the one that is cut off is for the clients to choose, so it is done several times.
    for _ in 0..3 {
        cell.voters[leader].tell(&broken("sabotage::lease")).await;
        workload.fault(Some(leader));
        cell.ways.isolate(leader);
        cell.successor(leader).await;
        workload.progress(PROGRESS, PATIENCE).await;
        workload.reads(3 * PROGRESS, PATIENCE).await;
        cell.ways.heal();
        leader = settled(&cell).await;
    }
    let (found, values) = workload.findings(&cell.voters[leader]).await;
    let stale = values
        .iter()
        .any(|one| matches!(one, Contradiction::Stale { .. }));
    assert!(found.contains(&Check::Stale), "{found:?}");
    assert!(stale, "{values:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_that_forget_requests_are_found() {
    let test = "voters_that_forget_requests_are_found";
    let (mut cell, mut workload) = at_work(test, Layout::default()).await;
    workload.progress(PROGRESS, PATIENCE).await;
    for voter in &mut cell.voters {
        voter.tell(&broken("sabotage::retry")).await;
    }
    // Writes that count, and whose writers do not hear of it. Some give up, so it is done several times.
    for _ in 0..4 {
        let leader = settled(&cell).await;
        workload.fault(Some(leader));
        let voter = &mut cell.voters[leader];
        let name = "primary::before_answer";
        voter.tell(&Point::Crash { name, nth: 20 }).await;
        voter.dies_at(name, PATIENCE).await;
        workload.progress(PROGRESS, PATIENCE).await;
        let voter = &mut cell.voters[leader];
        voter.start();
        voter.ready_within(PATIENCE).await;
        voter.tell(&broken("sabotage::retry")).await;
    }
    let leader = settled(&cell).await;
    let (found, values) = workload.findings(&cell.voters[leader]).await;
    let repeated = values
        .iter()
        .any(|one| matches!(one, Contradiction::Repeated { .. }));
    assert!(found.contains(&Check::Twice), "{found:?}");
    assert!(repeated, "{values:?}");
}

/// The power fails, and takes all that was written since the last time that anything was made durable.
#[tokio::test(flavor = "multi_thread")]
async fn voters_that_forget_to_make_durable_are_found() {
    let test = "voters_that_forget_to_make_durable_are_found";
    let voters = Layout {
        replicas: 0,
        ..Layout::default()
    };
    let (mut cell, mut workload) = at_work(test, voters).await;
    workload.progress(PROGRESS, PATIENCE).await;
    for voter in &mut cell.voters {
        voter.tell(&broken("sabotage::fsync")).await;
        voter.keep_disk();
    }
    workload.progress(5 * PROGRESS, PATIENCE).await;
    workload.fault(None);
    cell.nodes_mut().for_each(Node::kill);
    for voter in &mut cell.voters {
        voter.lose_since_kept();
        voter.start();
    }
    let leader = settled(&cell).await;
    let (found, values) = workload.findings(&cell.voters[leader]).await;
    let missing = values
        .iter()
        .any(|one| matches!(one, Contradiction::Missing { .. }));
    assert!(found.contains(&Check::Lost), "{found:?}");
    assert!(missing, "{values:?}");
}

/// Waits until a replica reads its own copy. Before that it hands everything on, and has nothing to do wrong.
async fn answers_itself(replica: &Node) {
    wait::soon("the replica answers by itself", async || {
        let count = "SELECT count(*) FROM entries";
        let query = replica.api().query("history", count);
        let reply = query.bookmark("first-unconstrained").send().await.ok()?;
        let own = reply.status == 200 && reply.meta()["served_by_primary"] == false;
        own.then_some(())
    })
    .await;
}

/// Waits until a voter leads that answers for everything; returns its place.
async fn settled(cell: &Cell) -> usize {
    wait::soon("a voter leads and answers", async || {
        let leader = cell.leader().await;
        let count = "SELECT count(*) FROM entries";
        let query = cell.voters[leader].api().query("history", count);
        let reply = query.bookmark("first-primary").send().await.ok()?;
        (reply.status == 200).then_some(leader)
    })
    .await
}
