//! Measures Tidemark beside what bounds it, in one run, on one machine.
//!
//! ```text
//! cargo run --release -p tidemark-tests --bin tidemark-bench -- http
//! cargo run --release -p tidemark-tests --bin tidemark-bench -- cell
//! cargo run --release -p tidemark-tests --bin tidemark-bench -- lag
//! cargo run --release -p tidemark-tests --bin tidemark-bench -- read-your-writes
//! cargo run --release -p tidemark-tests --bin tidemark-bench -- rate-limiter
//! cargo run --release -p tidemark-tests --bin tidemark-bench -- footprint
//! ```
//!
//! Figures are for comparing lines of one run with each other: machines are shared and noisy. Servers run
//! as processes of their own; their CPU time is the kernel's account of them.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // its purpose; and it may fail loudly

mod append;
mod cell;
mod empty;
mod http;
mod lag;
mod load;
mod median;
mod page;
mod plot;
mod rate_limiter;
mod read_your_writes;
mod server;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

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
        What::Empty => empty::serve().await,
    }
}
