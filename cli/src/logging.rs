//! Where log lines go, standard error, for people or as JSON; and spans, if a collector gets them.
//!
//! A thread of its own writes the lines. Whoever reads them may be slow, or stand still: a full pipe, a file on a
//! disk that a large transaction keeps busy. The threads that answer requests and voters would wait with it, and
//! with them the lease. Lines beyond [`LINES_MAX`] unwritten ones are dropped and counted.

use std::io::IsTerminal;
use std::sync::OnceLock;

use anyhow::Context;
use tidemark_protocol::trace::TARGET;
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter};

use crate::config::LogFormat;
use crate::telemetry::Telemetry;

/// The variable that Rust programs are told by what to log.
const RUST_LOG: &str = "RUST_LOG";
/// Lines that wait to be written, at most: some megabytes.
const LINES_MAX: usize = 16_384;
/// The thread that writes them.
const THREAD: &str = "log-lines";

/// What was dropped, of this process.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Logging that was started. Dropped, it waits a second at most for what was logged to be written.
#[must_use]
#[derive(Debug)]
pub(crate) struct Logging(#[expect(dead_code)] WorkerGuard);

/// Starts logging, once per process. `text` wins over `RUST_LOG`, that over `otherwise`. With a way to a
/// collector, spans go there as well, and with them what is logged at warn and above while they are entered.
pub(crate) fn start(
    text: Option<&str>,
    format: LogFormat,
    otherwise: &str,
    telemetry: Option<&Telemetry>,
) -> anyhow::Result<Logging> {
    let from_environment = std::env::var(RUST_LOG).ok().filter(|text| !text.is_empty());
    let text = text.or(from_environment.as_deref()).unwrap_or(otherwise);
    let wanted = EnvFilter::try_new(text).with_context(|| format!("log filter '{text}'"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .thread_name(THREAD)
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(writer);
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
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))?;
    DROPPED.get_or_init(|| dropped);
    Ok(Logging(guard))
}

/// Log lines that were dropped, of this process.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines) as u64
}
