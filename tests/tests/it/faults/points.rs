//! Every named point of the product's own: a node dies there, starts again, and nothing is lost.
//!
//! Each test has its cell at work and goes through its points: the node is told to die at the point's nth passage,
//! the test does what leads there, waits until it has died at that very point, and starts it again. In the end
//! the record of the whole run is judged. The points are data: [`every_point_has_its_test`] compares them with the
//! source.

use std::path::Path;
use std::time::Duration;

use tidemark_tests::{Cell, Growing, Layout, Load, Node, Point, Seed, Workload, signal, wait};

use super::{PATIENCE, rounds};
use crate::PROGRAM;

/// Of a leader that takes writes.
const LEADER: &[&str] = &[
    "primary::before_execute",
    "primary::before_propose",
    "primary::before_answer",
];
/// Of any voter while others write.
const VOTER: &[&str] = &[
    "log::before_append",
    "log::after_flush",
    "engine-before-journal",
    "engine-before-inject",
    "engine-after-inject",
];
/// Of a voter that stands for election, or is asked for its vote.
const ELECTION: &[&str] = &["log::before_vote", "log::after_vote"];
/// Of any voter when its WAL has grown.
const CHECKPOINT: &[&str] = &[
    "primary::before_checkpoint",
    "engine-before-checkpoint",
    "engine-after-checkpoint",
    "engine-after-rewrite",
];
/// Of any voter that cuts its log.
const CUT: &[&str] = &[
    "primary::before_requests",
    "primary::before_cut",
    "log::before_purge",
];
/// Of a voter that was away for longer than the log goes back.
const INSTALL: &[&str] = &[
    "primary::image_page",
    "primary::before_adopt",
    "primary::before_install",
    "primary::before_chain",
];
/// Of a replica that follows.
const REPLICA: &[&str] = &["replica::before_apply", "replica::after_apply"];
/// Of a replica that begins anew.
const RESYNC: &[&str] = &[
    "replica::before_term",
    "replica::image_page",
    "replica::before_install",
    "replica::after_install",
];
/// Of a leader that takes a node into its cell.
const MEMBERS: &[&str] = &[
    "primary::before_join",
    "primary::before_learner",
    "primary::before_voter",
    "primary::after_voter",
];

/// Of a leader that lets a node go.
const REMOVAL: &[&str] = &[
    "primary::before_leave",
    "primary::before_removal",
    "primary::after_removal",
];
/// Of the voter that begins the cell.
const BEGIN: &[&str] = &["primary::before_begin", "primary::after_begin"];

const LOAD: Load = Load {
    writers: 16,
    sessions: 4,
    readers: 4,
    rest: Duration::from_millis(20),
};
const ALONE: Layout = Layout {
    voters: 1,
    replicas: 1,
    relays: false,
};
/// Writes that show that the cell is at work, before and after each death.
const PROGRESS: usize = 30;
/// The passage that is the last, at most, of points that are passed with each write.
const PASSAGES: u32 = 20;
/// Bytes of a row that make a WAL due for a checkpoint.
const LARGE: usize = 18_000_000;

async fn at_work(test: &str, layout: Layout) -> (Cell, Workload, fastrand::Rng) {
    let seed = Seed::of(test);
    let cell = Cell::of(PROGRAM, layout).await;
    let workload = Workload::start(&cell, seed, LOAD).await;
    (cell, workload, seed.stream(0))
}

/// Starts a node that has died, and sees the cell at work.
async fn revive(node: &mut Node) {
    node.start();
    node.ready().await;
}

async fn judge(mut workload: Workload, mut cell: Cell) {
    workload.progress(PROGRESS, PATIENCE).await;
    workload.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

/// Writes a large row, as often as it takes, until `node` has died at the point. Whether it counts is all the same.
async fn dies_of_large_writes(cell: &mut Cell, at: usize, name: &str) {
    let writers: Vec<_> = cell.voters.iter().map(Node::api).collect();
    let sql = format!("INSERT OR REPLACE INTO large VALUES (1, randomblob({LARGE}))");
    let writing = tokio::spawn(async move {
        loop {
            for api in &writers {
                // The nodes without the lead hand it on; one that has just died answers nothing.
                let query = api.query("large", &sql);
                drop(tokio::time::timeout(PATIENCE, query.send()).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    cell.voters[at].dies_at(name, PATIENCE).await;
    writing.abort();
}

async fn make_large(cell: &Cell) {
    let api = cell.voters[cell.leader().await].api();
    api.create("large").await;
    let table = "CREATE TABLE large (n INTEGER PRIMARY KEY, content BLOB)";
    api.query("large", table).ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_that_die_anywhere_on_the_path_of_a_write_lose_nothing() {
    let test = "voters_that_die_anywhere_on_the_path_of_a_write_lose_nothing";
    let (mut cell, mut workload, mut random) = at_work(test, Layout::default()).await;
    for _ in 0..rounds(1) {
        for name in LEADER.iter().chain(VOTER) {
            workload.progress(PROGRESS, PATIENCE).await;
            let leader = cell.leader().await;
            let at = if LEADER.contains(name) {
                leader
            } else {
                random.usize(..3)
            };
            workload.fault((at == leader).then_some(leader));
            let nth = random.u32(1..=PASSAGES);
            cell.voters[at].tell(&Point::Crash { name, nth }).await;
            cell.voters[at].dies_at(name, PATIENCE).await;
            workload.progress(PROGRESS, PATIENCE).await;
            revive(&mut cell.voters[at]).await;
        }
        for name in ELECTION {
            workload.progress(PROGRESS, PATIENCE).await;
            let leader = cell.leader().await;
            let at = (leader + random.usize(1..3)) % 3;
            workload.fault(Some(leader));
            cell.voters[at].tell(&Point::Crash { name, nth: 1 }).await;
            cell.voters[leader].kill();
            cell.voters[at].dies_at(name, PATIENCE).await;
            revive_both(&mut cell, leader, at).await;
        }
    }
    judge(workload, cell).await;
}

/// Neither gets ready without the other.
async fn revive_both(cell: &mut Cell, one: usize, other: usize) {
    cell.voters[one].start();
    cell.voters[other].start();
    cell.voters[one].ready().await;
    cell.voters[other].ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_that_die_in_a_checkpoint_lose_nothing() {
    let test = "voters_that_die_in_a_checkpoint_lose_nothing";
    let (mut cell, mut workload, mut random) = at_work(test, Layout::default()).await;
    make_large(&cell).await;
    for _ in 0..rounds(1) {
        for name in CHECKPOINT {
            workload.progress(PROGRESS, PATIENCE).await;
            let leader = cell.leader().await;
            let at = random.usize(..3);
            workload.fault((at == leader).then_some(leader));
            cell.voters[at].tell(&Point::Crash { name, nth: 1 }).await;
            dies_of_large_writes(&mut cell, at, name).await;
            revive(&mut cell.voters[at]).await;
        }
    }
    judge(workload, cell).await;
}

/// A cell of one keeps no log that its files have, and cuts it when it stops.
#[tokio::test(flavor = "multi_thread")]
async fn voters_that_die_cutting_their_log_or_taking_over_anothers_files_lose_nothing() {
    let test = "voters_that_die_cutting_their_log_or_taking_over_anothers_files_lose_nothing";
    let (mut cell, mut workload, _) = at_work(test, ALONE).await;
    for _ in 0..rounds(1) {
        for name in CUT {
            workload.progress(PROGRESS, PATIENCE).await;
            workload.fault(Some(0));
            let voter = &mut cell.voters[0];
            voter.tell(&Point::Crash { name, nth: 1 }).await;
            signal(voter.pid(), "TERM");
            voter.dies_at(name, PATIENCE).await;
            revive(voter).await;
        }
    }
    workload.progress(PROGRESS, PATIENCE).await;
    workload.fault(Some(0));
    cell.voters[0].stop().await;
    revive(&mut cell.voters[0]).await;
    workload.progress(PROGRESS, PATIENCE).await;
    // Its state comes by pages, as the log that led there is gone.
    cell.join(0, None);
    for name in INSTALL {
        cell.voters[1].tell(&Point::Crash { name, nth: 1 }).await;
        cell.voters[1].dies_at(name, PATIENCE).await;
        cell.voters[1].start();
    }
    cell.all_vote(PATIENCE).await;
    judge(workload, cell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_dies_anywhere_catches_up() {
    let test = "replica_that_dies_anywhere_catches_up";
    let (mut cell, mut workload, mut random) = at_work(test, ALONE).await;
    for _ in 0..rounds(1) {
        for name in REPLICA {
            workload.progress(PROGRESS, PATIENCE).await;
            workload.fault(None);
            let nth = random.u32(1..=PASSAGES);
            cell.replicas[0].tell(&Point::Crash { name, nth }).await;
            cell.replicas[0].dies_at(name, PATIENCE).await;
            workload.progress(PROGRESS, PATIENCE).await;
            revive(&mut cell.replicas[0]).await;
        }
        for name in RESYNC {
            workload.progress(PROGRESS, PATIENCE).await;
            workload.fault(None);
            let replica = &mut cell.replicas[0];
            replica.kill();
            replica.lose_disk();
            // One that has just started has no transactions in memory to send, and cut its log when it stopped.
            cell.voters[0].stop().await;
            revive(&mut cell.voters[0]).await;
            let replica = &mut cell.replicas[0];
            replica.start();
            replica.tell(&Point::Crash { name, nth: 1 }).await;
            replica.dies_at(name, PATIENCE).await;
            workload.progress(PROGRESS, PATIENCE).await;
            revive(&mut cell.replicas[0]).await;
        }
    }
    judge(workload, cell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_dies_while_a_node_joins_takes_it_in_all_the_same() {
    let test = "leader_that_dies_while_a_node_joins_takes_it_in_all_the_same";
    let (mut cell, mut workload, _) = at_work(test, ALONE).await;
    for name in MEMBERS {
        workload.progress(PROGRESS, PATIENCE).await;
        let leader = cell.leader().await;
        workload.fault(Some(leader));
        cell.voters[leader]
            .tell(&Point::Crash { name, nth: 1 })
            .await;
        cell.join(leader, None);
        cell.voters[leader].dies_at(name, PATIENCE).await;
        revive(&mut cell.voters[leader]).await;
        cell.all_vote(PATIENCE).await;
        workload.progress(PROGRESS, PATIENCE).await;
    }
    judge(workload, cell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_dies_while_a_node_leaves_lets_it_go_all_the_same() {
    let test = "leader_that_dies_while_a_node_leaves_lets_it_go_all_the_same";
    let (mut cell, mut workload, _) = at_work(test, Layout::default()).await;
    for _ in 0..rounds(1) {
        for name in REMOVAL {
            workload.progress(PROGRESS, PATIENCE).await;
            let leaving = cell.voters.len();
            let leader = cell.leader().await;
            cell.join(leader, None);
            cell.all_vote(PATIENCE).await;
            let mut leader = cell.leader().await;
            // Of itself no leader lets go: it hands over first.
            while leader == leaving {
                cell.voters[leader].kill_and_restart().await;
                leader = cell.leader().await;
            }
            workload.fault(Some(leader));
            cell.voters[leader]
                .tell(&Point::Crash { name, nth: 1 })
                .await;
            // It dies of it; its successor may have done it by the time that is asked next.
            drop(cell.remove(leaving).await);
            cell.voters[leader].dies_at(name, PATIENCE).await;
            revive(&mut cell.voters[leader]).await;
            wait::until("the node is let go", PATIENCE, async || {
                cell.remove(leaving).await.status.success().then_some(())
            })
            .await;
            cell.let_go(leaving);
            cell.all_vote(PATIENCE).await;
        }
    }
    judge(workload, cell).await;
}

/// A cell that has begun halfway must begin, once.
#[tokio::test(flavor = "multi_thread")]
async fn voter_that_dies_beginning_a_cell_begins_it() {
    for name in BEGIN {
        let mut cell = Growing::new(PROGRAM);
        for id in 1..=3 {
            cell.add(id);
        }
        let list = cell.list(&[1, 2, 3]);
        for id in 1..=3 {
            cell.tell(id, &["--voter", &list]);
        }
        // It waits for the others; of all it is the one to begin.
        cell.node(1).start();
        cell.node(1).tell(&Point::Crash { name, nth: 1 }).await;
        cell.node(2).start();
        cell.node(3).start();
        cell.node(1).dies_at(name, PATIENCE).await;
        cell.node(1).start();
        for id in 1..=3 {
            cell.node(id).ready().await;
        }
        cell.has_voters(&[1, 2, 3]).await;
        cell.verified(&[1, 2, 3]).await;
    }
}

/// The names in the source, and those above.
#[test]
fn every_point_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for part in ["engine", "primary", "replica", "gateway"] {
        names(&root.join(part).join("src"), &mut found);
    }
    found.sort_unstable();
    found.dedup();
    let lists = [
        LEADER, VOTER, ELECTION, CHECKPOINT, CUT, INSTALL, REPLICA, RESYNC, MEMBERS, REMOVAL, BEGIN,
    ];
    let mut known: Vec<_> = lists.concat().into_iter().map(str::to_owned).collect();
    known.extend(
        super::saboteurs::POINTS
            .iter()
            .map(|name| (*name).to_owned()),
    );
    known.sort_unstable();
    assert_eq!(found, known);
}

/// Adds the names of the points in the files below `directory`.
fn names(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("the source is there") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            names(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("source is text");
        let calls = text.split("fail_point!(").skip(1);
        found.extend(calls.map(|call| {
            let name = call.trim_start().strip_prefix('"').expect("a name");
            name.split('"').next().expect("a name").to_owned()
        }));
    }
}
