//! The tidemark program: primary, replica, dev, shell and tools.
//!
//! ```text
//! main → command line → configuration → home (identity, lock) → node → gateway → until told to stop
//! ```
//!
//! A library, so that the end-to-end tests run the very same program; `src/main.rs` only calls [`main`].

mod config;
mod dev;
mod home;
mod logging;
mod node;
mod shell;
mod signal;
mod system;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemark_protocol::node::Role;

use crate::config::{Config, Settings};

/// What is logged by a server that is not told. The consensus library tells of every step at info, and at
/// warn of every heartbeat that a voter which is down does not answer.
const SERVER_LOG_DEFAULT: &str = "info,openraft=error,chunked_wal=warn";

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
    /// Type SQL, see rows, bookmarks and who served them
    Shell(shell::Args),
    /// Compare positions and checksums of all databases on several nodes
    Verify(verify::Args),
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
            Some(Command::Shell(args)) => shell::run(args).await,
            Some(Command::Verify(args)) => verify::run(args).await,
        }
    });
    // A read that is still running has nobody left to answer to.
    runtime.shutdown_background();
    done
}

async fn serve(role: Role, NodeArgs { config, settings }: NodeArgs) -> anyhow::Result<()> {
    let config = Config::load(config.as_deref(), settings, role)?;
    logging::start(config.log.as_deref(), config.log_format, SERVER_LOG_DEFAULT)?;
    let stop = signal::stop_token()?;
    let listener = node::bind(config.listen).await?;
    node::run(role, config, listener, stop).await
}
