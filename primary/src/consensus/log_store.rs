//! openraft's log and vote storage, on raft-log.
//!
//! raft-log keeps records in order in memory, writes and fsyncs them on one thread, and calls back. This
//! adapter decides when it flushes: at most one flush is on its way, and what is appended meanwhile goes with
//! the next (`flush` below). That is group commit without a timer: an idle log flushes at once, a busy one
//! collects as long as the disk takes. raft-log's own way, a fixed wait before each fsync, is off. After a slow
//! flush of several entries there is a short pause, see [`LINGER_FROM`]. Measured in
//! `docs/decisions/0004-log-flush.md`.
//!
//! Votes, truncations, purges and commit marks go through the same ordered stream as entries.
//!
//! Invariants:
//!
//! - An entry is readable when `append` returns, and durable when its callback is called.
//! - A vote is durable when `save_vote` returns, and the [`Fence`] has seen it before.
//! - An error is final: the store refuses everything afterwards, and the node's process ends. A failed write
//!   or fsync, for lack of space or worse, is never tried again on the same bytes; the next start begins by
//!   making the end of the log durable, see [`log_tail`].
//!
//! Traps: the callback runs on the flush thread and takes this store's lock, so nothing that holds the lock
//! may wait for that thread. It could only be made to by filling raft-log's queue of [`QUEUE_REQUESTS`] or
//! [`QUEUE_BYTES`], hence `append` goes in pieces and waits without the lock while much is on its way to the
//! disk ([`ahead_bytes_max`]). Dropping raft-log joins the thread, so only `Owner` does.

use std::fmt;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Callback, RaftLog};
use tidemark_protocol::{NodeId, Term};
use tokio::sync::{oneshot, watch};

use super::cell::{Cell, CellEntry, CellVote, LogId};
use super::disk::{Flush, SlowDisk};
use super::error::ConsensusError;
use super::failure::Failure;
use super::fence::Fence;
use super::flushes::Flushes;
use super::log_tail;
use super::records::{LogIdentity, Records, StoredLogId, StoredPayload, StoredVote, damaged};
use super::synced::Synced;

/// Most bytes read from the log in one go, unless a single entry is larger: what one message to a follower
/// carries. An entry is hardly larger, see [`super::ConsensusConfig::entry_bytes_max`].
pub(super) const READ_BYTES_MAX: usize = 4 << 20;
/// Most entries read from the log in one go.
const READ_ENTRIES_MAX: u64 = 1024;
/// Smallest segment: each is a file.
pub(super) const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Where raft-log would begin to block its caller, by bytes and by requests, which are its own number.
const QUEUE_BYTES: usize = 1 << 30;
const QUEUE_REQUESTS: u64 = 1024;
/// Requests for each segment: its rest, the new file, and that one's first record.
const SEGMENT_REQUESTS: u64 = 3;
/// Most bytes appended under one lock, unless a single entry is larger. Other tasks of the thread get their turn
/// after so many.
const PIECE_BYTES: u64 = 1 << 20;
/// A flush at least this long, of several entries, is followed by a pause: those whose writes it finished
/// are about to write again, and would otherwise miss the next and wait for two.
const LINGER_FROM: Duration = Duration::from_micros(400);
/// The pause, as a part of the flush before.
const LINGER_SHARE: u32 = 8;
/// And at most.
const LINGER_MAX: Duration = Duration::from_micros(250);
/// Entries of one segment, small ones.
const SEGMENT_ENTRIES_MAX: usize = 1 << 20;
/// Read ahead while a segment is replayed on start.
const REPLAY_BUFFER_BYTES: usize = 1 << 20;

/// How the log is opened.
#[derive(Clone, Debug)]
pub(super) struct LogOptions {
    /// Its directory, created if missing.
    pub(super) directory: PathBuf,
    /// Whose log it is.
    pub(super) node: NodeId,
    /// Payloads kept in memory, in bytes, besides those of the segment being written.
    pub(super) cache_bytes: u64,
    /// Payloads kept in memory, in number, besides those of the segment being written.
    pub(super) cache_entries: u64,
    /// Size at which a segment is closed.
    pub(super) segment_bytes: u64,
    /// Whether something tells of entries that were in it: then it is not made anew if it is missing.
    pub(super) is_used: bool,
}

/// The log. Clones share it.
#[derive(Clone)]
pub(super) struct LogStore {
    shared: Arc<Shared>,
    /// Closes the log with the last clone, on whichever thread that happens.
    _owner: Arc<Owner>,
}

struct Owner(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Payload bytes appended and not yet flushed.
    unflushed_bytes: AtomicU64,
    flushes: Flushes,
    /// Where it is told how far the log was flushed.
    synced: Synced,
    /// The same, for `append`: offset of the end of what was flushed. The highest there is once nothing will be.
    flushed: watch::Sender<u64>,
    /// Offset of the end of what was written.
    ends: AtomicU64,
    /// How far `ends` may be ahead of `flushed` before `append` waits.
    ahead_bytes_max: u64,
    slow_disk: Option<Arc<dyn SlowDisk>>,
    fence: Fence,
    failure: Failure,
}

struct State {
    /// None once closed.
    log: Option<RaftLog<Records>>,
    /// A flush is on its way, and its callback will look at `wanted`.
    flushing: bool,
    /// Something was written since that flush began.
    wanted: bool,
    /// Who waits for the next flush.
    waiting: Waiting,
}

#[derive(Default)]
struct Waiting {
    appends: Vec<IOFlushed<Cell>>,
    votes: Vec<oneshot::Sender<io::Result<()>>>,
    bytes: u64,
    entries: u64,
}

/// What raft-log calls when a flush is done.
pub(super) enum OnFlushed {
    /// Tells those who wait.
    Tell(Flushed),
    /// Tells whoever asked for the flush and waits for it.
    Hand(mpsc::Sender<io::Result<()>>),
}

/// A flush that was begun, and who waits for it.
pub(super) struct Flushed {
    waiting: Waiting,
    /// Offset of the log's end when it began.
    end: u64,
    /// Says only how long to pause afterwards.
    begun: Instant,
    shared: Arc<Shared>,
    /// Whether the flush thread has got to it.
    is_sent: bool,
}

/// What the log knows about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LogFigures {
    pub(super) disk_bytes: u64,
    pub(super) segments: u64,
    pub(super) fsyncs: u64,
    pub(super) written_bytes: u64,
    pub(super) fsync_p50: Duration,
    pub(super) fsync_p99: Duration,
    pub(super) cache_bytes: u64,
    pub(super) cache_misses: u64,
}

impl LogStore {
    /// Opens or creates the log, cutting off a record that a crash left incomplete.
    ///
    /// Blocks: replays every segment.
    pub(super) fn open(
        options: &LogOptions,
        slow_disk: Option<Arc<dyn SlowDisk>>,
        fence: Fence,
        failure: Failure,
    ) -> Result<Self, ConsensusError> {
        let path = &options.directory;
        let open = || {
            create_directory(path)?;
            let known = log_tail::Known {
                synced: synced_before(path)?,
                is_used: options.is_used,
            };
            log_tail::settle(path, known)?;
            let mut log = RaftLog::<Records>::open(Arc::new(raft_log_config(options)?))?;
            begins_where_purged(&log)?;
            let got = identify(&mut log, options.node)?;
            let end = sync(&mut log)?;
            let synced = Synced::begin(path, end)?;
            Ok((log, got, synced, end))
        };
        let failed = |source| ConsensusError::Log {
            path: path.clone(),
            source,
        };
        let (log, got, synced, end) = open().map_err(failed)?;
        if got != options.node {
            let expected = options.node;
            return Err(ConsensusError::ForeignLog {
                path: path.clone(),
                got,
                expected,
            });
        }
        if let Some(StoredVote(vote)) = log.log_state().vote() {
            fence.observe(Term(vote.leader_id.term));
        }
        let state = State {
            log: Some(log),
            flushing: false,
            wanted: false,
            waiting: Waiting::default(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            unflushed_bytes: AtomicU64::new(0),
            flushes: Flushes::default(),
            synced,
            flushed: watch::Sender::new(end),
            ends: AtomicU64::new(end),
            ahead_bytes_max: ahead_bytes_max(options.segment_bytes),
            slow_disk,
            fence,
            failure,
        });
        Ok(Self {
            _owner: Arc::new(Owner(shared.clone())),
            shared,
        })
    }

    /// Flushes what is left and gives the directory free. Blocks.
    pub(super) fn close(&self) {
        self.shared.close();
    }

    /// Payload bytes appended and not yet flushed.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        self.shared.unflushed_bytes.load(Ordering::Relaxed)
    }

    /// The flushes since the start.
    pub(super) fn flushes(&self) -> Flushes {
        self.shared.flushes.clone()
    }

    /// Last entry purged.
    pub(super) fn purged(&self) -> io::Result<Option<LogId>> {
        self.shared
            .lock()
            .with(|log| Ok(log.log_state().purged().copied().map(LogId::from)))
    }

    /// Cuts off a tail that contradicts `durable`: a peer's state took its place, and a crash came before
    /// the log had heard of it. The whole tail behind what is committed here, as its terms may be newer: what
    /// stayed of it in front of `durable` would pass for the end of the log.
    pub(super) fn cut_off_against(&self, durable: LogId) -> io::Result<()> {
        self.write("truncate the log", |log, _| {
            let state = log.log_state();
            let index_of = |log_id: Option<&StoredLogId>| log_id.map(|log_id| log_id.index);
            let last = index_of(state.last());
            let kept = index_of(state.committed()).max(index_of(state.purged()));
            let is_newer = state
                .last()
                .is_some_and(|last| last.term > durable.leader_id.term);
            let index = durable.index;
            let record = log.read(index, index.saturating_add(1)).next();
            let contradicts = match record.transpose()? {
                Some((kept, _)) => LogId::from(kept) != durable,
                None => is_newer && last < Some(index),
            };
            let from = kept.map_or(0, |kept| kept + 1);
            if contradicts && last >= Some(from) {
                log.truncate(from)?;
            }
            Ok(())
        })
    }

    /// Last entry of the newest segment that is followed by at least `bytes` of log.
    pub(super) fn index_before(&self, bytes: u64) -> Option<u64> {
        let index = |log: &mut RaftLog<Records>| {
            let stat = log.stat();
            let end = stat.open_chunk.global_end;
            let mut far = stat
                .closed_chunks
                .iter()
                .rev()
                .filter(|segment| end.saturating_sub(segment.global_end) >= bytes);
            Ok(far.find_map(|segment| segment.log_state.last().map(|last| last.index)))
        };
        self.shared.lock().with(index).ok().flatten()
    }

    /// Bytes of all segments.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.shared
            .lock()
            .with(|log| Ok(log.on_disk_size()))
            .unwrap_or(0)
    }

    pub(super) fn figures(&self) -> LogFigures {
        let figures = |log: &mut RaftLog<Records>| {
            let disk_bytes = log.on_disk_size();
            let stat = log.stat();
            let flush = stat.flush_metrics;
            Ok(LogFigures {
                disk_bytes,
                segments: stat.closed_chunks.len() as u64 + 1,
                fsyncs: flush.sync_batch_count,
                written_bytes: flush.write_bytes,
                fsync_p50: Duration::from_micros(flush.sync_percentiles.p50_us),
                fsync_p99: Duration::from_micros(flush.sync_percentiles.p99_us),
                cache_bytes: stat.payload_cache_size,
                cache_misses: stat.payload_cache_miss,
            })
        };
        self.shared.lock().with(figures).unwrap_or_default()
    }

    /// Entries from `start`, before `end`, at most [`READ_BYTES_MAX`] or one. Stops at the end of the log.
    fn read(&self, start: u64, end: u64, bound: ReadBound) -> io::Result<Vec<CellEntry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.shared.lock().with(|log| {
            let mut entries = Vec::new();
            let mut bytes = 0;
            for record in log.read(start, end) {
                let (log_id, payload) = record?;
                bytes += payload.cached_bytes();
                let full =
                    bytes > READ_BYTES_MAX as u64 || entries.len() as u64 >= READ_ENTRIES_MAX;
                if bound == ReadBound::Batch && full && !entries.is_empty() {
                    break;
                }
                entries.push(CellEntry {
                    log_id: log_id.into(),
                    payload: payload.0,
                });
            }
            Ok(entries)
        })
    }

    /// Waits while so much is on its way to the disk that more might have to wait under the lock.
    async fn room(&self) {
        let ends = self.shared.ends.load(Ordering::Relaxed);
        let has_room = |flushed: &u64| ends.saturating_sub(*flushed) <= self.shared.ahead_bytes_max;
        // The sender is ours.
        let _ = self.shared.flushed.subscribe().wait_for(has_room).await;
    }

    /// Does `write` to the log, then sees to it that it is flushed.
    fn write<T>(
        &self,
        action: &str,
        write: impl FnOnce(&mut RaftLog<Records>, &mut Waiting) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.shared.lock();
        let written = state.write(&self.shared, write);
        drop(state);
        written.inspect_err(|error| self.shared.failure.set(action, error))
    }
}

/// How much a read may return.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadBound {
    /// All that was asked for.
    All,
    /// As much as is good to handle at once, at least one entry.
    Batch,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves the log half-written at worst, which raft-log itself refuses next.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_and_wait(&self) -> io::Result<()> {
        self.lock().with(|log| sync(log).map(drop))
    }

    /// What was written is flushed up to here: `append` may go on.
    fn flushed(&self, end: u64) {
        self.flushed
            .send_if_modified(|flushed| end > std::mem::replace(flushed, end.max(*flushed)));
    }

    /// Nothing is flushed any more: whoever waits in `append` is to hear of it.
    fn ended(&self) {
        self.flushed(u64::MAX);
    }

    fn close(&self) {
        let mut state = self.lock();
        let log = state.log.take();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.ended();
        // Joins the flush thread, whose callbacks take the lock.
        drop(log);
        waiting.complete(&Err(closed()));
    }
}

impl State {
    fn with<T>(
        &mut self,
        use_log: impl FnOnce(&mut RaftLog<Records>) -> io::Result<T>,
    ) -> io::Result<T> {
        use_log(self.log.as_mut().ok_or_else(closed)?)
    }

    fn write<T>(
        &mut self,
        shared: &Arc<Shared>,
        write: impl FnOnce(&mut RaftLog<Records>, &mut Waiting) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(fatal) = shared.failure.get() {
            return Err(io::Error::other(fatal.to_string()));
        }
        let log = self.log.as_mut().ok_or_else(closed)?;
        let written = write(log, &mut self.waiting)?;
        shared.ends.store(end(log)?, Ordering::Relaxed);
        if self.flushing {
            self.wanted = true;
        } else {
            self.flush(shared)?;
        }
        Ok(written)
    }

    /// Begins a flush of all that was written. None may be on its way.
    fn flush(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        debug_assert!(!self.flushing, "two flushes at a time");
        let log = self.log.as_mut().ok_or_else(closed)?;
        let waiting = std::mem::take(&mut self.waiting);
        let end = shared.ends.load(Ordering::Relaxed);
        if forgets_fsync() {
            waiting.complete(&Ok(()));
            shared.flushed(end);
            return Ok(());
        }
        self.flushing = true;
        self.wanted = false;
        let flushed = Flushed {
            waiting,
            end,
            begun: Instant::now(),
            shared: shared.clone(),
            is_sent: false,
        };
        if let Some(disk) = &shared.slow_disk {
            disk.flush(flushed.at_leisure());
            return Ok(());
        }
        // A refused request drops the callback, which then answers with an error.
        let flushed = log.flush(true, Some(OnFlushed::Tell(flushed)));
        // Refused because the flush thread has ended: it knows of what. Only then is there no wait.
        flushed.map_err(|refused| log.wait_worker_idle().err().unwrap_or(refused))
    }
}

/// Never, but where a test wants to see that it is noticed: nothing is made durable, and everybody is told so.
fn forgets_fsync() -> bool {
    fail::fail_point!("sabotage::fsync", |_| true);
    false
}

impl Waiting {
    /// How long to wait for the next writes of those who are told now. A lone writer never waits.
    fn pause_after(&self, took: Duration) -> Duration {
        if self.entries > 1 && took >= LINGER_FROM {
            (took / LINGER_SHARE).min(LINGER_MAX)
        } else {
            Duration::ZERO
        }
    }

    fn complete(self, result: &io::Result<()>) {
        let copy = || match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        for append in self.appends {
            append.io_completed(copy());
        }
        for vote in self.votes {
            let _ = vote.send(copy()); // nobody may be left to hear it
        }
    }
}

impl Callback for OnFlushed {
    fn send(self, result: io::Result<()>) {
        let mut flushed = match self {
            Self::Tell(flushed) => flushed,
            // Nobody waits where the log was closed meanwhile.
            Self::Hand(to) => return drop(to.send(result)),
        };
        fail::fail_point!("log::after_flush");
        let pause = flushed.tell(&result);
        #[allow(
            clippy::disallowed_methods,
            reason = "on the flush thread, which is the log's own"
        )]
        std::thread::sleep(pause);
        flushed.go_on(&result);
    }
}

impl Flushed {
    /// Tells those who wait; returns how long to pause before the next flush.
    fn tell(&mut self, result: &io::Result<()>) -> Duration {
        self.is_sent = true;
        let waiting = std::mem::take(&mut self.waiting);
        if let Err(error) = result {
            self.shared.failure.set("flush the log", error);
            self.shared.ended();
        } else {
            self.shared.synced.note(self.end);
            self.shared.flushed(self.end);
        }
        self.shared
            .unflushed_bytes
            .fetch_sub(waiting.bytes, Ordering::Relaxed);
        let took = self.begun.elapsed();
        if result.is_ok() {
            self.shared.flushes.done(waiting.entries, took);
        }
        let pause = waiting.pause_after(took);
        waiting.complete(result);
        pause
    }

    /// The flush as a simulated disk does it: nobody else runs until the log's thread is done.
    fn at_leisure(self) -> Flush {
        Box::new(move || -> Box<dyn FnOnce() + Send> {
            let result = self.shared.flush_and_wait();
            let mut flushed = self;
            Box::new(move || {
                flushed.tell(&result);
                flushed.go_on(&result);
            })
        })
    }

    /// Begins the next flush, if something was written meanwhile.
    fn go_on(&self, result: &io::Result<()>) {
        let mut state = self.shared.lock();
        state.flushing = false;
        if result.is_ok() && state.wanted && state.log.is_some() {
            let flushed = state.flush(&self.shared);
            drop(state);
            if let Err(error) = flushed {
                self.shared.failure.set("flush the log", &error);
            }
        }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if self.is_sent {
            return;
        }
        // The flush thread ended before this one's turn, in an orderly close never. Nothing would be flushed
        // any more, and perhaps nobody waits here who could tell.
        self.shared.failure.set("flush the log", &closed());
        self.shared.ended();
        std::mem::take(&mut self.waiting).complete(&Err(closed()));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore")
            .field("unflushed_bytes", &self.unflushed_bytes())
            .finish()
    }
}

impl RaftLogReader<Cell> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<CellEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        self.read(start, end, ReadBound::All)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<CellEntry>> {
        let mut entries = self.read(start, end, ReadBound::Batch)?;
        // Purged while a follower's stream was about to end. Nothing is better than a gap, which the
        // follower would take for the log.
        if entries.first().is_some_and(|first| first.index() != start) {
            entries.clear();
        }
        Ok(entries)
    }

    /// What is applied after a long absence need not all be in memory at once.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<CellEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        let (start, end) = half_open(&range);
        let batches = stream::try_unfold(start, move |start| {
            let batch = store.read(start, end, ReadBound::Batch);
            let batch = batch.and_then(|batch| match (batch.first(), batch.last()) {
                (Some(first), _) if first.index() != start => {
                    let got = first.index();
                    Err(damaged(format!("the log goes on at {got}, not at {start}")))
                }
                (Some(_), Some(last)) => {
                    let next = last.index() + 1;
                    Ok(Some((batch, next)))
                }
                _ => Ok(None),
            });
            std::future::ready(batch)
        });
        batches.flat_map(|batch| match batch {
            Ok(entries) => stream::iter(entries.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<CellVote>> {
        self.shared
            .lock()
            .with(|log| Ok(log.log_state().vote().map(|vote| vote.0)))
    }
}

impl RaftLogStorage<Cell> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Cell>> {
        self.shared.lock().with(|log| {
            let state = log.log_state();
            Ok(LogState {
                last_purged_log_id: state.purged().copied().map(LogId::from),
                last_log_id: state.last().copied().map(LogId::from),
            })
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &CellVote) -> io::Result<()> {
        self.shared.fence.observe(Term(vote.leader_id.term));
        fail::fail_point!("log::before_vote");
        let (durable, wait) = oneshot::channel();
        self.write("save a vote", |log, waiting| {
            log.save_vote(StoredVote(*vote))?;
            waiting.votes.push(durable);
            Ok(())
        })?;
        let saved = wait.await.unwrap_or_else(|_dropped| Err(closed()));
        fail::fail_point!("log::after_vote");
        saved
    }

    /// Not flushed by itself: a commit mark that is lost costs a little time on the next start.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else {
            return Ok(());
        };
        self.shared
            .lock()
            .with(|log| log.commit((&committed).into()).map(drop))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.shared
            .lock()
            .with(|log| Ok(log.log_state().committed().copied().map(LogId::from)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Cell>) -> io::Result<()>
    where
        I: IntoIterator<Item = CellEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        fail::fail_point!("log::before_append");
        let mut entries = entries.into_iter().peekable();
        let mut callback = Some(callback);
        while callback.is_some() {
            self.room().await;
            self.write("append to the log", |log, waiting| {
                let (mut bytes, mut count) = (0, 0);
                let piece = std::iter::from_fn(|| {
                    let more = entries.next_if(|_| bytes < PIECE_BYTES);
                    let CellEntry { log_id, payload } = more?;
                    let payload = StoredPayload(payload);
                    bytes += payload.cached_bytes();
                    count += 1;
                    Some((StoredLogId::from(&log_id), payload))
                });
                log.append(piece)?;
                self.shared
                    .unflushed_bytes
                    .fetch_add(bytes, Ordering::Relaxed);
                waiting.bytes += bytes;
                waiting.entries += count;
                if entries.peek().is_none() {
                    waiting.appends.extend(callback.take());
                }
                Ok(())
            })?;
            if callback.is_some() {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.write("truncate the log", |log, _| {
            let end = log.log_state().last().map_or(0, |last| last.index + 1);
            if from < end {
                log.truncate(from)?;
            }
            Ok(())
        })
    }

    /// Removes whole segments, once the record that says so is durable.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        fail::fail_point!("log::before_purge");
        self.write("purge the log", |log, _| {
            log.purge((&upto).into()).map(drop)
        })
    }
}

fn raft_log_config(options: &LogOptions) -> io::Result<raft_log::Config> {
    let narrow = |n: u64| usize::try_from(n).map_err(damaged);
    let directory = options.directory.to_str();
    let directory = directory.ok_or_else(|| damaged("the path is not UTF-8"))?;
    let mut config = raft_log::Config::new(directory);
    config.log_cache_capacity = Some(narrow(options.cache_bytes)?);
    config.log_cache_max_items = Some(narrow(options.cache_entries)?);
    config.wal.read_buffer_size = Some(REPLAY_BUFFER_BYTES);
    config.wal.chunk_max_size = Some(narrow(options.segment_bytes.max(SEGMENT_BYTES_MIN))?);
    config.wal.chunk_max_records = Some(SEGMENT_ENTRIES_MAX);
    config.wal.truncate_incomplete_record = Some(true);
    // One request holds all there is to flush; see the module's documentation.
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    config.wal.flush_queue_max_bytes = Some(QUEUE_BYTES);
    Ok(config)
}

/// How far what is written may be ahead of what is flushed: half of what raft-log's queue holds, so that a piece
/// more always fits.
fn ahead_bytes_max(segment_bytes: u64) -> u64 {
    let segments = QUEUE_REQUESTS / SEGMENT_REQUESTS / 2;
    let requests = segment_bytes
        .max(SEGMENT_BYTES_MIN)
        .saturating_mul(segments);
    requests.min(QUEUE_BYTES as u64 / 2)
}

/// Offset of the log's end, which an append of nothing tells.
fn end(log: &mut RaftLog<Records>) -> io::Result<u64> {
    let last = log.append(std::iter::empty())?;
    Ok(last.offset + last.size)
}

/// Flushes all that was written; returns the offset of its end. Blocks.
fn sync(log: &mut RaftLog<Records>) -> io::Result<u64> {
    let end = end(log)?;
    let (done, result) = mpsc::channel();
    log.flush(true, Some(OnFlushed::Hand(done)))?;
    log.wait_worker_idle()?;
    result.recv().unwrap_or_else(|_dropped| Err(closed()))?;
    Ok(end)
}

/// How far the log was synced before this start, if that is told.
fn synced_before(path: &Path) -> io::Result<Option<u64>> {
    match Synced::read(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let log = path.display();
            tracing::warn!(%log, %error, "the file beside the log does not tell how far it was synced");
            Ok(None)
        }
        read => read,
    }
}

/// Refuses a log whose first segments are missing: what they held was not purged.
fn begins_where_purged(log: &RaftLog<Records>) -> io::Result<()> {
    let state = log.log_state();
    let next = state.purged().map_or(0, |purged| purged.index + 1);
    let is_there = state.last().is_some_and(|last| last.index >= next);
    if is_there && log.read(next, next + 1).next().transpose()?.is_none() {
        return Err(damaged(format!("entry {next} and its segment are missing")));
    }
    Ok(())
}

/// Creates the directory durably: a crash must not take it away with the log in it.
fn create_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path
        .ancestors()
        .take_while(|above| !above.exists())
        .collect();
    std::fs::create_dir_all(path)?;
    for created in missing {
        let above = created
            .parent()
            .filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// The node that the log belongs to: the one it was created by, or `node` if it is new.
fn identify(log: &mut RaftLog<Records>, node: NodeId) -> io::Result<NodeId> {
    let state = log.log_state();
    if let Some(identity) = &state.user_data {
        return Ok(identity.node);
    }
    if state.vote().is_some() || state.last().is_some() {
        return Err(damaged("the log does not say whose it is"));
    }
    log.save_user_data(Some(LogIdentity { node }))?;
    Ok(node)
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn closed() -> io::Error {
    io::Error::other("the log is closed")
}

#[cfg(test)]
mod tests;
