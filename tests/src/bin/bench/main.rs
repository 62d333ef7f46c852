//! Measures Tidemark beside what bounds it, in one run, on one machine.
//!
//! ```text
//! cargo build --release -p tidemark-cli -p tidemark-tests --bins
//! target/release/tidemark-bench http
//! ```
//!
//! Figures are for comparing lines of one run with each other: machines are shared and noisy. Servers run
//! as processes of their own; their CPU time is the kernel's account of them.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // its purpose; and it may fail loudly

mod agreed;
mod all;
mod append;
mod catch_up;
mod cell;
mod density;
mod empty;
mod http;
mod interference;
mod lag;
mod load;
mod median;
mod paced;
mod page;
mod plot;
mod rate;
mod rate_limiter;
mod read_your_writes;
mod server;
mod workloads;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// As in the program that is measured: the handlers beside it have no other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Tidemark beside what bounds it.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Point reads, ranges and durable updates over HTTP at several numbers of connections, beside axum handlers
    /// that do nothing but return bytes, and appends to the same disk. Rounds alternate between them.
    Http {
        /// Seconds per round.
        #[arg(long, default_value = "2")]
        seconds: f64,
        /// Rounds per line; medians are printed.
        #[arg(long, default_value = "3")]
        rounds: usize,
        /// Connections, one table row per workload each.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
        connections: Vec<u64>,
        /// Only workloads whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Durable updates through the leader of cells of several sizes: rate, latency, and what each update costs
    /// every voter. Rounds alternate between the cells, all of which run throughout.
    Cell {
        /// Seconds per round.
        #[arg(long, default_value = "2")]
        seconds: f64,
        /// Rounds per line; medians are printed.
        #[arg(long, default_value = "3")]
        rounds: usize,
        /// Sizes of cells. The others are compared with the first.
        #[arg(long, value_delimiter = ',', default_value = "1,3")]
        voters: Vec<usize>,
        /// Connections, one table row per cell each.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
        connections: Vec<u64>,
    },
    /// From the answer of a write at the primary until it is readable at a replica, beyond the one-way delay.
    Lag {
        /// Writes.
        #[arg(long, default_value = "500")]
        writes: usize,
        /// One-way delay of the emulated link.
        #[arg(long, default_value = "40")]
        delay_ms: u64,
        /// Pause between writes.
        #[arg(long, default_value = "5")]
        pause_ms: u64,
    },
    /// A write and a read that sees it, in each of six regions: through the region's replica, and without one. Writes
    /// a table and a plot into the documentation.
    ReadYourWrites {
        /// Pairs of a write and a read, per region and way.
        #[arg(long, default_value = "200")]
        pairs: usize,
        /// Folder of the documentation.
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
    /// The global rate limiter of `examples/`: what a verdict takes in each region, and how many requests limiters
    /// that count by themselves would let in. Writes both into its page.
    RateLimiter {
        /// Verdicts per region.
        #[arg(long, default_value = "200")]
        takes: usize,
        /// The page.
        #[arg(long, default_value = "examples/rate-limiter/README.md")]
        page: PathBuf,
    },
    /// Start time and memory.
    Footprint,
    /// Many databases on one node, few of them in use: memory, start, first queries.
    Density {
        /// Databases.
        #[arg(long, default_value = "10000")]
        databases: usize,
        /// Those in use while others are asked for the first time.
        #[arg(long, default_value = "1000")]
        active: usize,
        /// Those asked for the first time.
        #[arg(long, default_value = "1000")]
        cold: usize,
        /// A replica beside it.
        #[arg(long)]
        replica: bool,
    },
    /// From the answer of a write to readable at a replica, at fixed rates of writes.
    Paced {
        /// Writes per second.
        #[arg(long, value_delimiter = ',', default_value = "100,500,1000")]
        rates: Vec<u32>,
        /// Length of a round.
        #[arg(long, default_value = "10")]
        seconds: u64,
        /// Rounds of each.
        #[arg(long, default_value = "3")]
        rounds: usize,
        /// One-way delay of the replica.
        #[arg(long, default_value = "40")]
        delay_ms: u64,
    },
    /// A write through a replica and a read of it there.
    OwnWrites {
        /// One-way delays of the replica, in milliseconds.
        #[arg(long, value_delimiter = ',', default_value = "10,40,100")]
        delays_ms: Vec<u64>,
        /// Writes.
        #[arg(long, default_value = "100")]
        writes: usize,
    },
    /// How fast a replica that was away comes up to the primary.
    CatchUp {
        /// Transactions that it missed.
        #[arg(long, value_delimiter = ',', default_value = "12800,64000")]
        transactions: Vec<u64>,
        /// Rounds of each.
        #[arg(long, default_value = "3")]
        rounds: usize,
        /// Megabits per second of the links; 0 for as many as loopback takes.
        #[arg(long, value_delimiter = ',', default_value = "0,100")]
        megabits: Vec<u64>,
        /// How the stream is compressed.
        #[arg(long, value_delimiter = ',', default_value = "zstd,none")]
        compression: Vec<String>,
    },
    /// Point reads while checkpoints, an import and the bootstrap of a replica run.
    Interference {
        /// Reads per second.
        #[arg(long, default_value = "2000")]
        rate: u32,
        /// Seconds of each line at least.
        #[arg(long, default_value = "10")]
        seconds: u64,
        /// Megabytes to import.
        #[arg(long, default_value = "1000")]
        import: u64,
    },
    /// Batches, large rows and many databases, closed-loop.
    Workloads {
        /// Seconds per round.
        #[arg(long, default_value = "2")]
        seconds: u64,
        /// Rounds per line; medians are printed.
        #[arg(long, default_value = "3")]
        rounds: usize,
        /// Connections.
        #[arg(long, default_value = "64")]
        connections: u64,
    },
    /// Sessions that read and write through a replica, 95 to 5.
    Sessions {
        /// How long.
        #[arg(long, default_value = "10")]
        seconds: u64,
        /// One-way delay of the replica.
        #[arg(long, default_value = "40")]
        delay_ms: u64,
        /// Sessions, each with one request at a time.
        #[arg(long, default_value = "64")]
        sessions: u64,
    },
    /// Leaders of a cell of three that are killed while a client writes.
    Failover {
        /// How many.
        #[arg(long, default_value = "10")]
        times: usize,
    },
    /// Everything, one after the other.
    All {
        /// Only what has this in its name.
        #[arg(long, default_value = "")]
        only: String,
        /// File for the figures as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// File for the rates over HTTP as SVG.
        #[arg(long)]
        plot: Option<PathBuf>,
    },
    /// The handler to compare with. Prints its address.
    #[command(hide = true)]
    Empty,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Http {
            seconds,
            rounds,
            connections,
            only,
        } => {
            http::run(
                Duration::from_secs_f64(seconds),
                rounds,
                &connections,
                &only,
            )
            .await
        }
        What::Cell {
            seconds,
            rounds,
            voters,
            connections,
        } => {
            cell::run(
                Duration::from_secs_f64(seconds),
                rounds,
                &voters,
                &connections,
            )
            .await
        }
        What::Lag {
            writes,
            delay_ms,
            pause_ms,
        } => {
            let (delay, pause) = (
                Duration::from_millis(delay_ms),
                Duration::from_millis(pause_ms),
            );
            lag::run(writes, delay, pause).await
        }
        What::ReadYourWrites { pairs, docs } => read_your_writes::run(pairs, &docs).await,
        What::RateLimiter { takes, page } => rate_limiter::run(takes, &page).await,
        What::Footprint => lag::footprint().await,
        What::Density {
            databases,
            active,
            cold,
            replica,
        } => density::run(databases, active, cold, replica).await,
        What::Paced {
            rates,
            seconds,
            rounds,
            delay_ms,
        } => {
            let delay = Duration::from_millis(delay_ms);
            paced::lag(&rates, Duration::from_secs(seconds), rounds, delay).await
        }
        What::OwnWrites { delays_ms, writes } => {
            let delays = delays_ms.into_iter().map(Duration::from_millis);
            paced::own_writes(delays, writes).await
        }
        What::CatchUp {
            transactions,
            rounds,
            megabits,
            compression,
        } => {
            let ways = megabits.iter().flat_map(|&megabits| {
                compression.iter().map(move |compression| catch_up::Way {
                    megabits,
                    compression,
                })
            });
            catch_up::run(&transactions, rounds, ways).await
        }
        What::Interference {
            rate,
            seconds,
            import,
        } => interference::run(rate, Duration::from_secs(seconds), import).await,
        What::Workloads {
            seconds,
            rounds,
            connections,
        } => workloads::run(Duration::from_secs(seconds), rounds, connections).await,
        What::Sessions {
            seconds,
            delay_ms,
            sessions,
        } => {
            let (seconds, delay) = (
                Duration::from_secs(seconds),
                Duration::from_millis(delay_ms),
            );
            workloads::sessions(seconds, delay, sessions).await
        }
        What::Failover { times } => workloads::failover(times).await,
        What::All { only, json, plot } => all::run(&only, json.as_deref(), plot.as_deref()),
        What::Empty => empty::serve().await,
    }
}
