//! Disks that fail or are full, under real processes and clients at work.
//!
//! A node whose log or database cannot be written or synced ends at once, by itself and saying why; the
//! others go on; nothing that was acknowledged is lost; and with a good disk it comes back and catches up.

use std::time::{Duration, Instant};

use tidemark_tests::{
    Call, Cell, Errno, Faults, Layout, Load, Node, Seed, SmallDiskCell, Workload, wait,
};

use crate::PROGRAM;

/// Time for what depends on much work.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for an answer that says "not now".
const PROMPT: Duration = Duration::from_secs(6);
/// More log than a test writes until a checkpoint.
const NEVER: &str = "1GiB";
/// As little as a node accepts.
const OFTEN: &str = "1MiB";
/// How the log, or a database, says that the disk is full.
const NO_ROOM: &[&str] = &["No space left on device", "SQLITE_FULL"];

/// Enough to keep a log busy, on two cores that do everything else too.
const LOAD: Load = Load {
    writers: 8,
    sessions: 2,
    readers: 2,
    rest: Duration::from_millis(10),
};

/// A disk that has failed once may have lost what it was given: a voter must never again count what it wrote
/// since the last good fsync.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_whose_fsync_fails_ends_and_the_cell_goes_on() {
    if !Faults::available() {
        return;
    }
    let seed = Seed::of("a_voter_whose_fsync_fails_ends_and_the_cell_goes_on");
    let faults = Faults::new(PROGRAM, NEVER);
    let mut cell = Cell::of(&faults.program(), Layout::default()).await;
    let mut work = Workload::start(&cell, seed, LOAD).await;
    work.progress(50, PATIENCE).await;

    let follower = (cell.leader().await + 1) % cell.voters.len();
    for follows in [true, false] {
        let at = if follows {
            follower
        } else {
            cell.leader().await
        };
        work.fault((!follows).then_some(at));
        faults.fail(&cell.voters[at], Call::Fdatasync, Errno::Io);
        let why = ["flush the log: Input/output error"];
        ended(&mut cell.voters[at], &why).await;
        work.progress(100, PATIENCE).await;

        faults.fail_from_start(Some((Call::Fdatasync, Errno::Io)));
        cell.voters[at].start();
        ended(&mut cell.voters[at], &["open log"]).await;
        faults.fail_from_start(None);
        cell.voters[at].start();
        cell.voters[at].ready().await;
        work.progress(50, PATIENCE).await;
    }
    work.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

/// Whichever of a lone node's calls fails, and with whatever error: it ends rather than go on with what it
/// can no longer trust, and finds every acknowledged write again.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_the_node_ends_and_has_every_acknowledged_write() {
    if !Faults::available() {
        return;
    }
    let seed = Seed::of("whatever_call_fails_the_node_ends_and_has_every_acknowledged_write");
    let layout = Layout {
        voters: 1,
        replicas: 0,
        relays: false,
    };
    // Each of the kinds of call comes within a second or two.
    let faults = Faults::new(PROGRAM, OFTEN);
    let mut cell = Cell::of(&faults.program(), layout).await;
    let mut work = Workload::start(&cell, seed, LOAD).await;
    for (call, error) in [
        (Call::Fdatasync, Errno::Io),
        (Call::Fdatasync, Errno::NoSpace),
        (Call::Fsync, Errno::Io),
        (Call::Writev, Errno::Io),
        (Call::Writev, Errno::NoSpace),
        (Call::Pwrite, Errno::Io),
        (Call::Pwrite, Errno::NoSpace),
        (Call::Ftruncate, Errno::Io),
        (Call::Rename, Errno::Io),
    ] {
        work.progress(30, PATIENCE).await;
        eprintln!("{call:?} fails with {error:?}");
        work.fault(Some(0));
        faults.fail(&cell.voters[0], call, error);
        ended(&mut cell.voters[0], &["the primary cannot go on"]).await;
        cell.voters[0].start();
        cell.voters[0].ready().await;
    }
    work.progress(30, PATIENCE).await;
    work.judged(&cell, PATIENCE).await;
    cell.stop().await;
}

/// A full disk is one voter's problem; two full disks stop writes, and writes alone.
#[tokio::test(flavor = "multi_thread")]
async fn full_disks_stop_writes_only_with_the_quorum_and_lose_nothing() {
    if !SmallDiskCell::available() {
        return;
    }
    let seed = Seed::of("full_disks_stop_writes_only_with_the_quorum_and_lose_nothing");
    let mut small = SmallDiskCell::start(PROGRAM, Layout::default(), 64).await;
    let cell = &mut small.cell;
    let mut work = Workload::start(cell, seed, LOAD).await;
    work.progress(50, PATIENCE).await;

    let first = cell.leader().await;
    work.fault(Some(first));
    SmallDiskCell::fill(&cell.voters[first]);
    ended(&mut cell.voters[first], NO_ROOM).await;
    work.progress(50, PATIENCE).await;

    let second = cell.leader().await;
    let third = 3 - first - second;
    let newest = "SELECT count(*) AS n FROM entries";
    // What the third has been shown to have, it must go on showing.
    let seen = {
        let api = cell.voters[second].api();
        let bookmark = api.query("history", newest).ok().await.bookmark();
        let query = cell.voters[third].api().query("history", newest);
        query.bookmark(&bookmark).ok().await.bookmark()
    };
    work.fault(Some(second));
    SmallDiskCell::fill(&cell.voters[second]);
    ended(&mut cell.voters[second], NO_ROOM).await;

    let api = cell.voters[third].api();
    let write = || {
        api.query("history", "INSERT INTO entries (value) VALUES (-1)")
            .send()
    };
    wait::soon("the third knows that there is no quorum", async || {
        (write().await.ok()?.status == 503).then_some(())
    })
    .await;
    for _ in 0..3 {
        let asked = Instant::now();
        let refused = write().await.expect("an answer");
        let took = asked.elapsed();
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        assert!(took < PROMPT, "{took:?} for a refusal");
        let read = api.query("history", newest).bookmark(&seen).ok().await;
        assert!(read.rows()[0]["n"].as_i64() >= Some(100), "{}", read.text);
    }

    // Still full: no use.
    cell.voters[first].start();
    ended(&mut cell.voters[first], NO_ROOM).await;
    SmallDiskCell::free(&cell.voters[first]);
    cell.voters[first].start();
    cell.voters[first].ready().await;
    work.progress(50, PATIENCE).await;
    SmallDiskCell::free(&cell.voters[second]);
    cell.voters[second].start();
    cell.voters[second].ready().await;
    work.progress(50, PATIENCE).await;
    work.judged(cell, PATIENCE).await;
    cell.stop().await;
}

/// Waits until the node has ended by itself, in failure, with one of these among its last words.
async fn ended(node: &mut Node, why: &[&str]) {
    let name = node.name().to_owned();
    let status = wait::until(&format!("{name} ends"), PATIENCE, async || node.ended()).await;
    assert_eq!(status.code(), Some(1), "{name} ended with {status}");
    let log = node.log();
    let lines: Vec<_> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    assert!(
        why.iter().any(|why| last.contains(why)),
        "{name} says none of {why:?}:\n{last}"
    );
    // Takes note of the end.
    node.kill();
}
