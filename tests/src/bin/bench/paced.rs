//! How late a replica is at a fixed rate of writes, and what reading one's own write through it costs.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidemark_client::{Client, Database, SessionStart};
use tidemark_tests::{Cluster, Place};
use tokio::task::JoinSet;

use crate::server::{cpu_seconds, node_program};

/// Rows that are updated in turn.
const ROWS: u64 = 1000;
const READ: &str = "SELECT v FROM t WHERE id = ?";
const WRITE: &str = "UPDATE t SET v = v + 1 WHERE id = ?";

/// Writes leave when they are due. The replica is asked with each one's bookmark as soon as it was answered.
pub(crate) async fn lag(
    rates: &[u32],
    duration: Duration,
    rounds: usize,
    delay: Duration,
) -> anyhow::Result<()> {
    let (cluster, database, near) = start(delay).await?;
    let delay_ms = delay.as_millis();
    println!(
        "| writes/s | one-way delay ms | writes | write p50 ms | p99 ms | lag beyond the delay: p50 ms | p99 ms | max ms | CPU us/write: primary | replica |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for &rate in rates {
        let (mut writes, mut lags) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
        let pids = [cluster.primary.pid(), cluster.replicas[0].pid()];
        let cpu = || pids.map(|pid| cpu_seconds(pid).unwrap());
        let before = cpu();
        for _ in 0..rounds {
            let start = Instant::now();
            let mut under_way = JoinSet::new();
            for n in 0..u64::from(rate) * duration.as_secs() {
                let due = start + Duration::from_secs(1) * u32::try_from(n)? / rate;
                tokio::time::sleep_until(due.into()).await;
                under_way.spawn(write_and_see(database.clone(), near.clone(), n));
            }
            while let Some(one) = under_way.join_next().await {
                let (write, seen) = one??;
                writes.record(micros(write))?;
                lags.record(micros(seen.saturating_sub(delay)))?;
            }
        }
        let after = cpu();
        let each = |node: usize| (after[node] - before[node]) * 1e6 / writes.len() as f64;
        println!(
            "| {rate} | {delay_ms} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
            writes.len(),
            ms(&writes, 0.5),
            ms(&writes, 0.99),
            ms(&lags, 0.5),
            ms(&lags, 0.99),
            ms(&lags, 1.0),
            each(0),
            each(1),
        );
    }
    Ok(())
}

/// Time of a write, and from its answer until the replica shows it.
async fn write_and_see(
    database: Database,
    near: Database,
    n: u64,
) -> anyhow::Result<(Duration, Duration)> {
    let row = i64::try_from(1 + n % ROWS)?;
    let sent = Instant::now();
    let writer = database.session(SessionStart::Primary);
    writer.prepare(WRITE).bind(row).run().await?;
    let committed = Instant::now();
    let mark = writer.bookmark().expect("a write gives a bookmark");
    // Answers as soon as the replica has it: the wait is inside.
    let reader = near.session(SessionStart::Bookmark(mark));
    reader.prepare(READ).bind(row).raw().await?;
    Ok((committed - sent, committed.elapsed()))
}

/// A write through the replica and a read of it there, beside a read that the primary answers.
pub(crate) async fn own_writes(
    delays: impl Iterator<Item = Duration>,
    count: usize,
) -> anyhow::Result<()> {
    println!(
        "| one-way delay ms | a read at the primary, through the replica: p50 ms | write through the replica: p50 ms | read of it there: p50 ms | p99 ms | both: p50 ms | p99 ms | both, in round trips: p50 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for delay in delays {
        let (_cluster, _, near) = start(delay).await?;
        let [mut trips, mut writes, mut reads, mut both] =
            [(); 4].map(|()| Histogram::<u64>::new(3).expect("three digits"));
        for n in 0..count {
            let row = i64::try_from(1 + n as u64 % ROWS)?;
            let session = near.session(SessionStart::Primary);
            let start = Instant::now();
            session.prepare(READ).bind(row).raw().await?;
            trips.record(micros(start.elapsed()))?;

            let session = near.session(SessionStart::Unconstrained);
            let start = Instant::now();
            session.prepare(WRITE).bind(row).run().await?;
            let written = Instant::now();
            session.prepare(READ).bind(row).raw().await?;
            writes.record(micros(written - start))?;
            reads.record(micros(written.elapsed()))?;
            both.record(micros(start.elapsed()))?;
        }
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.3} |",
            delay.as_millis(),
            ms(&trips, 0.5),
            ms(&writes, 0.5),
            ms(&reads, 0.5),
            ms(&reads, 0.99),
            ms(&both, 0.5),
            ms(&both, 0.99),
            ms(&both, 0.5) / ms(&trips, 0.5),
        );
    }
    Ok(())
}

/// A primary and a replica at that distance, and the database as each has it.
async fn start(delay: Duration) -> anyhow::Result<(Cluster, Database, Database)> {
    let cluster = Cluster::start(&node_program()?, &[Place::at("WEUR", delay)]).await;
    let primary: Client = Cluster::client(&cluster.primary);
    primary.create_database("lag").await?;
    let database = primary.database("lag");
    database
        .exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)")
        .await?;
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
         INSERT INTO t SELECT i, 0 FROM n"
    );
    database.exec(fill).await?;
    cluster.settled(Duration::from_secs(10)).await;
    let near = Cluster::client(&cluster.replicas[0]).database("lag");
    Ok((cluster, database, near))
}

fn ms(micros: &Histogram<u64>, quantile: f64) -> f64 {
    micros.value_at_quantile(quantile) as f64 / 1e3
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX)
        .max(1)
}
