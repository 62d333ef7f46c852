//! Many databases on a primary and a replica, few of them in use.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use tidemark_client::Client;
use tidemark_tests::{Api, Cluster, Node, Place};

use crate::agreed::agreed;
use crate::server::{cpu_seconds, node_program, resident_mib};

/// Requests at a time while databases are made and filled.
const AT_ONCE: usize = 16;
/// Longer than a node takes to close what nobody uses: see `idle-wait`.
const CLOSED_WAIT: Duration = Duration::from_secs(40);
/// How long it is looked what a node does that has nothing to do.
const IDLE_MEASURED: Duration = Duration::from_secs(5);
/// Longest that a replica may take.
const SETTLED_WAIT: Duration = Duration::from_secs(300);
/// Clients that keep the active databases active.
const READERS: usize = 8;

pub(crate) async fn run(
    databases: usize,
    active: usize,
    cold: usize,
    with_replica: bool,
) -> anyhow::Result<()> {
    anyhow::ensure!(active + cold <= databases, "not so many databases");
    let places = [Place::near("WEUR")];
    let places = if with_replica { &places[..] } else { &[] };
    let mut cluster = Cluster::start(&node_program()?, places).await;
    let client = Cluster::client(&cluster.primary);
    println!("| what | figure |");
    println!("| --- | --- |");
    let empty = Footprint::of(&cluster.primary, "a new primary", 0)?;

    let created = each(0..databases, async |n| {
        client.create_database(&name(n)).await.map(drop)
    })
    .await?;
    let rate = databases as f64 / created.as_secs_f64();
    println!("| databases created, {AT_ONCE} requests at a time | {rate:.0}/s |");
    let filled = each(0..databases, async |n| {
        let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t(v) VALUES ('one'), ('two')";
        client.database(name(n)).exec(sql).await.map(drop)
    })
    .await?;
    let rate = databases as f64 / filled.as_secs_f64();
    println!("| first transactions in as many databases | {rate:.0}/s |");
    Footprint::of(&cluster.primary, "the primary right after that", 0)?;
    tokio::time::sleep(CLOSED_WAIT).await;
    Footprint::of(&cluster.primary, "the primary once all are idle", databases)?.beyond(&empty);
    let idle_cpu = cpu_seconds(cluster.primary.pid())?;
    tokio::time::sleep(IDLE_MEASURED).await;
    let idle_cpu = cpu_seconds(cluster.primary.pid())? - idle_cpu;
    let share = idle_cpu * 100.0 / IDLE_MEASURED.as_secs_f64();
    println!("| CPU of the idle primary | {share:.1} % of a core |");

    cluster.primary.kill();
    let start = started(&mut cluster.primary).await;
    println!("| start after kill -9, the log has all of that | {start:.0} ms |");
    cluster.primary.stop().await;
    let start = started(&mut cluster.primary).await;
    println!("| start after a stop | {start:.0} ms |");
    Footprint::of(&cluster.primary, "the primary then", databases)?.beyond(&empty);

    let mut lists = Histogram::<u64>::new(3)?;
    for _ in 0..20 {
        timed(&mut lists, client.list_databases()).await?;
    }
    println!("| all databases listed, page by page | {} |", shown(&lists));
    let mut scrapes = Histogram::<u64>::new(3)?;
    let api = Api::new(&cluster.primary.url());
    let mut bytes = 0;
    for _ in 0..20 {
        let start = Instant::now();
        bytes = api.get("/metrics").await?.text.len();
        scrapes.record(u64::try_from(start.elapsed().as_micros())?.max(1))?;
    }
    println!("| metrics, {} KiB | {} |", bytes >> 10, shown(&scrapes));

    let about = format!("at the primary, {active} others active");
    ask(&cluster.primary, databases, active, cold, &about).await?;
    if with_replica {
        let took = Instant::now();
        agreed(&cluster, 0, SETTLED_WAIT).await?;
        println!(
            "| until the replica has all, once the primary was up again | {:.1} s |",
            took.elapsed().as_secs_f64()
        );
        let replica = &mut cluster.replicas[0];
        tokio::time::sleep(CLOSED_WAIT).await;
        Footprint::of(replica, "the replica once all are idle", databases)?.beyond(&empty);
        replica.kill();
        let start = started(replica).await;
        println!("| start of the replica after kill -9 | {start:.0} ms |");
        let took = Instant::now();
        agreed(&cluster, 0, SETTLED_WAIT).await?;
        println!(
            "| until it has told where all are | {:.1} s |",
            took.elapsed().as_secs_f64()
        );
        let replica = &cluster.replicas[0];
        Footprint::of(replica, "the replica then", databases)?.beyond(&empty);
        let about = format!("at the replica, {active} others active");
        ask(replica, databases, active, cold, &about).await?;
    }
    Ok(())
}

/// First queries of databases that nobody has asked for, while others are in use.
async fn ask(
    node: &Node,
    databases: usize,
    active: usize,
    cold: usize,
    about: &str,
) -> anyhow::Result<()> {
    let client = Cluster::client(node);
    each(0..active, async |n| read(&client, n).await).await?;
    Footprint::of(node, "with the active ones open", 0)?;
    let (mut warm, mut first) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in (reader..active).step_by(READERS).cycle() {
                    read(&client, n).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            })
        })
        .collect();
    // From the end: nobody has asked for those.
    for n in (databases - cold..databases).rev() {
        timed(&mut first, read(&client, n)).await?;
        timed(&mut warm, read(&client, n)).await?;
    }
    readers.iter().for_each(|reader| reader.abort());
    println!(
        "| first query of a cold database {about} | {} |",
        shown(&first)
    );
    println!("| second query of it | {} |", shown(&warm));
    Ok(())
}

/// What a process takes.
struct Footprint {
    resident_mib: f64,
    databases: usize,
    what: String,
}

impl Footprint {
    /// Measures and shows it.
    fn of(node: &Node, what: &str, databases: usize) -> anyhow::Result<Self> {
        let pid = node.pid();
        let resident_mib = resident_mib(pid)?;
        let handles = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        println!("| {what} | {resident_mib:.1} MiB resident, {handles} file handles |");
        Ok(Self {
            resident_mib,
            databases,
            what: what.to_owned(),
        })
    }

    /// Shows what each database takes beyond what the node took without.
    fn beyond(&self, empty: &Self) {
        let each = (self.resident_mib - empty.resident_mib) * 1024.0 / self.databases as f64;
        println!("| {}, per database | {each:.1} KiB |", self.what);
    }
}

/// Milliseconds until it is ready.
async fn started(node: &mut Node) -> f64 {
    let start = Instant::now();
    node.start();
    node.ready().await;
    start.elapsed().as_secs_f64() * 1e3
}

fn name(n: usize) -> String {
    format!("db{n}")
}

async fn read(client: &Client, n: usize) -> Result<(), tidemark_client::Error> {
    let database = client.database(name(n));
    let value: Option<String> = database
        .prepare("SELECT v FROM t WHERE id = 2")
        .first()
        .await?;
    assert_eq!(value.as_deref(), Some("two"));
    Ok(())
}

/// Does it for each, several at a time. Gives the time for all.
async fn each(
    range: std::ops::Range<usize>,
    work: impl AsyncFn(usize) -> Result<(), tidemark_client::Error>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut results = stream::iter(range)
        .map(|n| work(n))
        .buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        result?;
    }
    Ok(start.elapsed())
}

async fn timed<T>(
    micros: &mut Histogram<u64>,
    work: impl Future<Output = Result<T, tidemark_client::Error>>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    work.await?;
    micros.record(u64::try_from(start.elapsed().as_micros())?.max(1))?;
    Ok(())
}

fn shown(micros: &Histogram<u64>) -> String {
    let ms = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        ms(0.5),
        ms(0.99),
        ms(1.0)
    )
}
