//! The handle of one database on a primary: its readers, and its writer behind a strand.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tidemark_engine::{Database, EngineError, Opened, PostError, Strand, wait_on};
use tidemark_protocol::render::Rendered;
use tidemark_protocol::{
    DatabaseId, Execute, Failure, FailureKind, PAGE_SIZE, PageNo, Position, Seq, Statement, Term,
    Transaction,
};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use super::remembered::Remembered;
use super::room::Share;
use super::spans::Spans;
use super::writer::{PipelineContext, Waiter, Writer};
use crate::databases::HighestProposed;
use crate::metrics::Stage;

/// How much longer than its deadline a request waits for a definite outcome once it has begun: SQL
/// stops at the deadline by itself and says so a moment later.
const GRACE: Duration = Duration::from_millis(100);
/// Statement texts whose first verdict "this writes" is kept per database.
const WRITES_KNOWN_MAX: usize = 1024;

/// What a committed write answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The answer.
    pub(crate) rendered: Rendered,
    /// The state it led to, or, if it wrote nothing, the state it saw.
    pub(crate) position: Position,
    /// Whether it made a transaction.
    pub(crate) wrote: bool,
    /// Whether an earlier try of the same request did it.
    pub(crate) repeated: bool,
}

/// Whether a request can still be taken back.
#[derive(Debug)]
pub(crate) struct Claim(AtomicU8);

const QUEUED: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Claim {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU8::new(QUEUED)))
    }

    /// The writer takes the request up. False if the client has given up on it.
    pub(crate) fn begin(&self) -> bool {
        self.0
            .compare_exchange(QUEUED, BEGUN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The client gives up. True if the writer had not begun: then nothing happened.
    fn withdraw(&self) -> bool {
        self.0
            .compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// A committed transaction on its way to the writer.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) transaction: Transaction,
    /// `None`: this node ends.
    pub(crate) share: Option<Share>,
}

/// Gives up a request when whoever wants the answer is gone. What has begun goes on.
struct Asked(Arc<Claim>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// One database on a primary.
#[derive(Debug)]
pub(crate) struct Line {
    id: DatabaseId,
    database: Arc<Database>,
    /// Durable in its own files when it was opened.
    durable: Position,
    strand: Strand<Writer>,
    /// Committed transactions on their way to the writer: it takes all there are at once.
    inbox: Mutex<Vec<Arrived>>,
    /// The last transaction handed to the writer leads here.
    newest: Mutex<Option<Position>>,
    damaged: AtomicBool,
    /// Told when readers see more than before.
    advanced: Notify,
    deleted: AtomicBool,
    retired: AtomicBool,
    context: Arc<PipelineContext>,
    permits: Arc<Semaphore>,
    /// Reads that run on SQL threads: as many as there are readers.
    long_reads: Semaphore,
    writes_known: Mutex<HashSet<u64, RandomState>>,
    proposed: HighestProposed,
    /// The look at idle databases before which it was used last.
    used_at: AtomicU64,
}

impl Line {
    /// Puts an opened database to work. `proposed`: that of the line before, if there was one.
    pub(crate) fn new(
        opened: Opened,
        directory: PathBuf,
        proposed: HighestProposed,
        context: Arc<PipelineContext>,
    ) -> std::io::Result<Arc<Self>> {
        let remembered = Remembered::load(&directory)?;
        let Opened {
            database, owner, ..
        } = opened;
        let durable = owner.durable();
        context
            .recent
            .begin(database.id(), database.position().unwrap_or(durable));
        let writes_in_flight_max = context.writes_in_flight_max;
        let shared = Arc::clone(&context);
        let permits = Arc::new(Semaphore::new(writes_in_flight_max));
        let long_reads = Semaphore::new(context.readers_max);
        let threads = Arc::clone(&context.environment.threads);
        let id = database.id();
        Ok(Arc::new_cyclic(|line| {
            let writer = Writer::new(
                line.clone(),
                owner,
                Arc::clone(&database),
                directory,
                remembered,
                proposed.clone(),
                context,
            );
            Self {
                id,
                database,
                durable,
                strand: Strand::with_rest(
                    writer,
                    threads,
                    writes_in_flight_max,
                    Writer::propose_held,
                ),
                inbox: Mutex::default(),
                newest: Mutex::default(),
                damaged: AtomicBool::new(false),
                advanced: Notify::new(),
                deleted: AtomicBool::new(false),
                retired: AtomicBool::new(false),
                context: shared,
                permits,
                long_reads,
                writes_known: Mutex::default(),
                proposed,
                used_at: AtomicU64::new(0),
            }
        }))
    }

    pub(crate) fn id(&self) -> DatabaseId {
        self.id
    }

    /// The position that was durable in its own files when it was opened.
    pub(crate) fn durable(&self) -> Position {
        self.durable
    }

    /// Its readers.
    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The highest sequence number proposed.
    pub(crate) fn proposed(&self) -> &HighestProposed {
        &self.proposed
    }

    /// Notes a use before the look at idle databases of this number.
    pub(crate) fn note_use(&self, look: u64) {
        // Mostly it is the same, and others' copies of the cache line stay valid.
        if self.used_at.load(Ordering::Relaxed) != look {
            self.used_at.store(look, Ordering::Relaxed);
        }
    }

    /// See [`Line::note_use`].
    pub(crate) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// Whether nobody but this and its writer holds the readers, as a read or an image does to its end.
    pub(crate) fn has_no_readers(&self) -> bool {
        Arc::strong_count(&self.database) == 2
    }

    /// Held by each read that runs on a SQL thread.
    pub(crate) fn long_reads(&self) -> &Semaphore {
        &self.long_reads
    }

    /// Runs statements as one transaction and answers once that is committed. Only under `term`, in which
    /// the request was let in, and until `expires`. Dropped before it has begun, it does not happen.
    pub(crate) async fn write(
        self: &Arc<Self>,
        request: Execute,
        after: Seq,
        term: Term,
        expires: Instant,
    ) -> Result<Written, Failure> {
        let limit = request.deadline;
        let nothing_happened = || {
            Failure::new(
                FailureKind::Deadline,
                format!(
                    "the write did not begin within its deadline of {limit:?}: too many queue before it"
                ),
            )
        };
        // Held until the outcome is known, whoever still wants it: it bounds the queue and the overlay alike.
        let permits = Arc::clone(&self.permits);
        let permit = tokio::time::timeout_at(expires, permits.acquire_owned())
            .await
            .map_err(|_| nothing_happened())?
            .map_err(|_| shut_down())?;
        let claim = Claim::new();
        let asked = Asked(Arc::clone(&claim));
        let (answer, outcome) = oneshot::channel();
        let waiter = Waiter::new(answer, permit);
        let name = request.request;
        let metrics = Arc::clone(&self.context.metrics);
        let place = metrics.queue();
        let mut spans = Spans::begin(self.id, term, name);
        let queued = Instant::now();
        let job = move |writer: &mut Writer| {
            drop(place);
            if claim.begin() {
                metrics.stage(Stage::Queue, queued.elapsed());
                spans.enter(Stage::Execute);
                writer.execute(&request, after, term, expires.into_std(), waiter, spans);
            }
        };
        match self.strand.try_post(job) {
            Ok(()) => {}
            Err(PostError::Full { .. }) => return Err(overloaded()),
            Err(error) => {
                self.writer_stopped(error);
                return Err(shut_down());
            }
        }
        match tokio::time::timeout_at(expires + GRACE, outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_closed)) => {
                // Perhaps nobody else asks anything of it who would notice.
                if !self.drained().await {
                    self.writer_stopped(PostError::Poisoned);
                }
                if asked.0.withdraw() {
                    Err(shut_down())
                } else {
                    Err(unknown(name, "the writer stopped"))
                }
            }
            Err(_elapsed) if asked.0.withdraw() => Err(nothing_happened()),
            Err(_elapsed) => Err(unknown(name, "its deadline passed")),
        }
    }

    /// A committed transaction, in log order. Waits for room for it.
    pub(crate) async fn committed(&self, transaction: Transaction) {
        let share = match self.context.room.take(&transaction) {
            Some(share) => Some(share),
            None => self.has_room(&transaction).await,
        };
        let next = transaction.header().next;
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.push(Arrived { transaction, share });
        let first = inbox.len() == 1;
        drop(inbox);
        if first {
            self.post(Writer::commit);
        } else if self.strand.is_poisoned() {
            // The job that was to take them is gone.
            self.writer_stopped(PostError::Poisoned);
        }
    }

    /// `None`: this node has to end, and room may never come.
    async fn has_room(&self, transaction: &Transaction) -> Option<Share> {
        let mut fatal = self.context.fatal.subscribe();
        tokio::select! {
            share = self.context.room.wait_for(transaction) => Some(share),
            _ = fatal.wait_for(Option::is_some) => None,
        }
    }

    /// Resolves when readers see everything that was committed before, and that replicas may have shown
    /// already.
    pub(crate) async fn caught_up(&self) {
        if !self.is_caught_up() {
            self.drained().await;
        }
    }

    /// Whether that is known to be so now.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.newest().is_none_or(|newest| {
            let position = self.database.position();
            position.is_some_and(|position| position.reached(&newest))
        })
    }

    /// Resolves at the next [`Line::tell_readers`] once it is enabled.
    pub(crate) fn advanced(&self) -> Notified<'_> {
        self.advanced.notified()
    }

    /// Readers see more than before.
    pub(crate) fn tell_readers(&self) {
        self.advanced.notify_waiters();
    }

    /// Where the last transaction leads that was handed to the writer.
    pub(crate) fn newest(&self) -> Option<Position> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The committed transactions that wait.
    pub(crate) fn take_committed(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The transaction that leads to `next` will never be applied.
    pub(crate) fn refused(&self, next: Position, why: &'static str) {
        self.post(move |writer| writer.refused(next, why));
    }

    /// Nobody knows whether the transaction that leads to `next` will be applied.
    pub(crate) fn lost(&self, next: Position) {
        self.post(move |writer| writer.lost(next));
    }

    /// Its database was deleted: whatever is in flight is gone with it. From now on its files may go at any
    /// moment.
    pub(crate) fn deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.post(Writer::deleted);
    }

    /// See [`Line::deleted`].
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Another voter's copy takes the place of this: the files are not written any more, and whoever holds
    /// them open should let go.
    pub(crate) async fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        // A writer that stopped has given the node up.
        let _ = self.ask(Writer::retire).await;
    }

    /// See [`Line::retire`].
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The remembered requests, as their file has them: at least those of every state that readers saw
    /// before. `None` if the writer stopped.
    pub(crate) async fn requests(&self) -> Option<Bytes> {
        self.ask(|writer| writer.requests()).await.ok()
    }

    /// The hash of each page in the files, at a known position or not. Blocks. `None` if the writer stopped.
    pub(crate) fn page_hashes(&self) -> Option<Vec<u64>> {
        let hashes = self.ask(|writer| writer.page_hashes());
        wait_on(&*self.context.environment.threads, hashes).ok()
    }

    /// A page in the files, at a known position or not. Blocks.
    pub(crate) fn page(&self, page: PageNo) -> Result<Box<[u8; PAGE_SIZE]>, EngineError> {
        let read = self.ask(move |writer| writer.page(page));
        let read = wait_on(&*self.context.environment.threads, read);
        read.unwrap_or_else(|_| Err(self.stopped()))
    }

    fn stopped(&self) -> EngineError {
        EngineError::Poisoned {
            database: self.id,
            reason: "its writer stopped".to_owned(),
        }
    }

    /// This node leads no more: everything in flight is of unknown outcome.
    pub(crate) fn step_down(&self) {
        self.post(Writer::step_down);
    }

    /// Makes everything committed so far durable in the database's own files. Asks at once; the future
    /// is only the answer.
    pub(crate) fn persist(
        &self,
    ) -> impl Future<Output = Result<Position, EngineError>> + Send + use<> {
        let result = self.ask(Writer::persist);
        let stopped = self.stopped();
        async move { result.await.unwrap_or(Err(stopped)) }
    }

    /// Resolves when the writer has dealt with everything that was committed before. False if it
    /// stopped.
    pub(crate) async fn drained(&self) -> bool {
        self.ask(|_| ()).await.is_ok()
    }

    /// Keeps the writer from its work until what this gives is dropped.
    #[cfg(test)]
    pub(crate) async fn hold_writer(&self) -> std::sync::mpsc::Sender<()> {
        let held = self.hold_writer_next();
        while !self.strand.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        held
    }

    /// The same from when it has done what waits for it.
    #[cfg(test)]
    pub(crate) fn hold_writer_next(&self) -> std::sync::mpsc::Sender<()> {
        let (held, released) = std::sync::mpsc::channel();
        self.post(move |_| {
            // Nothing is ever sent.
            let _ = released.recv();
        });
        held
    }

    /// How many writes more it would take.
    #[cfg(test)]
    pub(crate) fn free_places(&self) -> usize {
        self.permits.available_permits()
    }

    /// Has the writer panic.
    #[cfg(test)]
    pub(crate) fn break_writer(&self) {
        self.post(|_| panic!("on purpose"));
    }

    /// Resolves when so many jobs wait for the writer. One that runs is none of them.
    #[cfg(test)]
    pub(crate) async fn has_queued(&self, count: usize) {
        while self.strand.len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether its files failed, or do not hold what they should: nothing may be answered from them.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// See [`Line::is_damaged`]. For good: a new start looks again.
    pub(crate) fn mark_damaged(&self) {
        self.damaged.store(true, Ordering::Release);
    }

    /// Whether the writer has nothing to do and does nothing.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.strand.is_at_rest()
    }

    fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Writer) -> A + Send + 'static,
    ) -> oneshot::Receiver<A> {
        let (done, answer) = oneshot::channel();
        self.post(move |writer| {
            // Whoever is gone wants no answer.
            let _ = done.send(question(writer));
        });
        answer
    }

    /// Queues what may not be refused.
    fn post(&self, job: impl FnOnce(&mut Writer) + Send + 'static) {
        let job = move |writer: &mut Writer| {
            writer.propose_held();
            job(writer);
        };
        if let Err(error) = self.strand.post(job) {
            self.writer_stopped(error);
        }
    }

    /// The writer panicked: its database answers nothing more, and the process goes down with it.
    fn writer_stopped(&self, error: PostError) {
        self.mark_damaged();
        let reason = format!("the writer of database {} stopped: {error}", self.id);
        self.context.give_up(reason);
    }

    /// Whether one of these statements is known to write, by SQLite's own earlier verdict. Only a
    /// shortcut to the writer, which runs reads just as well.
    pub(crate) fn known_to_write(&self, statements: &[Statement]) -> bool {
        let known = self
            .writes_known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        !known.is_empty()
            && statements
                .iter()
                .any(|statement| known.contains(&known.hasher().hash_one(&statement.sql)))
    }

    /// Keeps the verdict that a request writes.
    pub(crate) fn note_write(&self, statements: &[Statement]) {
        let [statement] = statements else { return };
        let mut known = self
            .writes_known
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() >= WRITES_KNOWN_MAX {
            known.clear();
        }
        let hash = known.hasher().hash_one(&statement.sql);
        known.insert(hash);
    }
}

fn overloaded() -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        "D1 DB is overloaded. Too many requests queued.",
    )
    .retry_after(Duration::from_millis(200))
}

pub(crate) fn shut_down() -> Failure {
    Failure::new(FailureKind::Unavailable, "this node is shutting down")
        .retry_after(Duration::from_secs(1))
}

pub(crate) fn unknown(request: Option<tidemark_protocol::RequestId>, why: &str) -> Failure {
    let name = request.map_or_else(String::new, |request| format!(" of request {request}"));
    Failure::new(
        FailureKind::Unknown,
        format!(
            "the outcome{name} is unknown: {why} after it was handed on; retry with the same request id"
        ),
    )
}
