//! Three voters and three replicas under random faults for as long as wanted.
//!
//! ```text
//! cargo build -p tidemark-tests --bins
//! target/debug/tidemark-soak --duration 1h --report soak.json
//! ```
//!
//! Ends with a report, and with success only if no promise was broken and nothing grew.
#![allow(clippy::print_stdout)] // its purpose

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tidemark_tests::Seed;
use tidemark_tests::soak::{Report, Soak};

/// Runs a cell and its replicas under random faults, judges what clients are told, measures what processes take.
#[derive(Parser)]
struct Arguments {
    /// How long, such as 90s, 10m or 1h.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Duration,
    /// After how long the record is judged and forgotten.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2m")]
    epoch: Duration,
    /// How long a process has run before its memory and its files are compared with later.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5m")]
    warm_up: Duration,
    /// Where all choices come from. Random if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Where the report is written, as JSON, after every epoch.
    #[arg(long)]
    report: Option<PathBuf>,
    /// The node program. Without it, the one that was built beside this one.
    #[arg(long)]
    node: Option<PathBuf>,
    /// Has all nodes break a promise, by the name of its point. The soak must fail.
    #[arg(long)]
    saboteur: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let node = match arguments.node {
        Some(node) => node,
        None => std::env::current_exe()?.with_file_name("tidemark-node"),
    };
    anyhow::ensure!(node.exists(), "there is no node program {}", node.display());
    let seed = arguments.seed.map_or_else(|| Seed::of("soak"), Seed::given);
    let soak = Soak {
        program: node.to_string_lossy().into_owned(),
        seed,
        duration: arguments.duration,
        epoch: arguments.epoch,
        warm_up: arguments.warm_up,
        // It lives as long as the program.
        saboteur: arguments.saboteur.map(|name| &*name.leak()),
    };
    let path = arguments.report;
    let report = soak
        .run(|report| {
            println!("{report}\n");
            if let Some(path) = &path
                && let Err(error) = write(report, path)
            {
                println!("cannot write {}: {error:#}", path.display());
            }
        })
        .await;
    Ok(if report.sound() && report.flat() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// In one piece: whoever looks finds a whole report.
fn write(report: &Report, path: &std::path::Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).context("write the report")?;
    std::fs::rename(beside, path).context("put the report in place")
}
