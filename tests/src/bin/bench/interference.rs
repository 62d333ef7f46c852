//! Point reads while the same node has much else to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_client::Client;
use tidemark_tests::{Cluster, Place};
use tokio::task::JoinHandle;

use crate::agreed::agreed;
use crate::load::{Request, Round, post};
use crate::rate;
use crate::server::{cpu_seconds, node_program};

const ROWS: u64 = 50_000;
/// Connections that read.
const READERS: u32 = 16;
/// Bytes of one import's rows. A transaction has at most 256 MiB.
const IMPORT_BYTES: u64 = 100 << 20;
/// How long it is looked whether the replica has everything.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a row of an import.
const ROW_BYTES: u64 = 1000;

/// What runs beside the reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beside {
    Nothing,
    Checkpoints,
    Import,
    Bootstrap,
    All,
}

pub(crate) async fn run(per_second: u32, duration: Duration, import_mb: u64) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&node_program()?, &[Place::near("WEUR")]).await;
    let client = Cluster::client(&cluster.primary);
    client.create_database("quick").await?;
    let database = client.database("quick");
    database
        .exec("CREATE TABLE item(id INTEGER PRIMARY KEY, value INTEGER NOT NULL, note TEXT)")
        .await?;
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
         INSERT INTO item SELECT i, i * 7, 'a note of some length on item ' || i FROM n"
    );
    database.exec(fill).await?;
    let request: Request = Arc::new(|number: u64| {
        let row = 1 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % ROWS;
        let sql = "SELECT id, value FROM item WHERE id = ?";
        let body = format!(r#"{{"sql":"{sql}","params":[{row}]}}"#);
        post(
            "/client/v4/accounts/bench/d1/database/quick/query",
            "",
            &body,
        )
    });
    println!(
        "| beside point reads at {per_second}/s | s | reads | p50 us | p99 us | p99.9 us | max us | p99 in p50s | primary's CPU, cores |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for beside in [
        Beside::Nothing,
        Beside::Checkpoints,
        Beside::Import,
        Beside::Bootstrap,
        Beside::All,
    ] {
        let cpu = cpu_seconds(cluster.primary.pid())?;
        let (mut round, mut note) = (None, String::new());
        let address = cluster.primary.address();
        let mut work: Vec<JoinHandle<anyhow::Result<()>>> = Vec::new();
        if matches!(beside, Beside::Checkpoints | Beside::All) {
            work.push(tokio::spawn(updates(client.clone())));
        }
        if matches!(beside, Beside::Bootstrap | Beside::All) {
            // Of everything there is: with what was imported.
            cluster.replicas[0].stop().await;
            cluster.replicas[0].lose_disk();
            cluster.replicas[0].start();
        }
        let started = Instant::now();
        let import = matches!(beside, Beside::Import | Beside::All).then(|| {
            let name = format!("import_{beside:?}").to_lowercase();
            tokio::spawn(import(client.clone(), name, import_mb << 20))
        });
        // As long as the longest of them takes.
        loop {
            let part = rate::run(address, READERS, per_second, duration, request.clone()).await?;
            add(&mut round, part);
            let busy = import.as_ref().is_some_and(|import| !import.is_finished());
            let behind = matches!(beside, Beside::Bootstrap | Beside::All)
                && agreed(&cluster, 10_000, LOOK).await.is_err();
            if !busy && !behind {
                break;
            }
        }
        if let Some(import) = import {
            let took = import.await??;
            note = format!(", {import_mb} MiB imported in {:.0} s", took.as_secs_f64());
        }
        for work in work {
            work.abort();
        }
        let elapsed = started.elapsed().as_secs_f64();
        let cores = (cpu_seconds(cluster.primary.pid())? - cpu) / elapsed;
        let micros = round.expect("one at least").micros;
        let at = |quantile| micros.value_at_quantile(quantile);
        println!(
            "| {}{note} | {elapsed:.0} | {} | {} | {} | {} | {} | {:.1} | {cores:.2} |",
            match beside {
                Beside::Nothing => "nothing",
                Beside::Checkpoints => "updates and checkpoints of the same database",
                Beside::Import => "an import into another database",
                Beside::Bootstrap => "a replica that begins with nothing",
                Beside::All => "all of these",
            },
            micros.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            at(0.99) as f64 / at(0.5) as f64,
        );
    }
    Ok(())
}

fn add(round: &mut Option<Round>, part: Round) {
    match round {
        None => *round = Some(part),
        Some(round) => round.micros.add(part.micros).expect("of one kind"),
    }
}

/// Updates that make the database's WAL grow, as many as it takes.
async fn updates(client: Client) -> anyhow::Result<()> {
    let database = client.database("quick");
    for n in 0.. {
        let from = n * 1000 % ROWS;
        let sql = format!(
            "UPDATE item SET value = value + 1 WHERE id BETWEEN {from} AND {}",
            from + 999
        );
        database.prepare(sql).run().await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Writes so many bytes of rows into a new database, in transactions of [`IMPORT_BYTES`].
async fn import(client: Client, name: String, bytes: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    client.create_database(&name).await?;
    let database = client.database(&name);
    database
        .exec("CREATE TABLE bulk(id INTEGER PRIMARY KEY, content BLOB NOT NULL)")
        .await?;
    for _ in 0..bytes.div_ceil(IMPORT_BYTES) {
        let rows = IMPORT_BYTES / ROW_BYTES;
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             INSERT INTO bulk(content) SELECT randomblob({ROW_BYTES}) FROM n"
        );
        database.exec(sql).deadline(Duration::from_secs(60)).await?;
    }
    Ok(start.elapsed())
}
