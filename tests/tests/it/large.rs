//! Transactions of a hundred megabytes and more: they take their time and nothing else. At stake: the leader's
//! lease, the writes of other databases, and reads of all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemark_tests::{Api, Cell, wait};
use tokio::task::JoinHandle;

use crate::PROGRAM;

/// Rows of a mebibyte each, in transactions of so many.
const TRANSACTIONS: [i64; 2] = [150, 220];
/// Time for all nodes to have the same in the end.
const SETTLED: Duration = Duration::from_secs(90);
/// No read takes as long, whatever is on its way: a hundredth of what a large transaction takes.
const READ_MAX: Duration = Duration::from_millis(1500);

/// How long requests took, one after the other.
#[derive(Debug, Default)]
struct Times {
    count: usize,
    longest: Duration,
    above_100_ms: usize,
}

/// Asks the same again and again, pausing a little, and fails if that ever fails.
fn repeat(
    api: Api,
    database: &'static str,
    sql: &'static str,
    headers: &'static [(&'static str, &'static str)],
    stop: &Arc<AtomicBool>,
) -> JoinHandle<Times> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut times = Times::default();
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let query = headers
                .iter()
                .fold(api.query(database, sql), |query, (name, value)| {
                    query.header(name, value)
                });
            query.ok().await;
            let took = begun.elapsed();
            times.count += 1;
            times.longest = times.longest.max(took);
            times.above_100_ms += usize::from(took > Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times
    })
}

/// The most memory that a process ever had, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_hundreds_of_megabytes_cost_no_lease_and_fail_nobody() {
    let mut cell = Cell::start(PROGRAM).await;
    let leader = cell.leader().await;
    let api = cell.voters[leader].api();
    let term = api.status().await.expect("the status").term;
    for database in ["big", "other"] {
        api.create(database).await;
    }
    let table = "CREATE TABLE t (n INTEGER PRIMARY KEY, content)";
    let made = [
        api.query("big", table).ok().await,
        api.query("other", table).ok().await,
    ];
    for (name, made) in ["big", "other"].into_iter().zip(made) {
        for node in cell.nodes() {
            wait::soon("every node has the table", async || {
                let read = node.api().query(name, "SELECT count(*) FROM t");
                let read = read.bookmark(&made.bookmark()).send().await.ok()?;
                (read.status == 200).then_some(())
            })
            .await;
        }
    }

    let stop = Arc::new(AtomicBool::new(false));
    const UNCONSTRAINED: &[(&str, &str)] = &[
        ("x-d1-bookmark", "first-unconstrained"),
        ("tidemark-on-miss", "error"),
    ];
    let insert = "INSERT INTO t(content) VALUES ('small')";
    let count = "SELECT count(*) FROM t";
    let follower = cell.voters[(leader + 1) % 3].api();
    let replica = cell.replicas[0].api();
    let at_work = [
        (
            "writes of another",
            repeat(api.clone(), "other", insert, &[], &stop),
        ),
        ("plain reads", repeat(api.clone(), "big", count, &[], &stop)),
        (
            "reads at the leader",
            repeat(api.clone(), "big", count, UNCONSTRAINED, &stop),
        ),
        (
            "reads at a follower",
            repeat(follower, "big", count, UNCONSTRAINED, &stop),
        ),
        (
            "reads at a replica",
            repeat(replica, "big", count, UNCONSTRAINED, &stop),
        ),
    ];
    let mut last = String::new();
    for rows in TRANSACTIONS {
        let sql = format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
             INSERT INTO t(content) SELECT randomblob(1048576) FROM n"
        );
        let begun = Instant::now();
        let written = api.query("big", &sql).header("tidemark-deadline", "100s");
        last = written.ok().await.bookmark();
        eprintln!("{rows} MiB took {:?}", begun.elapsed());
    }
    let begun = Instant::now();
    for node in cell.nodes() {
        wait::until("every node has the rows", SETTLED, async || {
            let read = node.api().query("big", "SELECT count(*) AS n FROM t");
            let read = read.bookmark(&last).header("tidemark-on-miss", "error");
            let reply = read.send().await.ok()?;
            let all = i64::from(
                reply.status == 200 && reply.rows()[0]["n"] == TRANSACTIONS.iter().sum::<i64>(),
            );
            (all == 1).then_some(())
        })
        .await;
        eprintln!("{} has them after {:?}", node.name(), begun.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for node in cell.nodes() {
        eprintln!("{}: at most {} MiB", node.name(), peak_mib(node.pid()));
    }
    for (what, times) in at_work {
        let times = times.await.expect("nothing fails");
        eprintln!("{what}: {times:?}");
        assert!(times.count > 10, "{what}: {times:?}");
        if what.starts_with("reads") {
            assert!(times.longest < READ_MAX, "{what}: {times:?}");
        }
    }
    cell.verified(SETTLED).await;
    assert_eq!(cell.leader().await, leader);
    assert_eq!(
        api.status().await.expect("the status").term,
        term,
        "no election"
    );
    cell.stop().await;
}
