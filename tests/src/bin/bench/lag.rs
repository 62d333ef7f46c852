//! How late a replica is, and what a node costs to start and to keep.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidemark_client::SessionStart;
use tidemark_tests::{Cluster, Place};

use crate::server::{node_program, resident_mib};

pub(crate) async fn run(writes: usize, delay: Duration, pause: Duration) -> anyhow::Result<()> {
    let places = [Place::at("WEUR", delay), Place::near("APAC")];
    let cluster = Cluster::start(&node_program()?, &places).await;
    let primary = Cluster::client(&cluster.primary);
    primary.create_database("lag").await?;
    let database = primary.database("lag");
    database
        .exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)")
        .await?;
    database.exec("INSERT INTO t VALUES (1, 0)").await?;
    cluster.settled(Duration::from_secs(10)).await;

    println!(
        "| replica | one-way delay ms | writes | lag beyond the delay: p50 ms | p99 ms | max ms | a local read p50 ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (replica, place) in cluster.replicas.iter().zip(places) {
        let near = Cluster::client(replica).database("lag");
        let mut local = Histogram::<u64>::new(3)?;
        let idle = near.session(SessionStart::Unconstrained);
        for _ in 0..200 {
            let start = Instant::now();
            idle.prepare("SELECT v FROM t WHERE id = 1").raw().await?;
            local.record(micros(start.elapsed()))?;
        }
        let mut lags = Histogram::<u64>::new(3)?;
        let writer = database.session(SessionStart::Primary);
        for _ in 0..writes {
            writer
                .prepare("UPDATE t SET v = v + 1 WHERE id = 1")
                .run()
                .await?;
            let committed = Instant::now();
            let mark = writer.bookmark().expect("a write gives a bookmark");
            // Answers as soon as the replica has it: the wait is inside.
            near.session(SessionStart::Bookmark(mark))
                .prepare("SELECT v FROM t WHERE id = 1")
                .raw()
                .await?;
            lags.record(micros(committed.elapsed().saturating_sub(place.link.delay)))?;
            tokio::time::sleep(pause).await;
        }
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        println!(
            "| {} | {} | {writes} | {:.2} | {:.2} | {:.2} | {:.2} |",
            place.region,
            place.link.delay.as_millis(),
            ms(lags.value_at_quantile(0.5)),
            ms(lags.value_at_quantile(0.99)),
            ms(lags.max()),
            ms(local.value_at_quantile(0.5)),
        );
    }
    Ok(())
}

pub(crate) async fn footprint() -> anyhow::Result<()> {
    let start = Instant::now();
    let mut cluster = Cluster::start(&node_program()?, &[]).await;
    let first = start.elapsed();
    let empty = resident_mib(cluster.primary.pid())?;
    let client = Cluster::client(&cluster.primary);
    const DATABASES: u32 = 100;
    for number in 0..DATABASES {
        let name = format!("db{number}");
        client.create_database(&name).await?;
        client
            .database(&name)
            .exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
            .await?;
        client
            .database(&name)
            .exec("INSERT INTO t(v) VALUES ('one'), ('two')")
            .await?;
    }
    let loaded = resident_mib(cluster.primary.pid())?;
    cluster.primary.kill();
    let start = Instant::now();
    cluster.primary.start();
    cluster.primary.ready().await;
    let again = start.elapsed();
    println!("| what | figure |");
    println!("| --- | --- |");
    println!(
        "| start of a new primary until ready | {:.0} ms |",
        first.as_secs_f64() * 1e3
    );
    println!(
        "| start after kill -9 with {DATABASES} databases until ready | {:.0} ms |",
        again.as_secs_f64() * 1e3
    );
    println!("| resident memory, new primary | {empty:.1} MiB |");
    println!(
        "| resident memory per open database (of {DATABASES}) | {:.0} KiB |",
        (loaded - empty) * 1024.0 / f64::from(DATABASES)
    );
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX)
        .max(1)
}
