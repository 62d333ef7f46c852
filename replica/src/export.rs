//! Exports from this replica's copy, on a connection and a thread of their own.

use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::{ExportError, ReadError};
use tidemark_protocol::dump::{DumpOptions, DumpOutput};
use tidemark_protocol::{Bookmark, DatabaseId, Exported, Failure, FailureKind};
use tokio::time::{Instant, timeout_at};

use crate::copy::{Copy, Open};
use crate::core::Core;
use crate::node::WAKE_WAIT;

/// Exports at a time. Each keeps a thread, a connection, and the WAL of its database from starting over.
pub(crate) const EXPORTS_MAX: usize = 4;

/// Writes a database to `output`, as far as this replica has come.
pub(crate) async fn export(
    core: &Core,
    database: DatabaseId,
    options: DumpOptions,
    limit: Duration,
    output: DumpOutput,
) -> Result<Exported, Failure> {
    let until = Instant::now() + limit;
    let copy = core
        .copy(database)
        .filter(|copy| copy.id() != DatabaseId::CATALOGUE);
    let (Some(copy), Some(catalogue)) = (copy, core.catalogue()) else {
        let text = format!("database {database} is not on this replica");
        return Err(Failure::new(FailureKind::NoDatabase, text));
    };
    let permit = Arc::clone(&core.site.exports).try_acquire_owned();
    let permit = permit.map_err(|_| {
        let text = format!("{EXPORTS_MAX} exports are on their way, as many as this node takes");
        Failure::new(FailureKind::Overloaded, text).retry_after(Duration::from_secs(5))
    })?;
    let awake = copy.awake(until.min(Instant::now() + WAKE_WAIT)).await;
    let Some(open) = awake else {
        let text = format!("the copy of database {database} cannot be read now");
        return Err(Failure::new(FailureKind::Damaged, text));
    };
    let late = || {
        let text = format!("the export did not end within the deadline of {limit:?}");
        Failure::new(FailureKind::Deadline, text)
    };
    let exporting = core.on_thread(move || {
        let _held = permit;
        let output = while_open(copy, Arc::clone(&open), output);
        open.database.export(&options, until.into_std(), output)
    });
    // The thread notices by itself: what it writes then goes nowhere.
    let exported = timeout_at(until, exporting).await.map_err(|_| late())?;
    let exported =
        exported.ok_or_else(|| Failure::new(FailureKind::Internal, "the export panicked"))?;
    let position = exported.map_err(|error| match error {
        ExportError::Plan(error) => Failure::new(FailureKind::BadRequest, error.to_string()),
        ExportError::Unwanted => Failure::new(FailureKind::Unavailable, error.to_string()),
        ExportError::Read(ReadError::Deadline) => late(),
        ExportError::Read(error @ ReadError::Sql(_)) => {
            Failure::new(FailureKind::Sql, error.to_string())
        }
        ExportError::Read(error) => Failure::new(FailureKind::Damaged, error.to_string()),
        error => Failure::new(FailureKind::Internal, error.to_string()),
    })?;
    Ok(Exported {
        bookmark: Bookmark::issue(catalogue.bookmark_key(), database, position),
    })
}

/// Takes nothing more once the copy is to let go of these files: reads wait for that. Keeps it awake meanwhile.
fn while_open(copy: Arc<Copy>, open: Arc<Open>, mut output: DumpOutput) -> DumpOutput {
    let is_current = move || copy.open().is_some_and(|now| Arc::ptr_eq(&now, &open));
    Box::new(move |piece| is_current() && output(piece))
}
