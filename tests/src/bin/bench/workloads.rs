//! Work of other kinds than single reads and updates: batches, large rows, many databases, sessions at a replica, and a
//! leader that dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tidemark_client::{Client, Database, SessionStart};
use tidemark_tests::{Cell, Cluster, Layout, Place};

use crate::load::{self, Request, post};
use crate::median::median;
use crate::server::{cpu_seconds, node_program};

const ROWS: u64 = 50_000;
/// Bytes of a large value.
const LARGE_BYTES: usize = 64 << 10;
/// Large rows to read from.
const LARGE_ROWS: u64 = 200;
/// Databases of the line with many of them.
const DATABASES: u64 = 1000;
/// One in so many requests of a session writes.
const ONE_WRITES: u64 = 20;
/// Rows that sessions read and write.
const SESSION_ROWS: u64 = 1000;

/// Closed-loop load of one voter.
pub(crate) async fn run(duration: Duration, rounds: usize, connections: u64) -> anyhow::Result<()> {
    let cluster = Cluster::start(&node_program()?, &[]).await;
    let client = Cluster::client(&cluster.primary);
    fill(&client, "bench").await?;
    for n in 0..DATABASES {
        let name = format!("db{n}");
        client.create_database(&name).await?;
        let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO t VALUES (1, 0)";
        client.database(name).exec(sql).await?;
    }
    let lines: [(&str, Request); 6] = [
        ("ten inserts in a batch", Arc::new(|_| batch())),
        (
            "insert of a row of 64 KiB",
            Arc::new(|_| {
                query(
                    "bench",
                    "INSERT INTO large(content) VALUES (zeroblob(65536))",
                    "",
                )
            }),
        ),
        (
            "read of a row of 64 KiB of text",
            Arc::new(|n| {
                let id = 1 + mixed(n) % LARGE_ROWS;
                query(
                    "bench",
                    "SELECT content FROM text WHERE id = ?",
                    &id.to_string(),
                )
            }),
        ),
        (
            "read, one of a thousand databases",
            Arc::new(|n| {
                let name = format!("db{}", mixed(n) % DATABASES);
                query(&name, "SELECT v FROM t WHERE id = ?", "1")
            }),
        ),
        (
            "durable update, one of a thousand databases",
            Arc::new(|n| {
                let name = format!("db{}", mixed(n) % DATABASES);
                query(&name, "UPDATE t SET v = v + 1 WHERE id = ?", "1")
            }),
        ),
        (
            "19 reads, then an update",
            Arc::new(|n| {
                let row = (1 + mixed(n) % ROWS).to_string();
                if n % ONE_WRITES == 0 {
                    return query(
                        "bench",
                        "UPDATE item SET value = value + 1 WHERE id = ?",
                        &row,
                    );
                }
                query("bench", "SELECT id, value FROM item WHERE id = ?", &row)
            }),
        ),
    ];
    println!("| workload | connections | requests/s | p50 us | p99 us | server CPU us/request |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let (address, pid) = (cluster.primary.address(), cluster.primary.pid());
    let mut figures: Vec<Vec<[f64; 4]>> = vec![Vec::new(); lines.len()];
    for _ in 0..rounds {
        for ((_, request), figures) in lines.iter().zip(&mut figures) {
            let cpu = cpu_seconds(pid)?;
            let round = load::run(address, connections, duration, request.clone()).await?;
            let requests = round.requests as f64;
            figures.push([
                requests / round.elapsed.as_secs_f64(),
                round.micros.value_at_quantile(0.5) as f64,
                round.micros.value_at_quantile(0.99) as f64,
                (cpu_seconds(pid)? - cpu) * 1e6 / requests,
            ]);
        }
    }
    for ((name, _), rounds) in lines.iter().zip(&figures) {
        let of = |figure| median(rounds, figure);
        println!(
            "| {name} | {connections} | {:.0} | {:.0} | {:.0} | {:.1} |",
            of(0),
            of(1),
            of(2),
            of(3)
        );
    }
    Ok(())
}

async fn fill(client: &Client, name: &str) -> anyhow::Result<()> {
    client.create_database(name).await?;
    let database = client.database(name);
    database
        .exec(
            "CREATE TABLE item(id INTEGER PRIMARY KEY, value INTEGER NOT NULL, note TEXT);\n\
             CREATE TABLE large(id INTEGER PRIMARY KEY, content BLOB);\n\
             CREATE TABLE text(id INTEGER PRIMARY KEY, content TEXT);",
        )
        .await?;
    let count = |rows: u64| {
        format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})")
    };
    let note = "SELECT i, i * 7, 'a note of some length on item ' || i FROM n";
    let sql = format!("{} INSERT INTO item {note}", count(ROWS));
    database.exec(sql).await?;
    let text = format!("SELECT i, hex(randomblob({})) FROM n", LARGE_BYTES / 2);
    let sql = format!("{} INSERT INTO text {text}", count(LARGE_ROWS));
    database.exec(sql).await?;
    Ok(())
}

/// Spreads what is counted up.
fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
}

fn path(database: &str) -> String {
    format!("/client/v4/accounts/bench/d1/database/{database}/query")
}

fn query(database: &str, sql: &str, params: &str) -> Vec<u8> {
    let body = format!(r#"{{"sql":"{sql}","params":[{params}]}}"#);
    post(&path(database), "", &body)
}

fn batch() -> Vec<u8> {
    let one = r#"{"sql":"INSERT INTO item(value, note) VALUES (?, ?)","params":[7,"a note of some length"]}"#;
    let body = format!(r#"{{"batch":[{}]}}"#, [one; 10].join(","));
    post(&path("bench"), "", &body)
}

/// Sessions that read and write through a replica, 95 to 5.
pub(crate) async fn sessions(
    duration: Duration,
    delay: Duration,
    count: u64,
) -> anyhow::Result<()> {
    let cluster = Cluster::start(&node_program()?, &[Place::at("WEUR", delay)]).await;
    let client = Cluster::client(&cluster.primary);
    fill(&client, "bench").await?;
    cluster.settled(Duration::from_secs(30)).await;
    let near = Cluster::client(&cluster.replicas[0]).database("bench");
    let cpu = cpu_seconds(cluster.replicas[0].pid())?;
    let until = Instant::now() + duration;
    let sessions: Vec<_> = (0..count)
        .map(|session| tokio::spawn(one_session(near.clone(), session, until)))
        .collect();
    let (mut reads, mut writes) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    for session in sessions {
        let (read, written) = session.await??;
        reads.add(read)?;
        writes.add(written)?;
    }
    let requests = (reads.len() + writes.len()) as f64;
    let cpu = (cpu_seconds(cluster.replicas[0].pid())? - cpu) * 1e6 / requests;
    println!(
        "| one-way delay ms | sessions | requests/s | read p50 us | p99 us | write p50 us | p99 us | replica's CPU us/request |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    println!(
        "| {} | {count} | {:.0} | {} | {} | {} | {} | {cpu:.1} |",
        delay.as_millis(),
        requests / duration.as_secs_f64(),
        reads.value_at_quantile(0.5),
        reads.value_at_quantile(0.99),
        writes.value_at_quantile(0.5),
        writes.value_at_quantile(0.99),
    );
    Ok(())
}

async fn one_session(
    near: Database,
    number: u64,
    until: Instant,
) -> anyhow::Result<(Histogram<u64>, Histogram<u64>)> {
    let (mut reads, mut writes) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let session = near.session(SessionStart::Unconstrained);
    for n in number.. {
        if Instant::now() >= until {
            break;
        }
        let row = i64::try_from(1 + mixed(n) % SESSION_ROWS)?;
        let start = Instant::now();
        let to = if n % ONE_WRITES == 0 {
            let update = session.prepare("UPDATE item SET value = value + 1 WHERE id = ?");
            update.bind(row).run().await?;
            &mut writes
        } else {
            let read = session.prepare("SELECT id, value FROM item WHERE id = ?");
            read.bind(row).raw().await?;
            &mut reads
        };
        to.record(u64::try_from(start.elapsed().as_micros())?.max(1))?;
    }
    Ok((reads, writes))
}

/// Leaders of a cell of three that are killed, one after the other, while clients write.
pub(crate) async fn failover(times: usize) -> anyhow::Result<()> {
    let layout = Layout {
        voters: 3,
        replicas: 0,
        relays: false,
    };
    let mut cell = Cell::of(&node_program()?, layout).await;
    let leader = cell.leader().await;
    let client = cell.client(leader);
    fill(&client, "bench").await?;
    let mut gaps = Histogram::<u64>::new(3)?;
    for _ in 0..times {
        let leader = cell.leader().await;
        let newest = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let survivor = (leader + 1) % 3;
        let writer = tokio::spawn(keep_writing(
            cell.client(survivor),
            began,
            Arc::clone(&newest),
        ));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let killed = u64::try_from(began.elapsed().as_micros())?;
        cell.voters[leader].kill();
        // The first that was acknowledged after the kill was sent before it, or is the successor's.
        let limit = Instant::now() + Duration::from_secs(30);
        let mut last = newest.load(Ordering::Relaxed);
        while Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = newest.load(Ordering::Relaxed);
            if now > killed && now - last > 100_000 {
                gaps.record(now - last)?;
                break;
            }
            last = now;
        }
        writer.abort();
        cell.voters[leader].start();
        cell.voters[leader].ready().await;
    }
    println!(
        "| leaders killed | from the last acknowledgement to the successor's first: p50 ms | max ms |"
    );
    println!("| --- | --- | --- |");
    println!(
        "| {} | {} | {} |",
        gaps.len(),
        gaps.value_at_quantile(0.5) / 1000,
        gaps.max() / 1000
    );
    Ok(())
}

/// Writes time and again, and notes when it was last told that it had.
async fn keep_writing(client: Client, began: Instant, newest: Arc<AtomicU64>) {
    let database = client.database("bench");
    loop {
        let update = database.prepare("UPDATE item SET value = value + 1 WHERE id = 1");
        if update.run().await.is_ok() {
            let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            newest.store(now, Ordering::Relaxed);
        }
    }
}
