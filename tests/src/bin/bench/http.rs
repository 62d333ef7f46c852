//! Reads and durable writes over HTTP, each beside what bounds it: a handler that returns bytes from memory, and
//! appends to the same disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemark_tests::Cluster;

use crate::append;
use crate::cell::account;
use crate::empty::ANSWER;
use crate::load::{self, Request, Round, post};
use crate::median::median;
use crate::server::{Empty, cpu_seconds, node_program};

const ROWS: u64 = 50_000;
const PATH: &str = "/client/v4/accounts/bench/d1/database/bench/query";

pub(crate) async fn run(
    duration: Duration,
    rounds: usize,
    connections: &[u64],
    only: &str,
) -> anyhow::Result<()> {
    let cluster = Cluster::start(&node_program()?, &[]).await;
    let client = Cluster::client(&cluster.primary);
    client.create_database("bench").await?;
    let database = client.database("bench");
    database
        .exec("CREATE TABLE item(id INTEGER PRIMARY KEY, value INTEGER NOT NULL, note TEXT)")
        .await?;
    database
        .exec(format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
             INSERT INTO item SELECT i, i * 7, 'a note of some length on item ' || i FROM n"
        ))
        .await?;

    let row = |number: u64| 1 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % ROWS;
    let read: Request = Arc::new(move |number| {
        let body = format!(
            r#"{{"sql":"SELECT id, value FROM item WHERE id = ?","params":[{}]}}"#,
            row(number)
        );
        post(PATH, "", &body)
    });
    let range: Request = Arc::new(move |number| {
        let from = row(number).min(ROWS - 100);
        let body = format!(
            r#"{{"sql":"SELECT id, value FROM item WHERE id BETWEEN ? AND ?","params":[{from},{}]}}"#,
            from + 99
        );
        post(PATH, "", &body)
    });
    let update: Request = Arc::new(move |number| {
        let body = format!(
            r#"{{"sql":"UPDATE item SET value = value + 1 WHERE id = ?","params":[{}]}}"#,
            row(number)
        );
        post(PATH, "", &body)
    });
    let (node, node_pid) = (cluster.primary.address(), cluster.primary.pid());
    let empty = Empty::start(ANSWER.as_bytes())?;
    let same_bytes = Empty::start(&answer(node, &range).await?)?;
    let http = |address, pid, request: &Request| Load::Http {
        address,
        pid,
        request: request.clone(),
    };
    let appends = Load::Append {
        directory: cluster.primary.data(),
        bytes: log_bytes_per_update(&cluster, &update).await?,
    };
    let mut lines = vec![
        Line::new(
            "empty handler",
            None,
            http(empty.address, empty.pid(), &read),
        ),
        Line::new(
            "point read",
            Some("empty handler"),
            http(node, node_pid, &read),
        ),
        Line::new(
            "the range's bytes",
            None,
            http(same_bytes.address, same_bytes.pid(), &range),
        ),
        Line::new(
            "100-row range",
            Some("the range's bytes"),
            http(node, node_pid, &range),
        ),
        Line::new("raw append", None, appends),
        Line::new(
            "durable update",
            Some("raw append"),
            http(node, node_pid, &update),
        ),
    ];
    // What the others are measured against stays.
    let wanted = |line: &Line| line.name.contains(only);
    let kept: Vec<_> = lines
        .iter()
        .filter(|line| wanted(line))
        .flat_map(|line| [Some(line.name), line.beside])
        .collect();
    lines.retain(|line| kept.contains(&Some(line.name)));

    println!(
        "| workload | connections | requests/s | p50 us | p99 us | server CPU us/request | beside | requests/s of that | CPU of that |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for &connections in connections {
        let mut figures: Vec<Vec<[f64; 4]>> = vec![Vec::new(); lines.len()];
        for _ in 0..rounds {
            // One round of each, in turn, so that a noisy minute touches all alike.
            for (line, figures) in lines.iter().zip(&mut figures) {
                figures.push(line.load.round(connections, duration).await?);
            }
        }
        for (line, rounds) in lines.iter().zip(&figures) {
            let of = |figure| median(rounds, figure);
            print!(
                "| {} | {connections} | {:.0} | {:.0} | {:.0} | {:.1} |",
                line.name,
                of(0),
                of(1),
                of(2),
                of(3),
            );
            let beside = lines.iter().position(|of| Some(of.name) == line.beside);
            if let Some(beside) = beside {
                let ratio = |figure| of(figure) / median(&figures[beside], figure);
                println!(
                    " {} | {:.2} | {:.2} |",
                    lines[beside].name,
                    ratio(0),
                    ratio(3)
                );
            } else {
                println!(" | | |");
            }
        }
    }
    Ok(())
}

/// A row of the table for each number of connections.
struct Line {
    name: &'static str,
    /// The line that bounds it.
    beside: Option<&'static str>,
    load: Load,
}

impl Line {
    fn new(name: &'static str, beside: Option<&'static str>, load: Load) -> Self {
        Self { name, beside, load }
    }
}

/// What a round does.
enum Load {
    Http {
        address: SocketAddr,
        pid: u32,
        request: Request,
    },
    /// Writers in this process, whose CPU is the generator's as well.
    Append { directory: PathBuf, bytes: usize },
}

impl Load {
    async fn round(&self, connections: u64, duration: Duration) -> anyhow::Result<[f64; 4]> {
        let pid = match self {
            Self::Http { pid, .. } => *pid,
            Self::Append { .. } => std::process::id(),
        };
        let cpu = cpu_seconds(pid)?;
        let round = match self {
            Self::Http {
                address, request, ..
            } => load::run(*address, connections, duration, request.clone()).await?,
            Self::Append { directory, bytes } => {
                append::run(directory.clone(), *bytes, connections, duration).await?
            }
        };
        Ok(figures_of(&round, cpu_seconds(pid)? - cpu))
    }
}

/// What the node answers to such a request, of which all answers are about as long.
async fn answer(node: SocketAddr, request: &Request) -> anyhow::Result<Vec<u8>> {
    let request = request(ROWS / 2);
    let body = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = request[body.unwrap_or(0) + 4..].to_vec();
    let url = format!("http://{node}{PATH}");
    let sent = reqwest::Client::new().post(url).body(body).send().await?;
    Ok(sent.error_for_status()?.bytes().await?.to_vec())
}

/// What the log writes per update when many share an fsync.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few thousand"
)]
async fn log_bytes_per_update(cluster: &Cluster, update: &Request) -> anyhow::Result<usize> {
    const CONNECTIONS: u64 = 64;
    const DURATION: Duration = Duration::from_millis(300);
    let before = account(&cluster.primary).await?;
    let address = cluster.primary.address();
    let round = load::run(address, CONNECTIONS, DURATION, update.clone()).await?;
    let after = account(&cluster.primary).await?;
    let bytes = (after.log_bytes - before.log_bytes) / round.requests as f64;
    println!("The log writes {bytes:.0} bytes per update; a raw append has as many.\n");
    Ok(bytes.round() as usize)
}

/// Requests per second, p50 and p99 in microseconds, CPU microseconds per request.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures_of(round: &Round, cpu_seconds: f64) -> [f64; 4] {
    let requests = round.requests as f64;
    [
        requests / round.elapsed.as_secs_f64(),
        round.micros.value_at_quantile(0.5) as f64,
        round.micros.value_at_quantile(0.99) as f64,
        cpu_seconds * 1e6 / requests,
    ]
}
