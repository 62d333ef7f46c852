//! How fast a replica that was away comes up to the primary.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_client::Client;
use tidemark_protocol::Position;
use tidemark_tests::{Cluster, Place};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::load::{Request, post, read_answer};
use crate::server::{cpu_seconds, node_program};

/// Rows that are updated in turn: a thousand pages.
const ROWS: u64 = 50_000;
/// Connections that write while the replica is away.
const WRITERS: u64 = 64;
/// Longest that a replica may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often it is looked where the replica stands.
const LOOK: Duration = Duration::from_millis(2);

/// Kills the replica, commits so many transactions, starts it again and looks when it has them.
pub(crate) async fn run(transactions: &[u64], rounds: usize, words: &[&str]) -> anyhow::Result<()> {
    let places = [Place::near("WEUR")];
    let mut cluster = Cluster::told(&node_program()?, &places, words).await;
    let client = Cluster::client(&cluster.primary);
    client.create_database("behind").await?;
    let database = client.database("behind");
    database
        .exec("CREATE TABLE item(id INTEGER PRIMARY KEY, value INTEGER NOT NULL, note TEXT)")
        .await?;
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
         INSERT INTO item SELECT i, i * 7, 'a note of some length on item ' || i FROM n"
    );
    database.exec(fill).await?;
    cluster.settled(Duration::from_secs(30)).await;
    println!(
        "| transactions missed | how | ms from the first to the last | transactions/s | ms from the start of the process | CPU us/transaction: primary | replica |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for &count in transactions {
        for _ in 0..rounds {
            cluster.replicas[0].stop().await;
            write(&cluster, count).await?;
            let there = position(&client).await?;
            let images = images(&cluster).await?;
            let cpu = cpu_seconds(cluster.primary.pid())?;
            let started = Instant::now();
            cluster.replicas[0].start();
            let (first, last) = follow(&cluster, there).await?;
            let took = last - first;
            // All at once: what arrives as pages is seen as one.
            let (ms, rate) = if took.is_zero() {
                ("-".to_owned(), "-".to_owned())
            } else {
                let seconds = took.as_secs_f64();
                let rate = count as f64 / seconds;
                (format!("{:.0}", seconds * 1e3), format!("{rate:.0}"))
            };
            let primary = (cpu_seconds(cluster.primary.pid())? - cpu) * 1e6 / count as f64;
            let replica = cpu_seconds(cluster.replicas[0].pid())? * 1e6 / count as f64;
            let how = if self::images(&cluster).await? > images {
                "pages that differ"
            } else {
                "transactions"
            };
            println!(
                "| {count} | {how} | {ms} | {rate} | {:.0} | {primary:.1} | {replica:.1} |",
                (last - started).as_secs_f64() * 1e3,
            );
        }
    }
    Ok(())
}

/// Commits so many transactions of one row each.
async fn write(cluster: &Cluster, count: u64) -> anyhow::Result<()> {
    let each = count / WRITERS;
    let update: Request = Arc::new(|number: u64| {
        let row = 1 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % ROWS;
        let sql = "UPDATE item SET value = value + 1 WHERE id = ?";
        let body = format!(r#"{{"sql":"{sql}","params":[{row}]}}"#);
        post(
            "/client/v4/accounts/bench/d1/database/behind/query",
            "",
            &body,
        )
    });
    let address = cluster.primary.address();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(send(address, update.clone(), (writer << 32, each))))
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

async fn send(
    address: SocketAddr,
    request: Request,
    (first, count): (u64, u64),
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    for number in first..first + count {
        stream.write_all(&request(number)).await?;
        read_answer(&mut stream, &mut buffer).await?;
    }
    Ok(())
}

async fn position(client: &Client) -> anyhow::Result<Position> {
    let status = client.node_status().await?;
    let one = status.databases.iter().find(|one| one.name == "behind");
    Ok(one.expect("the database is there").position)
}

/// When the replica was seen to have moved, and when it had everything.
async fn follow(cluster: &Cluster, there: Position) -> anyhow::Result<(Instant, Instant)> {
    let replica = Cluster::client(&cluster.replicas[0]);
    let until = Instant::now() + DEADLINE;
    let mut first: Option<(Instant, Position)> = None;
    while Instant::now() < until {
        if let Ok(at) = position(&replica).await {
            let now = Instant::now();
            let (since, from) = *first.get_or_insert((now, at));
            if at == there {
                return Ok((since, now));
            }
            if at == from {
                // Not connected yet.
                first = Some((now, at));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    anyhow::bail!("the replica is not there after {DEADLINE:?}")
}

/// Images that the primary has begun to send.
async fn images(cluster: &Cluster) -> anyhow::Result<f64> {
    let api = cluster.primary.api();
    let images = api.metric("tidemark_primary_images_total").await?;
    Ok(images.unwrap_or(0.0))
}
