//! The tidemark program: primary, replica, dev, shell and tools.
//!
//! ```text
//! main → command line → configuration → home (identity, lock) → node → gateway → until told to stop
//! ```
//!
//! A library, so that the end-to-end tests run the very same program; `src/main.rs` only calls [`main`].

mod cell;
mod config;
mod dev;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handles;
mod health;
mod home;
mod logging;
mod node;
mod process;
mod shell;
mod signal;
mod system;
mod telemetry;
mod token;
mod verify;
mod wan;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemark_protocol::node::Role;

use crate::config::{Config, Settings};
use crate::telemetry::Telemetry;

/// What is logged by a server that is not told. The consensus library tells of every step at info, and at
/// warn of every heartbeat that a voter which is down does not answer.
const SERVER_LOG_DEFAULT: &str = "info,openraft=error,chunked_wal=warn";

/// The exit code of `verify` where nothing is known to be damaged and not all could be read.
const UNTOLD: u8 = 2;

/// A self-hosted, globally replicated edge SQL database in the manner of Cloudflare D1.
#[derive(Parser, Debug)]
#[command(name = "tidemark", version, max_term_width = 100)]
struct CommandLine {
    /// What to do; nothing starts a dev cluster
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a primary and replicas an ocean apart in this process, with a sample database
    Dev(dev::Args),
    /// Serve the primary copy of every database
    Primary(NodeArgs),
    /// Serve read-only copies in another region; writes are handed on to the primary
    Replica(NodeArgs),
    /// Look at a cell and change who is in it
    Cell(cell::Args),
    /// Type SQL, see rows, bookmarks and who served them
    Shell(shell::Args),
    /// Compare positions and checksums of all databases on several nodes, or look at the files of one that does not run
    Verify(verify::Args),
    /// Ask a node whether it can serve; the exit code tells
    Health(health::Args),
    /// Stand between the regions of a cluster on one machine: delay, cut and heal the ways between them
    Wan(wan::Args),
}

#[derive(clap::Args, Debug)]
struct NodeArgs {
    /// Configuration file; flags and environment variables win over it
    #[arg(long, env = "TIDEMARK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the program of this process's command line.
pub fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not through the log: it may never have been started.
            eprintln!("tidemark: {error:#}");
            if error.is::<verify::Unread>() {
                return ExitCode::from(UNTOLD);
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Option<Command>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(system::SQL_THREADS_MAX)
        .build()?;
    let done = runtime.block_on(async {
        match command {
            None => dev::run(dev::Args::default()).await,
            Some(Command::Dev(args)) => dev::run(args).await,
            Some(Command::Primary(args)) => serve(Role::Primary, args).await,
            Some(Command::Replica(args)) => serve(Role::Replica, args).await,
            Some(Command::Cell(args)) => cell::run(args).await,
            Some(Command::Shell(args)) => shell::run(args).await,
            Some(Command::Verify(args)) => verify::run(args).await,
            Some(Command::Health(args)) => health::run(args).await,
            Some(Command::Wan(args)) => wan::run(args).await,
        }
    });
    // A read that is still running has nobody left to answer to.
    runtime.shutdown_background();
    done
}

async fn serve(role: Role, NodeArgs { config, settings }: NodeArgs) -> anyhow::Result<()> {
    let config = Config::load(config.as_deref(), settings, role)?;
    let listener = node::bind(config.listen).await?;
    let home = node::home(role, &config)?;
    // Spans say which node they are of.
    let telemetry = Telemetry::open(&config, home.identity(), role)?;
    let (filter, format) = (config.log.as_deref(), config.log_format);
    let _logging = logging::start(filter, format, SERVER_LOG_DEFAULT, telemetry.as_ref())?;
    let stop = signal::stop_token()?;
    let served = node::run_at(role, config, home, listener, stop).await;
    if let Some(telemetry) = telemetry {
        telemetry.close().await;
    }
    served
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The words after `program` of each command line in the README's examples, remarks and dots left out.
    fn commands(program: &str) -> Vec<Vec<&'static str>> {
        const README: &str = include_str!("../../README.md");
        let examples = README.split("```console\n").skip(1);
        let examples = examples.map(|rest| rest.split_once("\n```").unwrap().0);
        let mut commands = Vec::new();
        let mut goes_on = false;
        for line in examples.flat_map(str::lines) {
            let words = match line.strip_prefix(program) {
                Some(rest) if !goes_on => {
                    commands.push(Vec::new());
                    rest
                }
                _ if goes_on => line,
                _ => continue,
            };
            let words = words.split_whitespace();
            let words = words.filter(|word| !matches!(*word, "\\" | "…"));
            commands.last_mut().unwrap().extend(words);
            goes_on = line.ends_with('\\');
        }
        commands
    }

    #[test]
    fn commands_of_the_readme_exist() {
        let installed = commands("tidemark ");
        let built = commands("cargo run --release -- ");
        assert!(installed.len() >= 4, "{installed:?}");
        assert!(!built.is_empty());
        for words in installed.iter().chain(&built) {
            let line = std::iter::once(&"tidemark").chain(words);
            CommandLine::try_parse_from(line).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        }
    }
}
