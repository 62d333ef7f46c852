//! `tidemark wan`: the ways between the regions of a cluster on one machine, as long as real ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tidemark_deploy::{Wan, WanConfig};

use crate::config::LogFormat;
use crate::{logging, node, signal};

/// Where links are changed unless told otherwise.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8780);
/// What is logged unless told otherwise.
const LOG_DEFAULT: &str = "info";

/// Which ways, and how they are changed.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// File that lists the links
    #[arg(long, env = "TIDEMARK_CONFIG", value_name = "FILE")]
    config: PathBuf,

    /// Address for showing and changing links over HTTP; whoever reaches it can cut the cluster into pieces
    #[arg(long, env = "TIDEMARK_LISTEN", value_name = "ADDRESS", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,

    /// What to log: a level, or levels by module as in RUST_LOG
    #[arg(long, env = "TIDEMARK_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// How to log
    #[arg(long, env = "TIDEMARK_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// Runs until told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let _logging = logging::start(args.log.as_deref(), args.log_format, LOG_DEFAULT, None)?;
    let stop = signal::stop_token()?;
    let config = WanConfig::read(&args.config)?;
    let listener = node::bind(args.listen).await?;
    let wan = Arc::new(Wan::start(config).await?);
    tracing::info!(address = %listener.local_addr()?, "serving");
    let router = tidemark_deploy::wan::control(wan);
    // Connections end with the links: nobody waits for what is under way, as nobody waits at a cut.
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        () = stop.cancelled() => {}
    }
    Ok(())
}
