//! Reads and durable writes over HTTP beside the empty handler.

use std::sync::Arc;
use std::time::Duration;

use tidemark_tests::Cluster;

use crate::load::{self, Request, Round, post};
use crate::median::median;
use crate::server::{Empty, cpu_seconds, node_program};

const ROWS: u64 = 50_000;

pub(crate) async fn run(
    duration: Duration,
    rounds: usize,
    connections: &[u64],
    only: &str,
) -> anyhow::Result<()> {
    let empty = Empty::start()?;
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

    let path = "/client/v4/accounts/bench/d1/database/bench/query";
    let row = |number: u64| 1 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % ROWS;
    let read: Request = Arc::new(move |number| {
        let body = format!(
            r#"{{"sql":"SELECT id, value FROM item WHERE id = ?","params":[{}]}}"#,
            row(number)
        );
        post(path, "", &body)
    });
    let range: Request = Arc::new(move |number| {
        let from = row(number).min(ROWS - 100);
        let body = format!(
            r#"{{"sql":"SELECT id, value FROM item WHERE id BETWEEN ? AND ?","params":[{from},{}]}}"#,
            from + 99
        );
        post(path, "", &body)
    });
    let update: Request = Arc::new(move |number| {
        let body = format!(
            r#"{{"sql":"UPDATE item SET value = value + 1 WHERE id = ?","params":[{}]}}"#,
            row(number)
        );
        post(path, "", &body)
    });
    let (node, node_pid) = (cluster.primary.address(), cluster.primary.pid());
    let mut lines = vec![
        ("empty handler", empty.address, empty.pid(), &read),
        ("point read", node, node_pid, &read),
        ("100-row range", node, node_pid, &range),
        ("durable update", node, node_pid, &update),
    ];
    // The empty handler stays: the others are measured against it.
    lines.retain(|(name, ..)| name.contains(only) || *name == "empty handler");

    println!(
        "| workload | connections | requests/s | p50 us | p99 us | server CPU us/request | requests/s of empty handler |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for &connections in connections {
        let mut figures: Vec<Vec<[f64; 4]>> = vec![Vec::new(); lines.len()];
        for _ in 0..rounds {
            // One round of each, in turn, so that a noisy minute touches all alike.
            for (line, (_, address, pid, request)) in lines.iter().enumerate() {
                let cpu = cpu_seconds(*pid)?;
                let round = load::run(*address, connections, duration, (*request).clone()).await?;
                figures[line].push(figures_of(&round, cpu_seconds(*pid)? - cpu));
            }
        }
        let rates: Vec<f64> = figures.iter().map(|rounds| median(rounds, 0)).collect();
        for (line, (name, ..)) in lines.iter().enumerate() {
            let of = |figure| median(&figures[line], figure);
            println!(
                "| {name} | {connections} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} |",
                of(0),
                of(1),
                of(2),
                of(3),
                rates[line] / rates[0]
            );
        }
    }
    Ok(())
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
