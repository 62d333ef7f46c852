//! Signals that ask the process to stop.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was told twice to stop: 128 and SIGINT, as shells have it.
const TOLD_TWICE: i32 = 130;
/// Time for that line of the log to be written.
const LINE_WRITTEN_WAIT: Duration = Duration::from_millis(20);

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process at once.
pub(crate) fn stop_token() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if told.is_cancelled() {
                tracing::warn!(
                    signal = name,
                    "told twice to stop: not waiting for requests in flight"
                );
                tokio::time::sleep(LINE_WRITTEN_WAIT).await;
                std::process::exit(TOLD_TWICE);
            }
            tracing::info!(signal = name, "stopping");
            told.cancel();
        }
    });
    Ok(stop)
}
