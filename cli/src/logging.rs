//! Where log lines go, standard error, for people or as JSON; and spans, if a collector gets them.

use std::io::IsTerminal;

use anyhow::Context;
use tidemark_protocol::trace::TARGET;
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter};

use crate::config::LogFormat;
use crate::telemetry::Telemetry;

/// The variable that Rust programs are told by what to log.
const RUST_LOG: &str = "RUST_LOG";

/// Starts logging, once per process. `text` wins over `RUST_LOG`, that over `otherwise`. With a way to a
/// collector, spans go there as well, and with them what is logged at warn and above while they are entered.
pub(crate) fn start(
    text: Option<&str>,
    format: LogFormat,
    otherwise: &str,
    telemetry: Option<&Telemetry>,
) -> anyhow::Result<()> {
    let from_environment = std::env::var(RUST_LOG).ok().filter(|text| !text.is_empty());
    let text = text.or(from_environment.as_deref()).unwrap_or(otherwise);
    let wanted = EnvFilter::try_new(text).with_context(|| format!("log filter '{text}'"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let started = match telemetry {
        // The filter is the whole subscriber's: what it does not want costs a comparison wherever it is.
        None => lines
            .with_subscriber(Registry::default())
            .with(wanted)
            .try_init(),
        Some(telemetry) => {
            let spans = filter::filter_fn(|what| {
                what.target() == TARGET || (what.is_event() && *what.level() <= Level::WARN)
            });
            let spans = tracing_opentelemetry::layer()
                .with_tracer(telemetry.tracer())
                // Where in the source, and on which thread: nobody asks, and each span would carry it.
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_context_activation(false)
                .with_filter(spans.with_max_level_hint(Level::DEBUG));
            Registry::default()
                .with(lines.with_filter(wanted))
                .with(spans)
                .try_init()
        }
    };
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}
