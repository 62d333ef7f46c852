//! Exports: from this node's copy, whether it leads or not, on a connection and a thread of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_engine::ExportError;
use tidemark_protocol::dump::{DumpOptions, DumpOutput};
use tidemark_protocol::{Bookmark, DatabaseId, Exported, Failure, FailureKind};
use tokio::time::timeout_at;

use super::reading::read_failure;
use super::{deadline, no_database};
use crate::cell::Primary;
use crate::pipeline::{Line, not_leading};

/// Exports at a time. Each keeps a thread, a connection, and the WAL of its database from starting over.
pub(crate) const EXPORTS_MAX: usize = 4;

impl Primary {
    pub(super) async fn export_database(
        &self,
        database: DatabaseId,
        options: DumpOptions,
        limit: Duration,
        output: DumpOutput,
    ) -> Result<Exported, Failure> {
        let until = Instant::now() + limit;
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        if catalogue.get(database).is_none() {
            return Err(no_database(&database.to_string()));
        }
        let permit = Arc::clone(&self.exports).try_acquire_owned();
        let permit = permit.map_err(|_| {
            let text =
                format!("{EXPORTS_MAX} exports are on their way, as many as this node takes");
            Failure::new(FailureKind::Overloaded, text).retry_after(Duration::from_secs(5))
        })?;
        let line = self.line(database).await?;
        // A replica may have shown what the readers here do not see yet.
        let caught_up = timeout_at(until.into(), line.caught_up()).await;
        caught_up.map_err(|_| deadline(limit))?;
        let export = move || {
            let _held = permit;
            let output = while_open(Arc::clone(&line), output);
            let exported = line.database().export(&options, until, output);
            exported.map_err(|error| export_failure(error, &line, limit))
        };
        // The thread notices by itself: what it writes then goes nowhere.
        let exported = timeout_at(until.into(), self.on_sql_thread(export)).await;
        let position = exported.map_err(|_| deadline(limit))???;
        Ok(Exported {
            bookmark: Bookmark::issue(catalogue.bookmark_key(), database, position),
        })
    }
}

/// Takes nothing more once the files are to be let go of.
fn while_open(line: Arc<Line>, mut output: DumpOutput) -> DumpOutput {
    Box::new(move |piece| !line.is_deleted() && !line.is_retired() && output(piece))
}

fn export_failure(error: ExportError, line: &Line, limit: Duration) -> Failure {
    if line.is_deleted() {
        return no_database(&line.id().to_string());
    }
    match error {
        ExportError::Plan(error) => Failure::new(FailureKind::BadRequest, error.to_string()),
        ExportError::Read(error) => read_failure(error, limit),
        ExportError::Unwanted if line.is_retired() => {
            let text = "another voter's copy takes the place of this one; begin again";
            Failure::new(FailureKind::Unavailable, text).retry_after(Duration::from_secs(1))
        }
        ExportError::Unwanted => Failure::new(FailureKind::Unavailable, error.to_string()),
        error => Failure::new(FailureKind::Internal, error.to_string()),
    }
}
