//! Reads of a session on a voter that does not lead: from its own copy, as a replica in the same region.
//!
//! 1. The bookmark is verified, and the copy watched until it has reached it, within a part of the request's
//!    deadline ([`OnMiss::patience`]).
//! 2. The statements run on the readers that a leader's reads run on.
//! 3. What this copy cannot answer goes to the leader: writes, bookmarks of a foreign or lost history, a
//!    damaged copy. So does what SQLite refuses, which may be a write that it did not come to know as one; but
//!    once nobody leads, a refusal by the state that was asked for, of a request without an id, is the answer.
//!
//! Why nothing uncommitted can be seen here: readers open the real WAL alone. Into that goes what the state
//! machine hands to the writer, which consensus calls for committed entries only, and on a leader what was
//! acknowledged, which is committed too. What a deposed leader had executed beyond that is in its overlay,
//! which no reader sees, and is discarded. Since positions only grow, a session that carries its bookmark
//! never goes back, whichever voters it asks, an old leader without a majority among them.

use std::cmp::Ordering;
use std::time::Duration;

use tidemark_protocol::node::Answer;
use tidemark_protocol::render::ServedBy;
use tidemark_protocol::trace::TARGET;
use tidemark_protocol::{
    Bookmark, DatabaseId, Delivered, Execute, Failure, FailureKind, OnMiss, Position, ReadContract,
    Rules,
};
use tokio::time::{Instant, timeout_at};
use tracing::field::{self, Empty};
use tracing::{Instrument, debug_span};

use super::reading::Read;
use crate::cell::Primary;

/// How often a read that waits makes sure that there is still something to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Primary {
    /// Answers a session's read from this node's copy. `None`: the leader should.
    pub(super) async fn read_copy(&self, request: &Execute) -> Result<Option<Answer>, Failure> {
        let Some(catalogue) = self.catalogue() else {
            return Ok(None);
        };
        if request.rules == Rules::Script {
            return Ok(None);
        }
        if catalogue.get(request.database).is_none() {
            return Ok(None);
        }
        let Some(line) = self.databases.wake(request.database).await else {
            return Ok(None);
        };
        if line.is_damaged() || line.known_to_write(&request.statements) {
            return Ok(None);
        }
        let wanted = match request.read {
            ReadContract::Bookmark(bookmark) => {
                match bookmark.verify(catalogue.bookmark_key(), request.database) {
                    Ok(wanted) => Some(wanted),
                    // Perhaps of a newer database of the same name, which the catalogue here lacks.
                    Err(_) => return Ok(None),
                }
            }
            ReadContract::FirstUnconstrained
            | ReadContract::Primary
            | ReadContract::FirstPrimary => None,
        };
        let begun = Instant::now();
        if let Some(wanted) = wanted
            && let Err(reached) = self.waits_for(request, wanted).await
        {
            match request.on_miss {
                OnMiss::Forward => return Ok(None),
                OnMiss::Error => return Err(stale(request.database, reached, wanted)),
                OnMiss::Stale => {}
            }
        }
        let waited = begun.elapsed();
        // It may be another one by now.
        let Some(line) = self.databases.wake(request.database).await else {
            return Ok(None);
        };
        let served_by = ServedBy {
            primary: false,
            ..self.context.served_by.clone()
        };
        match self
            .read(&line, request, begun + request.deadline, &served_by)
            .await
        {
            Ok(Read::Done(rendered, position)) => {
                let behind = wanted.is_some_and(|wanted| !position.reached(&wanted));
                let lost = wanted.is_some_and(|wanted| is_lost(position, wanted));
                if lost || (behind && request.on_miss != OnMiss::Stale) {
                    return Ok(None);
                }
                let key = catalogue.bookmark_key();
                Ok(Some(Answer {
                    results: rendered.results,
                    bookmark: Bookmark::issue(key, request.database, position),
                    repeated: false,
                    tally: rendered.tally,
                    delivered: Delivered {
                        waited,
                        ..Delivered::default()
                    },
                }))
            }
            Ok(Read::Writes) => {
                line.note_write(&request.statements);
                Ok(None)
            }
            Err(failure) if failure.kind == FailureKind::Sql => {
                let may_ask = !self.contact.patience().is_zero();
                if may_ask || may_be_the_states_fault(request, wanted, &failure) {
                    return Ok(None);
                }
                Err(failure)
            }
            Err(failure)
                if matches!(failure.kind, FailureKind::Damaged | FailureKind::Internal) =>
            {
                let database = request.database;
                tracing::warn!(%database, %failure, "this node's copy cannot be read");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// [`Self::reaches`], told of if there is anything to wait for.
    async fn waits_for(&self, request: &Execute, wanted: Position) -> Result<(), Option<Position>> {
        let begun = Instant::now();
        let line = self.databases.wake(request.database).await.ok_or(None)?;
        let position = line.database().position();
        drop(line);
        if position.is_some_and(|position| position.reached(&wanted)) {
            return Ok(());
        }
        let span = debug_span!(
            target: TARGET,
            "wait",
            db = %request.database,
            request = request.request.map(field::display),
            %wanted,
            met = Empty,
        );
        let outcome = self.reaches(request, wanted);
        let outcome = outcome.instrument(span.clone()).await;
        span.record("met", outcome.is_ok());
        let took = begun.elapsed();
        self.context.metrics.waited(outcome.is_ok(), took);
        outcome
    }

    /// Waits until readers here see `wanted`. Otherwise says what they see.
    async fn reaches(&self, request: &Execute, wanted: Position) -> Result<(), Option<Position>> {
        let until = Instant::now() + request.on_miss.patience(request.deadline);
        loop {
            let line = self.databases.wake(request.database).await.ok_or(None)?;
            let mut advanced = std::pin::pin!(line.advanced());
            // Before the look: what comes after it wakes.
            advanced.as_mut().enable();
            let position = line.database().position();
            if position.is_some_and(|position| position.reached(&wanted)) {
                return Ok(());
            }
            // Without a leader nothing comes, and it costs nothing to say so.
            let hopeless = request.on_miss == OnMiss::Forward && !self.contact.is_fresh();
            let now = Instant::now();
            if hopeless || now >= until {
                return Err(position);
            }
            // Late or not, the next look decides.
            let _ = timeout_at(until.min(now + LOOK_AGAIN), advanced).await;
        }
    }
}

/// Whether the history of this copy has another state where `wanted` should be.
fn is_lost(reached: Position, wanted: Position) -> bool {
    reached.age(&wanted) == Ordering::Equal && reached != wanted
}

/// Whether the leader might not refuse what SQLite refuses here.
fn may_be_the_states_fault(request: &Execute, wanted: Option<Position>, refused: &Failure) -> bool {
    // A table that is made again is refused before it is known to be a write.
    let may_be_a_retry = request.request.is_some();
    let may_be_too_old = wanted.is_none() && request.on_miss == OnMiss::Forward;
    let blames_the_file = ["SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR"]
        .iter()
        .any(|code| refused.message.contains(code));
    may_be_a_retry || may_be_too_old || blames_the_file
}

fn stale(database: DatabaseId, reached: Option<Position>, wanted: Position) -> Failure {
    let reached = reached.map_or_else(|| "no known state".to_owned(), |at| at.to_string());
    let text = format!("database {database} is at {reached} on this node, wanted {wanted}");
    Failure::new(FailureKind::Stale, text)
}
