//! The one writer of a database: executes on top of the tip, flushes what is committed, answers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemark_engine::{
    ApplyError, CheckpointMode, Control, Database, EngineError, ExecuteError, Owner, Stamp,
};
use tidemark_protocol::render::{
    AnswerBounds, Rendered, Renderer, ResultSink, ScriptRenderer, ServedBy, Tally,
};
use tidemark_protocol::{
    DatabaseId, Execute, Failure, FailureKind, PAGE_SIZE, PageNo, Position, RequestId, Rules, Seq,
    Term, Transaction,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot, watch};

use super::held::Held;
use super::line::{Arrived, Line, Written, unknown};
use super::remembered::Remembered;
use super::room::Room;
use super::spans::Spans;
use crate::cell::Environment;
use crate::consensus::Consensus;
use crate::databases::HighestProposed;
use crate::metrics::{DatabaseMeter, Metrics, Stage};
use crate::ship::recent::Recent;

/// Frames in the WAL from which a commit is followed by a checkpoint that waits for nobody.
const CHECKPOINT_FRAMES: u32 = 4_000;
/// Frames from which the checkpoint also waits a little for readers, so that the WAL can start over.
const RESTART_FRAMES: u32 = 8_000;
/// The `result` array of a repeated request whose first answer was too long to keep.
const NOT_KEPT: Bytes = Bytes::from_static(b"[]");
/// What an execution may take for another to be expected that takes no longer.
const SHORT_MAX: Duration = Duration::from_micros(500);
/// Wait before a client should retry what a moment will mend.
const SOON: Duration = Duration::from_millis(50);

/// What all writers of a node share.
#[derive(Debug)]
pub(crate) struct PipelineContext {
    /// Set once consensus has started, which needs the databases first.
    pub(crate) consensus: OnceLock<Consensus>,
    /// Rung when the catalogue changed.
    pub(crate) catalogue_changed: Notify,
    /// Why this node's process has to exit and recover from its files, once it has to.
    pub(crate) fatal: watch::Sender<Option<String>>,
    pub(crate) recent: Arc<Recent>,
    pub(crate) environment: Environment,
    pub(crate) served_by: ServedBy,
    pub(crate) answer: AnswerBounds,
    pub(crate) writes_in_flight_max: usize,
    pub(crate) room: Room,
    pub(crate) readers_max: usize,
    pub(crate) metrics: Arc<Metrics>,
}

impl PipelineContext {
    /// This node cannot go on: what it holds in memory and what is in its files may differ.
    pub(crate) fn give_up(&self, reason: String) {
        tracing::error!(reason, "this node cannot go on");
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            fatal.get_or_insert(reason);
            first
        });
    }

    /// The term in which this node leads, and knows everything committed before.
    fn term(&self) -> Option<Term> {
        let consensus = self.consensus.get()?;
        let leadership = consensus.leadership();
        let leadership = leadership.borrow();
        leadership.leading.then_some(leadership.term)
    }
}

/// Who waits for the answer to a write, and the write's place among those of its database, free once it has it.
#[derive(Debug)]
pub(crate) struct Waiter {
    answer: oneshot::Sender<Result<Written, Failure>>,
    _permit: OwnedSemaphorePermit,
}

impl Waiter {
    pub(crate) fn new(
        answer: oneshot::Sender<Result<Written, Failure>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            answer,
            _permit: permit,
        }
    }

    fn send(self, answer: Result<Written, Failure>) {
        // Whoever is gone wants no answer.
        let _ = self.answer.send(answer);
    }
}

/// An executed request whose answer is held back until everything it saw is committed.
#[derive(Debug)]
struct InFlight {
    /// Answered when this is acknowledged.
    up_to: Position,
    /// Whether it is a transaction of its own, rather than a request that wrote nothing.
    proposed: bool,
    request: Option<RequestId>,
    /// Also a refusal by SQLite: it may rest on rows that are not committed.
    answer: Result<Written, Failure>,
    waiters: Vec<Waiter>,
    since: Instant,
    spans: Spans,
}

/// Committed transactions did not reach the files.
#[derive(Debug)]
enum FlushError {
    /// A write failed.
    Files(EngineError),
    /// They do not start from what the files hold, or do not lead where they say.
    Content(ApplyError),
}

impl From<EngineError> for FlushError {
    fn from(error: EngineError) -> Self {
        Self::Files(error)
    }
}

/// The one writer of a database. Lives in a strand.
#[derive(Debug)]
pub(crate) struct Writer {
    line: Weak<Line>,
    owner: Owner,
    database: Arc<Database>,
    directory: PathBuf,
    in_flight: VecDeque<InFlight>,
    /// The last of those, which are proposed together. Shared with the pulse of the statements that run.
    held: Arc<Mutex<Held>>,
    /// A proposal was refused or lost: nothing new begins until what was proposed before it is
    /// settled and the overlay is discarded.
    stalled: bool,
    deleted: bool,
    /// A peer's copy takes the place of this one: its files are not written any more.
    retired: bool,
    /// Frames in the WAL from which a checkpoint waits a little for readers.
    restart_from: u32,
    proposed: HighestProposed,
    remembered: Remembered,
    meter: DatabaseMeter,
    context: Arc<PipelineContext>,
}

impl Writer {
    pub(crate) fn new(
        line: Weak<Line>,
        owner: Owner,
        database: Arc<Database>,
        directory: PathBuf,
        remembered: Remembered,
        proposed: HighestProposed,
        context: Arc<PipelineContext>,
    ) -> Self {
        let held = Held::new(line.clone(), Arc::clone(&context));
        let held = Arc::new(Mutex::new(held));
        let while_running = Arc::clone(&held);
        owner.set_pulse(move || lock(&while_running).propose_if_overdue());
        Self {
            line,
            owner,
            directory,
            in_flight: VecDeque::new(),
            held,
            stalled: false,
            deleted: false,
            retired: false,
            restart_from: RESTART_FRAMES,
            proposed,
            remembered,
            meter: context.metrics.meter(database.id()),
            database,
            context,
        }
    }

    /// Step 2 of a write. `after` is the highest sequence number seen in a valid bookmark.
    pub(crate) fn execute(
        &mut self,
        request: &Execute,
        after: Seq,
        term: Term,
        deadline: Instant,
        waiter: Waiter,
        spans: Spans,
    ) {
        // This may take long, and the next, and nobody knows how many there are.
        self.held().propose_if_overdue();
        let Some(waiter) = self.earlier_try(request.request, waiter) else {
            spans.repeated();
            return;
        };
        let began = Instant::now();
        let ran = self.run(request, after, term, deadline);
        let took = began.elapsed();
        self.context.metrics.stage(Stage::Execute, took);
        match ran {
            Ok((rendered, transaction)) => {
                self.propose(request.request, term, rendered, transaction, waiter, spans)
            }
            Err(failure) => self.refuse(failure, waiter, spans),
        }
        self.meter.overlay(self.owner.overlay_bytes());
        let held = self.held();
        // With nothing before them in flight there is no time to gain.
        let alone = held.len() >= self.in_flight.len();
        let due = alone || held.is_full() || took > SHORT_MAX;
        drop(held);
        if due {
            self.propose_held();
        }
    }

    /// Answers a request that failed: once what it saw is committed, if it says anything about that.
    fn refuse(&mut self, failure: Failure, waiter: Waiter, mut spans: Spans) {
        let tip = self
            .owner
            .tip()
            .filter(|tip| Some(*tip) != self.owner.position());
        match (failure.kind, tip) {
            (FailureKind::Sql | FailureKind::TooLarge, Some(up_to)) => {
                self.in_flight.push_back(InFlight {
                    up_to,
                    proposed: false,
                    request: None,
                    answer: Err(failure),
                    waiters: vec![waiter],
                    since: Instant::now(),
                    spans,
                });
            }
            _ => {
                spans.answered(Err(failure.kind.name()));
                waiter.send(Err(failure));
            }
        }
    }

    /// Answers from, or joins, an earlier try of the same request. Gives the waiter back if there is
    /// none.
    fn earlier_try(&mut self, request: Option<RequestId>, waiter: Waiter) -> Option<Waiter> {
        let Some(request) = request.filter(|_| !forgets_requests()) else {
            return Some(waiter);
        };
        if let Some(outcome) = self.remembered.get(&request) {
            let written = Written {
                rendered: Rendered {
                    results: outcome.answer.clone().unwrap_or(NOT_KEPT),
                    tally: Tally::default(),
                },
                position: outcome.position,
                wrote: true,
                repeated: true,
            };
            waiter.send(Ok(written));
            return None;
        }
        let same = self
            .in_flight
            .iter_mut()
            .find(|entry| entry.request == Some(request));
        match same {
            Some(entry) => {
                entry.waiters.push(waiter);
                None
            }
            None => Some(waiter),
        }
    }

    fn run(
        &mut self,
        request: &Execute,
        after: Seq,
        term: Term,
        deadline: Instant,
    ) -> Result<(Rendered, Option<Transaction>), Failure> {
        if self.deleted {
            return Err(crate::node::no_database(&self.database.id().to_string()));
        }
        if self.retired || self.context.term() != Some(term) {
            // Let in under a leadership that is over; what it knew may be gone.
            return Err(not_leading());
        }
        if self.stalled {
            return Err(Failure::new(
                FailureKind::Unavailable,
                "a transaction before this one was refused; the database starts over in a moment",
            )
            .retry_after(SOON));
        }
        fail::fail_point!("primary::before_execute");
        let stamp = Stamp {
            request: request.request,
            proposed_at_ms: self.context.environment.clock.unix_ms(),
            after: after.max(self.proposed.get()),
        };
        let control = Control {
            deadline,
            steps_max: None,
        };
        let PipelineContext {
            answer, served_by, ..
        } = &*self.context;
        let (shape, form) = (request.shape, request.form);
        let ran = match request.rules {
            Rules::Request => {
                let mut sink = Renderer::new(shape, form, *answer, served_by);
                let ran = run_under(&mut self.owner, request, &stamp, &control, &mut sink);
                ran.map(|transaction| (sink.finish(), transaction))
            }
            Rules::Script => {
                let mut sink = ScriptRenderer::new(form, served_by);
                let ran = run_under(&mut self.owner, request, &stamp, &control, &mut sink);
                ran.map(|transaction| (sink.finish(), transaction))
            }
        };
        ran.inspect_err(|_| self.end_if_failed())
            .map_err(|error| execute_failure(error, request.deadline))
    }

    fn propose(
        &mut self,
        request: Option<RequestId>,
        term: Term,
        rendered: Rendered,
        transaction: Option<Transaction>,
        waiter: Waiter,
        mut spans: Spans,
    ) {
        spans.enter(Stage::Replicate);
        let stage = spans.stage();
        let up_to = self
            .owner
            .tip()
            .expect("a database that executed has a position");
        let proposed = transaction.is_some();
        let answer = Ok(Written {
            rendered,
            position: up_to,
            wrote: proposed,
            repeated: false,
        });
        let mut waiters = vec![waiter];
        if opens_gate_early() {
            for waiter in waiters.drain(..) {
                waiter.send(answer.clone());
            }
        }
        self.in_flight.push_back(InFlight {
            up_to,
            proposed,
            request: request.filter(|_| proposed),
            answer,
            waiters,
            since: Instant::now(),
            spans,
        });
        match transaction {
            None => self.answer(),
            Some(transaction) => {
                self.proposed.set(up_to.seq);
                self.held().push(term, up_to, transaction, stage);
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    /// Step 3. To be called before anything else than an execution, and before the writer rests.
    pub(crate) fn propose_held(&mut self) {
        let mut held = lock(&self.held);
        // Nothing more is built on what is known to be refused; its own job comes later, and drops the rest.
        self.stalled |= held.is_refused();
        if self.stalled {
            held.drop_all();
        } else {
            held.propose();
            self.stalled = held.is_refused();
        }
    }

    /// Step 5: everything that was committed meanwhile reaches the real WAL in one go.
    pub(crate) fn commit(&mut self) {
        let Some(line) = self.line.upgrade() else {
            return;
        };
        let committed = line.take_committed();
        // Until they are in the files: given back at the end of this.
        let mut shares = Vec::new();
        if self.retired || self.deleted {
            return;
        }
        let mut acknowledged: Option<Seq> = None;
        let mut foreign: Vec<Transaction> = Vec::new();
        let mut mine = self.in_flight.iter_mut().filter(|entry| entry.proposed);
        let mut next_of_mine = mine.next();
        let transactions = committed.len();
        for Arrived { transaction, share } in committed {
            shares.push(share);
            self.remembered.note(&transaction);
            let next = transaction.header().next;
            match next_of_mine {
                Some(entry) if foreign.is_empty() && entry.up_to == next => {
                    let metrics = &self.context.metrics;
                    metrics.stage(Stage::Replicate, entry.since.elapsed());
                    entry.spans.enter(Stage::Flush);
                    acknowledged = Some(next.seq);
                    next_of_mine = mine.next();
                }
                _ => foreign.push(transaction),
            }
        }
        let began = Instant::now();
        let outcome = self.flush(&line, acknowledged, &foreign);
        self.context.metrics.flushed(transactions, began.elapsed());
        self.meter.overlay(self.owner.overlay_bytes());
        if let Err(error) = outcome {
            if line.is_deleted() {
                return; // and its files with it, perhaps in the middle of this
            }
            // The log has it; the files do not. Nothing more may be answered from them.
            line.mark_damaged();
            self.context.metrics.damaged();
            self.fail_all(|entry| unknown(entry.request, "the database's files failed"));
            let database = self.database.id();
            match error {
                FlushError::Files(error) => self
                    .context
                    .give_up(format!("database {database}: {error}")),
                // A new start would find the same.
                FlushError::Content(error) => {
                    tracing::error!(%database, %error, "committed transactions do not fit this copy");
                }
            }
            return;
        }
        fail::fail_point!("primary::before_answer");
        line.tell_readers();
        self.answer();
        if self.database.id() == DatabaseId::CATALOGUE {
            self.context.catalogue_changed.notify_one();
        }
        self.checkpoint_if_due();
    }

    fn flush(
        &mut self,
        line: &Line,
        acknowledged: Option<Seq>,
        foreign: &[Transaction],
    ) -> Result<(), FlushError> {
        if let Some(seq) = acknowledged {
            self.owner.acknowledge(seq)?;
        }
        if foreign.is_empty() {
            return Ok(());
        }
        if acknowledged.is_some() {
            // Before the rest is given up, or what follows fails.
            line.tell_readers();
            self.answer();
        }
        if self.owner.tip() != self.owner.position() {
            // Another leader's work takes the place of what this node had speculated.
            self.owner.discard()?;
            self.fail_all(|entry| unknown(entry.request, "another node leads"));
        }
        let mut rest = foreign;
        while let (None, [first, others @ ..]) = (self.owner.position(), rest) {
            if let Some(position) = self.owner.replay(first)? {
                tracing::info!(database = %self.database.id(), %position, "the log identified the content");
            }
            rest = others;
        }
        // What the log repeats after a restart is in the files already.
        let Some(current) = self.owner.position() else {
            return Ok(());
        };
        let new = rest.iter().position(|t| !current.reached(&t.header().next));
        let Some(new) = new else { return Ok(()) };
        match self.owner.apply(&rest[new..]) {
            Ok(_) => Ok(()),
            Err(ApplyError::Storage(error)) => Err(error.into()),
            // The chain was checked in log order already: this copy is not what it seems.
            Err(error) => Err(FlushError::Content(error)),
        }
    }

    /// Step 6: the output gate.
    fn answer(&mut self) {
        let Some(acknowledged) = self.owner.position() else {
            return;
        };
        while self
            .in_flight
            .front()
            .is_some_and(|entry| acknowledged.reached(&entry.up_to))
        {
            let mut entry = self.in_flight.pop_front().expect("looked at above");
            if entry.proposed {
                self.context.metrics.committed(entry.since.elapsed());
                self.meter.committed();
            }
            let outcome = entry.answer.as_ref().map(|written| written.position);
            entry
                .spans
                .answered(outcome.map_err(|failure| failure.kind.name()));
            for waiter in entry.waiters {
                waiter.send(entry.answer.clone());
            }
        }
        self.settle();
    }

    /// See [`Line::refused`].
    pub(crate) fn refused(&mut self, next: Position, why: &'static str) {
        self.drop_from(next, |_| {
            Failure::new(
                FailureKind::Unavailable,
                format!("the write did not happen: {why}"),
            )
            .retry_after(SOON)
        });
    }

    /// See [`Line::lost`].
    pub(crate) fn lost(&mut self, next: Position) {
        self.drop_from(next, |entry| {
            unknown(entry.request, "contact with the log was lost")
        });
    }

    /// See [`Line::deleted`].
    pub(crate) fn deleted(&mut self) {
        self.deleted = true;
        let database = self.database.id().to_string();
        self.fail_all(|_| crate::node::no_database(&database));
    }

    /// See [`Line::retire`].
    pub(crate) fn retire(&mut self) {
        self.retired = true;
        self.fail_all(|entry| {
            unknown(entry.request, "another voter's copy took the place of this")
        });
    }

    /// The table of requests, as its file has it.
    pub(crate) fn requests(&self) -> Bytes {
        self.remembered.encode().into()
    }

    /// See [`Line::page_hashes`].
    pub(crate) fn page_hashes(&self) -> Vec<u64> {
        self.owner.page_hashes().to_vec()
    }

    /// See [`Line::page`].
    pub(crate) fn page(&mut self, page: PageNo) -> Result<Box<[u8; PAGE_SIZE]>, EngineError> {
        let mut image = Box::new([0; PAGE_SIZE]);
        self.owner.page(page, &mut image)?;
        Ok(image)
    }

    /// See [`Line::step_down`].
    pub(crate) fn step_down(&mut self) {
        self.fail_all(|entry| unknown(entry.request, "this node leads no more"));
        if self.owner.tip() != self.owner.position() {
            self.stalled = true;
        }
        self.settle();
    }

    fn drop_from(&mut self, next: Position, failure: impl Fn(&InFlight) -> Failure) {
        let mut entries = self.in_flight.iter();
        let Some(at) = entries.position(|e| e.proposed && e.up_to == next) else {
            return;
        };
        self.stalled = true;
        self.fail_after(at, failure);
        self.settle();
    }

    fn fail_all(&mut self, failure: impl Fn(&InFlight) -> Failure) {
        self.fail_after(0, failure);
    }

    /// Leaves the first `kept` as they are.
    fn fail_after(&mut self, kept: usize, failure: impl Fn(&InFlight) -> Failure) {
        for mut entry in self.in_flight.drain(kept..) {
            let failure = failure(&entry);
            entry.spans.answered(Err(failure.kind.name()));
            for waiter in entry.waiters {
                waiter.send(Err(failure.clone()));
            }
        }
    }

    /// Ends a stall once nothing is in flight any more.
    fn settle(&mut self) {
        if !self.stalled || !self.in_flight.is_empty() {
            return;
        }
        match self.owner.discard() {
            Ok(()) => self.stalled = false,
            Err(error) => {
                tracing::error!(database = %self.database.id(), %error, "discard failed");
                self.end_if_failed();
            }
        }
        self.meter.overlay(self.owner.overlay_bytes());
    }

    /// A database whose files failed takes no commits any more, nor lets the log be cut. The process ends
    /// now, not when the next commit or checkpoint finds out.
    fn end_if_failed(&self) {
        if let Some(failure) = self.owner.failure() {
            let database = self.database.id();
            self.context
                .give_up(format!("database {database}: {failure}"));
        }
    }

    fn checkpoint_if_due(&mut self) {
        let frames = self.owner.wal_frames();
        let mode = if frames >= self.restart_from {
            CheckpointMode::Restart
        } else if frames >= CHECKPOINT_FRAMES {
            CheckpointMode::Passive
        } else {
            return;
        };
        fail::fail_point!("primary::before_checkpoint");
        match self.owner.checkpoint(mode) {
            Ok(report) if mode == CheckpointMode::Restart => {
                // A reader that stays, such as an image on its way, must not cost each commit that wait.
                self.restart_from = if report.busy {
                    frames.saturating_add(RESTART_FRAMES)
                } else {
                    RESTART_FRAMES
                };
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(database = %self.database.id(), %error, "checkpoint failed");
                self.end_if_failed();
            }
        }
    }

    /// See [`Line::persist`]. The table of requests too: the log may be purged after this. A checkpoint that
    /// fails, for lack of room too, ends the process: the file is half-way between two states. The table is
    /// replaced whole, so one that finds no room may be tried again later.
    pub(crate) fn persist(&mut self) -> Result<Position, EngineError> {
        if self.retired || self.deleted {
            return Ok(self.owner.durable());
        }
        fail::fail_point!("primary::before_requests");
        self.remembered
            .save(&self.directory)
            .map_err(|source| EngineError::Io {
                doing: "write the table of requests in",
                path: self.directory.clone(),
                source,
            })?;
        if self.owner.position() != Some(self.owner.durable()) {
            let done = self.owner.checkpoint(CheckpointMode::Truncate);
            done.inspect_err(|_| self.end_if_failed())?;
            self.restart_from = RESTART_FRAMES;
        }
        Ok(self.owner.durable())
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock()
        .expect("a proposal that panicked ended the writer")
}

fn run_under<S: ResultSink>(
    owner: &mut Owner,
    request: &Execute,
    stamp: &Stamp,
    control: &Control,
    sink: &mut S,
) -> Result<Option<Transaction>, ExecuteError> {
    owner.execute_under(request.rules, &request.statements, stamp, control, sink)
}

/// Never, but where a test wants to see that it is noticed: a request that came before is taken for a new one.
fn forgets_requests() -> bool {
    fail::fail_point!("sabotage::retry", |_| true);
    false
}

/// Never, but where a test wants to see that it is noticed: clients are answered before anything is committed.
fn opens_gate_early() -> bool {
    fail::fail_point!("sabotage::gate", |_| true);
    false
}

pub(crate) fn not_leading() -> Failure {
    Failure::new(
        FailureKind::Unavailable,
        "this node does not lead its cell, or not yet",
    )
    .retry_after(Duration::from_millis(200))
}

fn execute_failure(error: ExecuteError, deadline: Duration) -> Failure {
    match error {
        ExecuteError::Sql(error) => Failure {
            text: error.text,
            ..Failure::new(FailureKind::Sql, error.message)
        },
        ExecuteError::Answer(limit) => Failure::new(FailureKind::TooLarge, limit.to_string()),
        ExecuteError::Deadline => crate::node::deadline(deadline),
        // The process is about to end; another voter, or its next start, will do it.
        error @ ExecuteError::Storage(EngineError::Poisoned { .. }) => {
            Failure::new(FailureKind::Unavailable, error.to_string()).retry_after(SOON)
        }
        error @ ExecuteError::TooLarge { .. } => {
            Failure::new(FailureKind::TooLarge, error.to_string())
        }
        error @ ExecuteError::Backlog { .. } => {
            Failure::new(FailureKind::Overloaded, error.to_string()).retry_after(SOON)
        }
        ExecuteError::Damaged { .. } => Failure::new(
            FailureKind::Damaged,
            "this node's copy of the database is damaged and waits for repair",
        ),
        error @ (ExecuteError::Budget { .. } | ExecuteError::Storage(_) | _) => {
            Failure::new(FailureKind::Internal, error.to_string())
        }
    }
}
