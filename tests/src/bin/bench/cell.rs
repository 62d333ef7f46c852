//! Durable updates on cells of several sizes: what it costs that a majority has each on disk.

use std::sync::Arc;
use std::time::Duration;

use tidemark_client::Client;
use tidemark_tests::{Cell, Layout, Node};

use crate::load::{self, Request, post};
use crate::median::median;
use crate::server::{cpu_seconds, node_program, written_bytes};

const ROWS: u64 = 50_000;
/// Figures of a round, in the order of the table's columns.
const FIGURES: usize = 10;

pub(crate) async fn run(
    duration: Duration,
    rounds: usize,
    sizes: &[usize],
    connections: &[u64],
) -> anyhow::Result<()> {
    let mut cells = Vec::new();
    for &voters in sizes {
        let layout = Layout {
            voters,
            replicas: 0,
            relays: false,
        };
        let cell = Cell::of(&node_program()?, layout).await;
        fill(&cell).await?;
        cells.push(cell);
    }

    println!(
        "| voters | connections | updates/s | p50 us | p99 us | CPU us/update: leader | a follower | \
         log fsyncs/update: leader | a follower | log bytes/update: leader | a follower | \
         all file bytes/update: leader | updates/s of the first line |"
    );
    println!("|{}", " --- |".repeat(3 + FIGURES));
    for &connections in connections {
        let mut figures: Vec<Vec<[f64; FIGURES]>> = vec![Vec::new(); cells.len()];
        for _ in 0..rounds {
            // One round of each, in turn, so that a noisy minute touches all alike.
            for (cell, figures) in cells.iter().zip(&mut figures) {
                figures.push(round(cell, connections, duration).await?);
            }
        }
        let first = median(&figures[0], 0);
        for (cell, rounds) in cells.iter().zip(&figures) {
            let of = |figure| median(rounds, figure);
            println!(
                "| {} | {connections} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.3} | {:.3} | {:.0} | {:.0} | {:.0} | {:.2} |",
                cell.voters.len(),
                of(0),
                of(1),
                of(2),
                of(3),
                of(4),
                of(5),
                of(6),
                of(7),
                of(8),
                of(9),
                of(0) / first,
            );
        }
    }
    Ok(())
}

async fn fill(cell: &Cell) -> anyhow::Result<()> {
    let leader = cell.leader().await;
    let client = Client::builder(cell.voters[leader].url()).build()?;
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
    Ok(())
}

/// Updates rows of a cell through its leader.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn round(
    cell: &Cell,
    connections: u64,
    duration: Duration,
) -> anyhow::Result<[f64; FIGURES]> {
    let update: Request = Arc::new(|number| {
        let row = 1 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % ROWS;
        let body = format!(
            r#"{{"sql":"UPDATE item SET value = value + 1 WHERE id = ?","params":[{row}]}}"#
        );
        post(
            "/client/v4/accounts/bench/d1/database/bench/query",
            "",
            &body,
        )
    });
    let leader = cell.leader().await;
    let before = accounts(cell).await?;
    let round = load::run(cell.voters[leader].address(), connections, duration, update).await?;
    let after = accounts(cell).await?;
    anyhow::ensure!(
        cell.leader().await == leader,
        "the leader changed during a round: the figures mean nothing"
    );

    let updates = round.requests as f64;
    let spent =
        |at: usize, what: fn(&Account) -> f64| (what(&after[at]) - what(&before[at])) / updates;
    let of_leader = |what| spent(leader, what);
    let of_a_follower = |what| {
        let followers = (0..cell.voters.len()).filter(|at| *at != leader);
        let sum = followers.fold(0.0, |sum, at| sum + spent(at, what));
        sum / cell.voters.len().saturating_sub(1).max(1) as f64
    };
    let cpu_us: fn(&Account) -> f64 = |account| account.cpu_seconds * 1e6;
    let fsyncs: fn(&Account) -> f64 = |account| account.log_fsyncs;
    let log_bytes: fn(&Account) -> f64 = |account| account.log_bytes;
    Ok([
        updates / round.elapsed.as_secs_f64(),
        round.micros.value_at_quantile(0.5) as f64,
        round.micros.value_at_quantile(0.99) as f64,
        of_leader(cpu_us),
        of_a_follower(cpu_us),
        of_leader(fsyncs),
        of_a_follower(fsyncs),
        of_leader(log_bytes),
        of_a_follower(log_bytes),
        of_leader(|account| account.file_bytes),
    ])
}

/// What a voter has spent since its start.
pub(crate) struct Account {
    cpu_seconds: f64,
    log_fsyncs: f64,
    pub(crate) log_bytes: f64,
    file_bytes: f64,
}

async fn accounts(cell: &Cell) -> anyhow::Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for voter in &cell.voters {
        accounts.push(account(voter).await?);
    }
    Ok(accounts)
}

pub(crate) async fn account(voter: &Node) -> anyhow::Result<Account> {
    let metrics = voter.api().get("/metrics").await?.text;
    let figure = |name: &str| {
        let figure = tidemark_tests::figure(&metrics, name)?;
        figure.ok_or_else(|| anyhow::anyhow!("{} tells no {name}", voter.name()))
    };
    Ok(Account {
        cpu_seconds: cpu_seconds(voter.pid())?,
        log_fsyncs: figure("tidemark_log_fsyncs_total")?,
        log_bytes: figure("tidemark_log_written_bytes_total")?,
        file_bytes: written_bytes(voter.pid())?,
    })
}
