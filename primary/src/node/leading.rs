//! Requests on the node that leads.

use std::sync::Arc;
use std::time::Duration;

use tidemark_protocol::node::Answer;
use tidemark_protocol::{
    Bookmark, Catalogue, Delivered, Execute, Failure, FailureKind, Freshness, Position,
    ReadContract, Rules, Seq, Term,
};
use tokio::time::{Instant, timeout_at};

use super::reading::Read;
use super::{deadline, no_database};
use crate::cell::Primary;
use crate::consensus::ConfirmError;
use crate::pipeline::{Line, Written, not_leading};

/// A request, and what was found out about it.
struct Task {
    request: Execute,
    /// Whether it is known to be nothing for the readers.
    to_writer: bool,
    /// What its bookmark names.
    seen: Seq,
    term: Term,
    expires: Instant,
}

impl Primary {
    /// Runs a request as the leader of `term`, until `expires`. `None`: this node may lead no more, and nothing
    /// happened.
    pub(super) async fn lead(
        &self,
        request: Execute,
        term: Term,
        expires: Instant,
    ) -> Result<Option<Answer>, Failure> {
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        if catalogue.get(request.database).is_none() {
            return Err(no_database(&request.database.to_string()));
        }
        let line = self.line(request.database).await?;
        let seen = match check_bookmark(&catalogue, &line, &request, expires).await {
            // A deposed leader that has not heard of it must not call a newer state lost.
            Err(failure) if failure.kind == FailureKind::LostBookmark && self.has_peers() => {
                if !self.leads(term, expires).await {
                    return Ok(None);
                }
                return Err(failure);
            }
            seen => seen?,
        };
        // A write finds out by itself: without a quorum it does not commit. Unless it writes nothing.
        let mut delivered = Delivered::default();
        let to_writer = goes_to_writer(&line, &request);
        if !to_writer {
            match self.may_answer(&line, &request, term, expires).await {
                Some(met) => delivered = met,
                None => return Ok(None),
            }
        }
        let task = Task {
            request,
            to_writer,
            seen,
            term,
            expires,
        };
        let Some(written) = self.run(&line, task).await? else {
            return Ok(None);
        };
        if written.wrote || written.repeated {
            delivered.staleness = None;
        }
        let bookmark = Bookmark::issue(catalogue.bookmark_key(), line.id(), written.position);
        Ok(Some(Answer {
            results: written.rendered.results,
            bookmark,
            repeated: written.repeated,
            tally: written.rendered.tally,
            delivered,
        }))
    }

    /// Whether another voter could have been elected without this one.
    fn has_peers(&self) -> bool {
        self.consensus.has_other_voters()
    }

    /// What a read gets that this node, which serves under `term`, answers as the leader. `None`: it may not.
    async fn may_answer(
        &self,
        line: &Line,
        request: &Execute,
        term: Term,
        expires: Instant,
    ) -> Option<Delivered> {
        let first_primary = request.read == ReadContract::FirstPrimary;
        let bounded = request.freshness != Freshness::Any;
        let plain = request.read == ReadContract::Primary;
        let (leads, proved) = if first_primary || request.freshness == Freshness::Linearizable {
            (self.leads(term, expires).await, true)
        } else if !self.has_peers() {
            (true, true)
        } else if plain || bounded {
            (self.leads_by_lease(term, expires).await, true)
        } else {
            (true, false)
        };
        if !leads {
            return None;
        }
        // A replica may have shown what the readers here do not see yet.
        let (sees_all, waited) = if first_primary || bounded {
            let begun = Instant::now();
            let caught_up = timeout_at(expires, line.caught_up()).await;
            caught_up.ok()?;
            (true, begun.elapsed())
        } else {
            (line.is_caught_up(), Duration::ZERO)
        };
        Some(Delivered {
            waited,
            staleness: (proved && sees_all).then_some(Duration::ZERO),
            forwarded: None,
        })
    }

    /// Whether this node certainly still leads: nothing newer can have been acknowledged elsewhere.
    async fn leads(&self, term: Term, expires: Instant) -> bool {
        let confirmed = self.consensus.confirm(left_until(expires)).await;
        self.still_leads(term, confirmed)
    }

    /// The same by the lease, without asking anybody.
    async fn leads_by_lease(&self, term: Term, expires: Instant) -> bool {
        let confirmed = self.consensus.confirm_by_lease(left_until(expires));
        let confirmed = confirmed.await;
        self.still_leads(term, confirmed)
    }

    fn still_leads(&self, term: Term, confirmed: Result<(), ConfirmError>) -> bool {
        if let Err(error) = confirmed {
            tracing::debug!(%error, "leadership is not confirmed");
            return false;
        }
        // Deposed and elected again, it has yet to wait for its writers.
        self.consensus.fence().holds(term)
    }

    /// Reads where the readers are; writes where the writer is. SQLite says which it is. `None`: it wrote
    /// nothing, and this node may lead no more.
    async fn run(&self, line: &Arc<Line>, task: Task) -> Result<Option<Written>, Failure> {
        let Task {
            request,
            to_writer,
            seen,
            term,
            expires,
        } = task;
        if !to_writer {
            let served_by = &self.context.served_by;
            match self.read(line, &request, expires, served_by).await {
                Ok(Read::Done(rendered, position)) => {
                    return Ok(Some(Written {
                        rendered,
                        position,
                        wrote: false,
                        repeated: false,
                    }));
                }
                Ok(Read::Writes) => line.note_write(&request.statements),
                // Perhaps the retry of a write that committed, such as `CREATE TABLE`: its writer knows.
                Err(failure) if failure.kind == FailureKind::Sql && request.request.is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        let limit = request.deadline;
        let written = Box::pin(line.write(request, seen, term, expires)).await?;
        if !written.wrote && self.has_peers() && !self.leads(term, expires).await {
            if Instant::now() >= expires {
                return Err(deadline(limit));
            }
            return Ok(None);
        }
        Ok(Some(written))
    }
}

fn left_until(expires: Instant) -> Duration {
    expires.saturating_duration_since(Instant::now())
}

/// Whether not to try the readers: SQLite said before that it writes, or it is a file, which they do not take.
fn goes_to_writer(line: &Line, request: &Execute) -> bool {
    request.rules == Rules::Script || line.known_to_write(&request.statements)
}

/// What a bookmark asks of the primary: nothing, for it has everything; but it must be one of this
/// history. Gives the sequence number it names, which the next write must exceed (Lamport's rule).
async fn check_bookmark(
    catalogue: &Catalogue,
    line: &Line,
    request: &Execute,
    expires: Instant,
) -> Result<Seq, Failure> {
    let ReadContract::Bookmark(bookmark) = request.read else {
        return Ok(Seq::ZERO);
    };
    let wanted = bookmark
        .verify(catalogue.bookmark_key(), request.database)
        .map_err(|error| Failure::new(FailureKind::BadBookmark, error.to_string()))?;
    let behind = |current: Option<Position>| current.is_some_and(|at| !at.reached(&wanted));
    if behind(line.database().position()) {
        // A replica may have a committed transaction before the readers here do, and hand out its
        // bookmark. Its writer here has been told all the same.
        timeout_at(expires, line.drained())
            .await
            .map_err(|_| deadline(request.deadline))?;
    }
    let Some(current) = line.database().position() else {
        return Ok(wanted.seq);
    };
    let same_age = current.age(&wanted).is_eq();
    if behind(Some(current)) || (same_age && current != wanted) {
        return Err(Failure::new(
            FailureKind::LostBookmark,
            format!(
                "bookmark names position {wanted}, which the history of this database does not \
                 contain: it is at {current}; begin a new session"
            ),
        ));
    }
    Ok(wanted.seq)
}
