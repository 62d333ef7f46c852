//! Running statements on a database's readers.
//!
//! Short reads run where they are; one that turns long, or finds no reader free at once, starts over on a SQL
//! thread, where it may wait. A read may be given up at any time: it is never of unknown outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_engine::{Control, Database, ReadError, VerifyError};
use tidemark_protocol::node::Verification;
use tidemark_protocol::render::{Rendered, Renderer, ServedBy};
use tidemark_protocol::{Execute, Failure, FailureKind, Position};
use tokio::sync::oneshot;

use super::deadline;
use crate::cell::Primary;
use crate::pipeline::{Line, shut_down};

/// How long a read may hold the thread that received it, waiting for a reader included.
const INLINE_PATIENCE: Duration = Duration::from_micros(500);

/// What a read on this node came to.
pub(super) enum Read {
    /// The answer, and the state it was read from.
    Done(Rendered, Position),
    /// Some statement writes.
    Writes,
}

impl Primary {
    /// Runs statements where the readers are, if SQLite says that they only read, until `expires`.
    pub(super) async fn read(
        &self,
        line: &Arc<Line>,
        request: &Execute,
        expires: tokio::time::Instant,
        served_by: &ServedBy,
    ) -> Result<Read, Failure> {
        let now = Instant::now();
        let deadline = expires.into_std();
        let inline = Control {
            deadline: deadline.min(now + INLINE_PATIENCE),
            steps_max: Some(self.config.inline_steps_max),
        };
        match self.read_now(line.database(), request, inline, served_by) {
            Err(ReadError::Budget { .. } | ReadError::Busy { .. } | ReadError::Deadline) => {
                // Boxed, like all that few requests come to: every request's future is as large as its largest part.
                Box::pin(self.read_long(line, request, deadline, served_by)).await
            }
            read => read_outcome(read, request.deadline),
        }
    }

    async fn read_long(
        &self,
        line: &Arc<Line>,
        request: &Execute,
        deadline: Instant,
        served_by: &ServedBy,
    ) -> Result<Read, Failure> {
        // As many as there are readers: the SQL threads are the writers' too.
        let _permit = tokio::time::timeout_at(deadline.into(), line.long_reads().acquire())
            .await
            .map_err(|_| {
                Failure::new(
                    FailureKind::Overloaded,
                    "D1 DB is overloaded. Requests queued for too long.",
                )
                .retry_after(Duration::from_secs(1))
            })?
            .map_err(|_| shut_down())?;
        let (source, request) = (Arc::clone(line.database()), request.clone());
        let (answer, served_by) = (self.context.answer, served_by.clone());
        let limit = request.deadline;
        let read = move || {
            let mut sink = Renderer::new(request.shape, request.form, answer, &served_by);
            let control = Control::until(deadline);
            let read = source.read(&request.statements, &control, &mut sink);
            read.map(|position| Read::Done(sink.finish(), position))
        };
        match tokio::time::timeout_at(deadline.into(), self.on_sql_thread(read)).await {
            Ok(read) => read_outcome(read?, limit),
            Err(_) => Err(super::deadline(limit)),
        }
    }

    fn read_now(
        &self,
        database: &Database,
        request: &Execute,
        control: Control,
        served_by: &ServedBy,
    ) -> Result<Read, ReadError> {
        let answer = self.context.answer;
        let mut sink = Renderer::new(request.shape, request.form, answer, served_by);
        let position = database.read(&request.statements, &control, &mut sink)?;
        Ok(Read::Done(sink.finish(), position))
    }

    /// Runs what blocks on a thread for that.
    pub(super) async fn on_sql_thread<A: Send + 'static>(
        &self,
        job: impl FnOnce() -> A + Send + 'static,
    ) -> Result<A, Failure> {
        let (done, answer) = oneshot::channel();
        self.environment.threads.run(Box::new(move || {
            // A caller that is gone wants no answer.
            let _ = done.send(job());
        }));
        answer.await.map_err(|_| shut_down())
    }
}

/// Recomputes the checksum of all pages.
pub(super) fn verify(database: &Database) -> Result<Verification, Failure> {
    database.verify().map_err(|error| {
        let kind = match error {
            VerifyError::Slow { .. } => FailureKind::Deadline,
            VerifyError::Busy { .. } => FailureKind::Overloaded,
            VerifyError::Large { .. } => FailureKind::TooLarge,
            VerifyError::Engine(_) | _ => FailureKind::Internal,
        };
        Failure::new(kind, error.to_string())
    })
}

fn read_outcome(read: Result<Read, ReadError>, deadline: Duration) -> Result<Read, Failure> {
    match read {
        Ok(read) => Ok(read),
        Err(ReadError::NotReadOnly { .. }) => Ok(Read::Writes),
        Err(error) => Err(read_failure(error, deadline)),
    }
}

/// What a failed read means to whoever asked.
pub(super) fn read_failure(error: ReadError, limit: Duration) -> Failure {
    match error {
        ReadError::Sql(error) => Failure {
            text: error.text,
            ..Failure::new(FailureKind::Sql, error.message)
        },
        ReadError::Answer(limit) => Failure::new(FailureKind::TooLarge, limit.to_string()),
        ReadError::Deadline => deadline(limit),
        error @ ReadError::Busy { .. } => Failure::new(FailureKind::Overloaded, error.to_string())
            .retry_after(Duration::from_millis(100)),
        error @ ReadError::Damaged { .. } => Failure::new(FailureKind::Damaged, error.to_string()),
        error @ (ReadError::NotReadOnly { .. }
        | ReadError::Budget { .. }
        | ReadError::Storage(_)
        | _) => Failure::new(FailureKind::Internal, error.to_string()),
    }
}
