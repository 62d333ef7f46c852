//! Where log lines go: standard error, for people or as JSON.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// The variable that Rust programs are told by what to log.
const RUST_LOG: &str = "RUST_LOG";

/// Starts logging, once per process. `filter` wins over `RUST_LOG`, that over `otherwise`.
pub(crate) fn start(
    filter: Option<&str>,
    format: LogFormat,
    otherwise: &str,
) -> anyhow::Result<()> {
    let from_environment = std::env::var(RUST_LOG).ok().filter(|text| !text.is_empty());
    let text = filter.or(from_environment.as_deref()).unwrap_or(otherwise);
    let filter = EnvFilter::try_new(text).with_context(|| format!("log filter '{text}'"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("start logging: {error}"))
}
