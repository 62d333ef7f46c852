//! What it takes to write and to read it again, per region: through the region's replica, and without one.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;
use tidemark_client::{Client, Session, SessionStart};
use tidemark_tests::{Cluster, wait};

use crate::page;
use crate::plot::{self, Series};
use crate::world::{self, HOME, Region};

const DATABASE: &str = "visits";
const READ: &str = "SELECT count FROM visit WHERE region = ?";

/// Measures, prints the table, and writes it with its plot into the pages below `docs`.
pub(crate) async fn run(pairs: usize, docs: &Path) -> anyhow::Result<()> {
    let (cluster, regions) = world::start().await?;
    let primary = Cluster::client(&cluster.primary);
    primary.create_database(DATABASE).await?;
    let database = primary.database(DATABASE);
    database
        .exec("CREATE TABLE visit(region TEXT PRIMARY KEY, count INTEGER NOT NULL)")
        .await?;
    for region in &regions {
        let insert = database.prepare("INSERT INTO visit VALUES (?, 0)");
        insert.bind(region.name).run().await?;
    }
    cluster.settled(wait::SOON).await;

    let names: Vec<_> = regions.iter().map(|region| region.name).collect();
    // All at once, as customers are. What they wait for is the way.
    let measured: Vec<_> = regions
        .into_iter()
        .map(|region| tokio::spawn(measure(region, pairs)))
        .collect();
    let mut lines = Vec::new();
    for one in measured {
        lines.push(one.await??);
    }

    let table = table(&lines);
    print!("{table}");
    page::put(&docs.join("read-your-writes.md"), "regions", &table)?;
    let column = |figure: fn(&Line) -> &Histogram<u64>| {
        let middles = lines.iter().map(|line| ms(figure(line), 0.5));
        middles.collect::<Vec<_>>()
    };
    let series = [
        ("write, by the replica", 0, column(|line| &line.near.write)),
        ("read, at the replica", 0, column(|line| &line.near.read)),
        ("write, at the primary", 1, column(|line| &line.far.write)),
        ("read, at the primary", 1, column(|line| &line.far.read)),
    ];
    plot::bars(
        &docs.join("images/read-your-writes.svg"),
        "A write and a read that sees it, p50, with a replica (left) and without",
        "milliseconds",
        &names,
        &series.map(|(name, bar, values)| Series { name, bar, values }),
    )
}

/// One region.
struct Line {
    name: &'static str,
    round_trip_ms: f64,
    near: Figures,
    far: Figures,
}

/// Microseconds, by one way of asking.
struct Figures {
    /// A write.
    write: Histogram<u64>,
    /// The read behind it, with its bookmark.
    read: Histogram<u64>,
    /// Both.
    both: Histogram<u64>,
    /// A read that asks for nothing.
    plain: Histogram<u64>,
}

impl Figures {
    fn new() -> anyhow::Result<Self> {
        let empty = Histogram::<u64>::new(3)?;
        Ok(Self {
            write: empty.clone(),
            read: empty.clone(),
            both: empty.clone(),
            plain: empty,
        })
    }
}

async fn measure(region: Region, pairs: usize) -> anyhow::Result<Line> {
    let Region {
        name,
        round_trip_ms,
        near,
        primary,
    } = region;
    let mut line = Line {
        name,
        round_trip_ms,
        near: Figures::new()?,
        far: Figures::new()?,
    };
    let open = |client: &Client| {
        client
            .database(DATABASE)
            .session(SessionStart::Unconstrained)
    };
    let ways = [open(&near), open(&primary)];
    for session in &ways {
        pair(session, name, &mut Figures::new()?).await?; // makes the connections
    }
    // In turn, so that a noisy second touches both alike.
    for _ in 0..pairs {
        pair(&ways[0], name, &mut line.near).await?;
        pair(&ways[1], name, &mut line.far).await?;
        plain(&near, name, &mut line.near).await?;
        plain(&primary, name, &mut line.far).await?;
    }
    Ok(line)
}

async fn pair(session: &Session, region: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let begun = Instant::now();
    let write = session
        .prepare("UPDATE visit SET count = count + 1 WHERE region = ? RETURNING count")
        .bind(region);
    let wrote: Option<i64> = write.first().await?;
    let written = Instant::now();
    let read: Option<i64> = session.prepare(READ).bind(region).first().await?;
    let done = Instant::now();
    anyhow::ensure!(
        wrote.is_some() && read >= wrote,
        "{region} wrote {wrote:?} and then read {read:?}"
    );
    record(&mut figures.write, begun, written)?;
    record(&mut figures.read, written, done)?;
    record(&mut figures.both, begun, done)
}

/// A read of a session that has seen nothing yet: any state will do.
async fn plain(client: &Client, region: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let database = client.database(DATABASE);
    let begun = Instant::now();
    let session = database.session(SessionStart::Unconstrained);
    let read: Option<i64> = session.prepare(READ).bind(region).first().await?;
    anyhow::ensure!(read.is_some(), "{region} reads nothing");
    record(&mut figures.plain, begun, Instant::now())
}

fn record(histogram: &mut Histogram<u64>, from: Instant, to: Instant) -> anyhow::Result<()> {
    let micros = u64::try_from((to - from).as_micros()).unwrap_or(u64::MAX);
    Ok(histogram.record(micros.max(1))?)
}

fn table(lines: &[Line]) -> String {
    let mut out = String::from(
        "| region | round trip to the primary ms | with a replica: write + read p50 ms | p99 | its read p50 | p99 | \
         without: write + read p50 ms | p99 | its read p50 | p99 | plain read at the replica p50 ms | \
         at the primary p50 ms |\n",
    );
    let _ = writeln!(out, "|{}", " --- |".repeat(12));
    for line in lines {
        let Line {
            name,
            round_trip_ms,
            near,
            far,
        } = line;
        let _ = write!(out, "| {name} | {round_trip_ms:.0} |");
        for (figures, there) in [(near, *name != HOME), (far, true)] {
            for histogram in [&figures.both, &figures.read] {
                for quantile in [0.5, 0.99] {
                    let _ = write!(out, " {} |", cell(histogram, quantile, there));
                }
            }
        }
        let local = cell(&near.plain, 0.5, *name != HOME);
        let _ = writeln!(out, " {local} | {} |", cell(&far.plain, 0.5, true));
    }
    out
}

/// A figure, or nothing where there is none to have: the primary's region has no replica.
fn cell(histogram: &Histogram<u64>, quantile: f64, there: bool) -> String {
    if there {
        format!("{:.1}", ms(histogram, quantile))
    } else {
        "–".to_owned()
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}
