//! How fast a replica that was away comes up to the primary.

use std::net::SocketAddr;
use std::num::NonZeroU64;
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

/// What lies between the replica and its primary, and how the stream is compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    /// Megabits per second; 0 for as many as loopback takes.
    pub(crate) megabits: u64,
    /// As `--stream-compression` has it.
    pub(crate) compression: &'a str,
}

/// The same on each way, in one table.
pub(crate) async fn run(
    transactions: &[u64],
    rounds: usize,
    ways: impl Iterator<Item = Way<'_>>,
) -> anyhow::Result<()> {
    println!(
        "| link, Mbit/s | compression | transactions missed | how | ms from the first to the last | transactions/s | bytes sent/transaction | ms from the start of the process | CPU us/transaction: primary | replica |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for way in ways {
        on(way, transactions, rounds).await?;
    }
    Ok(())
}

/// Stops the replica, commits so many transactions, starts it again and looks when it has them.
async fn on(way: Way<'_>, transactions: &[u64], rounds: usize) -> anyhow::Result<()> {
    let mut place = Place::near("WEUR");
    place.link.bytes_per_second = NonZeroU64::new(way.megabits * 1_000_000 / 8);
    let words = ["--stream-compression", way.compression];
    let mut cluster = Cluster::told(&node_program()?, &[place], &words).await;
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
    for &count in transactions {
        for _ in 0..rounds {
            cluster.replicas[0].stop().await;
            write(&cluster, count).await?;
            let there = position(&client).await?;
            let images = figure(&cluster, "images").await?;
            let sent = figure(&cluster, "sent_bytes").await?;
            let cpu = cpu_seconds(cluster.primary.pid())?;
            let started = Instant::now();
            cluster.replicas[0].start();
            let (first, last) = follow(&cluster, there).await?;
            let took = last - first;
            let as_pages = figure(&cluster, "images").await? > images;
            // What arrives as pages is seen all at once.
            let (how, ms, rate) = if as_pages {
                ("pages that differ", "-".to_owned(), "-".to_owned())
            } else {
                let seconds = took.as_secs_f64();
                let rate = count as f64 / seconds;
                (
                    "transactions",
                    format!("{:.0}", seconds * 1e3),
                    format!("{rate:.0}"),
                )
            };
            let primary = (cpu_seconds(cluster.primary.pid())? - cpu) * 1e6 / count as f64;
            let replica = cpu_seconds(cluster.replicas[0].pid())? * 1e6 / count as f64;
            let sent = (figure(&cluster, "sent_bytes").await? - sent) / count as f64;
            let link = match way.megabits {
                0 => "loopback".to_owned(),
                megabits => megabits.to_string(),
            };
            println!(
                "| {link} | {} | {count} | {how} | {ms} | {rate} | {sent:.0} | {:.0} | {primary:.1} | {replica:.1} |",
                way.compression,
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

/// One of the primary's figures about replicas.
async fn figure(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let api = cluster.primary.api();
    let figure = api
        .metric(&format!("tidemark_primary_{name}_total"))
        .await?;
    Ok(figure.unwrap_or(0.0))
}
