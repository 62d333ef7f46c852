//! The path of one read.
//!
//! 1. The contract: what only the primary may answer is handed on.
//! 2. The bookmark is verified, and the copy watched until it has reached it and is proved to be as fresh as
//!    asked for ([`judge`]), within a part of the request's deadline, and for as long as waiting is expected to be
//!    shorter than the trip to the primary.
//! 3. The statements run here on one snapshot: first where the request stands with a small budget of
//!    steps, which is enough for point reads; else on a SQL thread.
//! 4. The answer names the exact state that was read, and a session never gets less than its bookmark.
//!
//! What writes, what is unknown here and what this copy is too old to understand goes to the primary. A
//! write that SQLite refuses to compile is not known to be one, so each such refusal goes there as well, while
//! there is a primary to ask; and whatever SQLite refuses of a request with an id, which may be the retry of
//! a write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_engine::{Control, ReadError};
use tidemark_protocol::catalogue::Catalogue;
use tidemark_protocol::node::Answer;
use tidemark_protocol::render::{Rendered, Renderer, ResultSink};
use tidemark_protocol::trace::TARGET;
use tidemark_protocol::{
    Bookmark, BookmarkError, DatabaseId, Delivered, Execute, Executed, Failure, FailureKind,
    Freshness, OnMiss, Position, ReadContract, Rules, Statement, Why,
};
use tokio::time::{sleep_until, timeout_at};
use tracing::field::{self, Empty};
use tracing::{Instrument, Span, debug_span};

use crate::copy::{Copy, Item, Open};
use crate::core::Core;
use crate::node::SUCCESSOR_WAIT;
use crate::wait::{Miss, Outlook, Verdict, Wish, judge, shortfall};

/// Longest wait for a free reader on a thread that must not block.
const INLINE_WAIT: Duration = Duration::from_micros(500);
/// How often a read that waits looks whether that is still worth it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One read on its way.
struct Read<'a> {
    core: &'a Core,
    catalogue: Arc<Catalogue>,
    copy: Arc<Copy>,
    request: Execute,
    /// The least state to be read.
    wanted: Option<Position>,
    begun: Instant,
    deadline: Instant,
    delivered: Delivered,
}

/// Answers a request, or says that the primary should.
pub(crate) async fn execute(core: &Core, request: Execute) -> Result<Executed, Failure> {
    let begun = Instant::now();
    let deadline = begun + request.deadline;
    let leaders = matches!(
        request.read,
        ReadContract::Primary | ReadContract::FirstPrimary
    );
    if leaders || request.freshness == Freshness::Linearizable {
        return Ok(forward(core, Why::Contract));
    }
    if request.rules == Rules::Script {
        return Ok(forward(core, Why::Write));
    }
    let copy = core
        .copy(request.database)
        .filter(|copy| copy.id() != DatabaseId::CATALOGUE);
    let (Some(copy), Some(catalogue)) = (copy, core.catalogue()) else {
        return Ok(forward(core, Why::UnknownDatabase));
    };
    let wanted = match request.read {
        ReadContract::Bookmark(bookmark) => {
            match bookmark.verify(catalogue.bookmark_key(), request.database) {
                Ok(wanted) => Some(wanted),
                // Perhaps of a newer database of the same name, which the catalogue here lacks.
                Err(BookmarkError::ForeignDatabase { .. })
                    if request.on_miss == OnMiss::Forward =>
                {
                    return Ok(forward(core, Why::Bookmark));
                }
                Err(error) => {
                    let message = format!("bookmark {bookmark}: {error}");
                    return Err(Failure::new(FailureKind::BadBookmark, message));
                }
            }
        }
        ReadContract::FirstUnconstrained | ReadContract::Primary | ReadContract::FirstPrimary => {
            None
        }
    };
    Read {
        core,
        catalogue,
        copy,
        request,
        wanted: wanted.filter(|_| !loses_bookmark()),
        begun,
        deadline,
        delivered: Delivered::default(),
    }
    .run()
    .await
}

/// Never, but where a test wants to see that it is noticed.
fn loses_bookmark() -> bool {
    fail::fail_point!("sabotage::bookmark", |_| true);
    false
}

fn forward(core: &Core, why: Why) -> Executed {
    core.metrics().forward(why.name());
    Executed::Forward(why)
}

impl Read<'_> {
    async fn run(mut self) -> Result<Executed, Failure> {
        let mut verdict = self.judge(true);
        loop {
            verdict = match verdict {
                Verdict::Read => match self.copy.open() {
                    Some(open) => {
                        self.delivered.waited = self.begun.elapsed();
                        return self.read(open).await;
                    }
                    // It is being closed this very moment: what comes of that is said next.
                    None => {
                        tokio::task::yield_now().await;
                        Verdict::Wait
                    }
                },
                Verdict::Miss(miss) => return self.miss(miss).await,
                Verdict::Hopeless(_) => {
                    let took = self.begun.elapsed();
                    self.core.metrics().wait("hopeless", took);
                    return Ok(forward(self.core, Why::Predicted));
                }
                Verdict::Wait | Verdict::Wake => {
                    let span = self.wait_span();
                    let verdict = self.wait().instrument(span.clone()).await;
                    span.record("met", verdict == Verdict::Read);
                    verdict
                }
            };
        }
    }

    /// What to do now, and how old what could be read now is at most. `patient`: there is time to wait.
    fn judge(&mut self, patient: bool) -> Verdict {
        let soundings = &self.core.site.soundings;
        let sight = self.copy.sight();
        self.delivered.staleness = sight.complete.map(|at| at.elapsed());
        let wish = Wish {
            wanted: self.wanted,
            bound: match self.request.freshness {
                Freshness::MaxStaleness(bound) => Some(bound),
                Freshness::Any | Freshness::Linearizable => None,
            },
            staleness: self.delivered.staleness,
            on_miss: self.request.on_miss,
        };
        // Most reads need none.
        let verdict = |outlook: Option<&Outlook>| {
            self.copy
                .stands_so(|standing| judge(standing, &wish, outlook))
        };
        let at_once = verdict(patient.then(Outlook::default).as_ref());
        if !patient || matches!(at_once, Verdict::Read) {
            return at_once;
        }
        let outlook = Outlook {
            pace: sight.pace,
            work: sight.work,
            backlog: sight.backlog,
            ..soundings.outlook()
        };
        verdict(Some(&outlook))
    }

    /// The span around waiting, for whom it may concern.
    fn wait_span(&self) -> Span {
        debug_span!(
            target: TARGET,
            "wait",
            db = %self.request.database,
            request = self.request.request.map(field::display),
            wanted = self.wanted.map(field::display),
            met = Empty,
        )
    }

    /// Waits until the copy meets the contract, or time is up, or what it lacks is not about to come.
    async fn wait(&mut self) -> Verdict {
        let Execute {
            on_miss, deadline, ..
        } = self.request;
        let until = self.deadline - deadline + on_miss.patience(deadline);
        let bounded = self.request.freshness != Freshness::Any;
        let soundings = &self.core.site.soundings;
        let mut answers = soundings.answers();
        let mut standing = self.copy.standing();
        loop {
            standing.borrow_and_update();
            answers.borrow_and_update();
            let verdict = self.judge(true);
            match verdict {
                Verdict::Wait => {}
                Verdict::Wake => self.copy.feed(Item::Wake),
                Verdict::Hopeless(_) => return verdict,
                Verdict::Read | Verdict::Miss(_) => {
                    let met = verdict == Verdict::Read;
                    let outcome = if met { "met" } else { "hopeless" };
                    self.core.metrics().wait(outcome, self.begun.elapsed());
                    return verdict;
                }
            }
            if bounded {
                soundings.ask_if_none_is_due();
            }
            let now = Instant::now();
            if now >= until {
                break;
            }
            // While nothing happens the outlook gets worse.
            let look = until.min(now + LOOK_AGAIN);
            tokio::select! {
                changed = standing.changed() => if changed.is_err() { break },
                _ = answers.changed() => {}
                () = sleep_until(look.into()) => {}
            }
        }
        let verdict = self.judge(false);
        let met = verdict == Verdict::Read;
        let outcome = if met { "met" } else { "missed" };
        self.core.metrics().wait(outcome, self.begun.elapsed());
        verdict
    }

    /// The contract is missed: what the request says to that.
    async fn miss(mut self, miss: Miss) -> Result<Executed, Failure> {
        if miss != Miss::Gone
            && self.request.on_miss == OnMiss::Stale
            && let Some(open) = self.copy.awake(self.deadline.into()).await
        {
            self.wanted = None;
            self.delivered.waited = self.begun.elapsed();
            return self.read(open).await;
        }
        self.refused(miss)
    }

    /// The contract is missed, and nothing else can be read instead.
    fn refused(&self, miss: Miss) -> Result<Executed, Failure> {
        let database = self.request.database;
        if miss == Miss::Gone {
            return Ok(forward(self.core, Why::UnknownDatabase));
        }
        if self.request.on_miss == OnMiss::Forward {
            let why = match miss {
                Miss::Behind { .. } | Miss::Old { .. } => Why::Behind,
                Miss::Lost { .. } => Why::Bookmark,
                Miss::Unreadable { .. } | Miss::Gone => Why::Unreadable,
            };
            return Ok(forward(self.core, why));
        }
        let wanted = self
            .wanted
            .map_or_else(|| "any state".to_owned(), |wanted| wanted.to_string());
        Err(match miss {
            Miss::Behind { reached } => Failure::new(
                FailureKind::Stale,
                format!("database {database} is at {reached} on this replica, wanted {wanted}"),
            ),
            Miss::Old { staleness } => {
                let known = staleness.map_or_else(
                    || "for an unknown time".to_owned(),
                    |staleness| format!("in the last {staleness:?}"),
                );
                let wanted = self.request.freshness;
                let text = format!(
                    "database {database} may miss on this replica what was committed {known}, wanted {wanted}"
                );
                Failure::new(FailureKind::Stale, text)
            }
            Miss::Lost { reached } => Failure::new(
                FailureKind::LostBookmark,
                format!("database {database} is at {reached}, its history does not have {wanted}"),
            ),
            Miss::Unreadable { reason } => Failure::new(
                FailureKind::Damaged,
                format!("the copy of database {database} cannot be read: {reason}"),
            ),
            Miss::Gone => Failure::new(
                FailureKind::NoDatabase,
                format!("database {database} is not on this replica"),
            ),
        })
    }

    /// Runs the statements.
    async fn read(&mut self, open: Arc<Open>) -> Result<Executed, Failure> {
        let Execute {
            shape,
            form,
            database,
            ..
        } = self.request;
        let mut renderer =
            Renderer::new(shape, form, self.core.config.answer, &self.core.served_by);

        let inline = Control {
            deadline: self.deadline.min(Instant::now() + INLINE_WAIT),
            steps_max: Some(self.core.config.inline_steps_max),
        };
        let mut result = open
            .database
            .read(&self.request.statements, &inline, &mut renderer);
        if let Err(ReadError::Budget { .. } | ReadError::Busy { .. } | ReadError::Deadline) = result
        {
            renderer.reset();
            let statements = std::mem::take(&mut self.request.statements);
            (result, renderer) = self.read_on_thread(open, statements, renderer).await?;
        }
        let position = match result {
            Ok(position) => position,
            Err(error) => return self.failed(&error),
        };
        if let Some(miss) = shortfall(position, self.wanted, self.request.on_miss) {
            // The copy was exchanged between the promise and the read.
            tracing::warn!(db = %database, %position, wanted = ?self.wanted, "read went back");
            return self.refused(miss);
        }
        self.core.metrics().reads.inc();
        let Rendered { results, tally } = renderer.finish();
        Ok(Executed::Answer(Answer {
            results,
            bookmark: Bookmark::issue(self.catalogue.bookmark_key(), database, position),
            repeated: false,
            tally,
            delivered: self.delivered,
        }))
    }

    async fn read_on_thread(
        &self,
        open: Arc<Open>,
        statements: Vec<Statement>,
        mut renderer: Renderer,
    ) -> Result<(Result<Position, ReadError>, Renderer), Failure> {
        let control = Control::until(self.deadline);
        let reading = self.core.on_thread(move || {
            let result = open.database.read(&statements, &control, &mut renderer);
            (result, renderer)
        });
        match timeout_at(self.deadline.into(), reading).await {
            Ok(Some(read)) => Ok(read),
            Ok(None) => Err(Failure::new(FailureKind::Internal, "the read panicked")),
            Err(_) => Err(self.too_late()),
        }
    }

    /// A read failed: what that means for the request.
    fn failed(&self, error: &ReadError) -> Result<Executed, Failure> {
        let kind = match error {
            ReadError::NotReadOnly { .. } => return Ok(forward(self.core, Why::Write)),
            ReadError::Sql(error) => {
                if blames_the_file(error.code) {
                    self.copy.feed(Item::Suspect);
                    return self.damaged(&error.message);
                }
                if self.may_be_a_retry() || self.may_be_too_old_for(error.code) {
                    return Ok(forward(self.core, Why::Sql));
                }
                FailureKind::Sql
            }
            ReadError::Answer(_) => FailureKind::TooLarge,
            ReadError::Deadline | ReadError::Budget { .. } => return Err(self.too_late()),
            ReadError::Busy { .. } => FailureKind::Overloaded,
            ReadError::Damaged { .. } => {
                return self.damaged("its content is at no known position");
            }
            ReadError::Storage(cause) => {
                self.copy.feed(Item::Suspect);
                return self.damaged(&cause.to_string());
            }
            _ => FailureKind::Internal,
        };
        Err(Failure::new(kind, error.to_string()))
    }

    /// Whether the request may have taken effect at an earlier try: SQLite refuses a table that is made
    /// again before it is known to be a write. Only the primary knows, so the on-miss rule, which is
    /// about reads, does not count.
    fn may_be_a_retry(&self) -> bool {
        self.request.request.is_some()
    }

    /// Whether a newer state might understand what this one does not, such as a table that was not
    /// there yet: SQLite's generic code. A session that asked for this state gets the refusal only while
    /// nobody can be asked: it may be of a write, which is for the newest state whatever the session has seen.
    fn may_be_too_old_for(&self, code: &str) -> bool {
        let nobody_asked_for_it = self.wanted.is_none() && self.request.on_miss == OnMiss::Forward;
        let has_primary = self.core.alone_for() < SUCCESSOR_WAIT;
        code == "SQLITE_ERROR" && (nobody_asked_for_it || has_primary)
    }

    fn damaged(&self, reason: &str) -> Result<Executed, Failure> {
        if self.request.on_miss == OnMiss::Forward {
            return Ok(forward(self.core, Why::Unreadable));
        }
        let database = self.request.database;
        let message = format!("the copy of database {database} cannot be read: {reason}");
        Err(Failure::new(FailureKind::Damaged, message))
    }

    fn too_late(&self) -> Failure {
        let message = format!(
            "the read did not end within the deadline of {:?}",
            self.request.deadline
        );
        Failure::new(FailureKind::Deadline, message)
    }
}

/// Whether SQLite's code speaks of the file, not of the statement. A virtual table is corrupt when its
/// content contradicts itself, which statements alone can bring about.
fn blames_the_file(code: &str) -> bool {
    code != "SQLITE_CORRUPT_VTAB"
        && ["SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR"]
            .iter()
            .any(|prefix| code.starts_with(prefix))
}
