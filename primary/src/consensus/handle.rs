//! The handle on this node's consensus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal, InitializeError, LinearizableReadError, RaftError};
use openraft::{Instant as _, Raft, RaftLogReader, RaftMetrics, ReadPolicy, ServerState};
use tidemark_protocol::{Incarnation, NodeId, Term};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::applied::Applied;
use super::budget::Budget;
use super::cell::{Cell, CommittedLeaderId, LogId};
use super::completion::{Completion, Promise, outcome, refusal};
use super::disk::Disk;
use super::failure::Failure;
use super::joint;
use super::log_store::{LogOptions, LogStore};
use super::members::Hold;
use super::network::{Network, Purging};
use super::parts::split;
use super::proposal::Proposal;
use super::snapshot::Receiver;
use super::state_machine::{Persists, Signals, StateMachine};
use super::wire::{Answer, Request};
use super::{
    AnswerError, Command, ConfirmError, ConsensusConfig, ConsensusError, Fence, Flushes,
    Leadership, LogIndex, Machine, Member, Proposed, Refusal, Transport, WaitError, leadership,
    members,
};

/// What a command costs in flight besides its body, in bytes.
const AROUND_BYTES: u64 = 512;

/// Pause before a persist is asked for again that an earlier one may have kept from being heard.
const PERSIST_AGAIN: Duration = Duration::from_millis(100);

/// This node's part in the cell. Clones share it.
#[derive(Clone)]
pub(crate) struct Consensus {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) node: NodeId,
    incarnation: Incarnation,
    pub(super) raft: Raft<Cell, StateMachine>,
    log: LogStore,
    disk: Disk,
    fence: Fence,
    budget: Budget,
    unflushed_bytes_max: u64,
    log_entries_kept: u64,
    log_bytes_kept: u64,
    entry_bytes_max: usize,
    /// The number of the last command in parts. Read-locked by whoever proposes one entry.
    handing_over: std::sync::RwLock<u64>,
    failure: Failure,
    pub(super) leadership: watch::Receiver<Leadership>,
    /// See [`ConsensusConfig::election_max`].
    pub(super) lease: Duration,
    /// Until then this node votes for nobody, itself included: it may have promised that to a leader before
    /// it was started again.
    promised_until: Option<Instant>,
    purging: Purging,
    /// Proposals are held back while the leadership is handed over.
    pub(super) hold: Hold,
    /// One change of the membership, or of the leader, at a time.
    pub(super) changing: Arc<Mutex<()>>,
    /// One snapshot at a time.
    snapshot: Mutex<()>,
    persists: watch::Sender<Persists>,
    /// Takes over what peers send instead of a log that no longer reaches back.
    receiver: Receiver,
    stopping: CancellationToken,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// What consensus knows about itself. Positions are of the log, sizes in bytes.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct ConsensusMetrics {
    /// Newest term known.
    pub(crate) term: Term,
    /// Last entry appended here, flushed or not.
    pub(crate) appended: Option<LogIndex>,
    /// Last entry known here to be committed.
    pub(crate) committed: Option<LogIndex>,
    /// Last entry handed to the machine.
    pub(crate) applied: Option<LogIndex>,
    /// Last entry durable without the log.
    pub(crate) durable: Option<LogIndex>,
    /// Last entry removed from the log.
    pub(crate) purged: Option<LogIndex>,
    /// Proposals without an outcome.
    pub(crate) in_flight: u64,
    /// Their bytes.
    pub(crate) in_flight_bytes: u64,
    /// Bytes appended and not yet flushed.
    pub(crate) unflushed_bytes: u64,
    /// Size of the log on disk.
    pub(crate) log_bytes: u64,
    /// Segments it is in.
    pub(crate) log_segments: u64,
    /// Fsyncs of the log since start. Proposals per fsync is what batching yields.
    pub(crate) fsyncs: u64,
    /// Bytes written to the log since start.
    pub(crate) written_bytes: u64,
    /// Median time of an fsync.
    pub(crate) fsync_p50: Duration,
    /// Time that 99 of 100 fsyncs stay under.
    pub(crate) fsync_p99: Duration,
    /// Payloads in memory.
    pub(crate) log_cache_bytes: u64,
    /// Entries that had to be read from disk, since start.
    pub(crate) log_cache_misses: u64,
}

impl Consensus {
    /// Recovers this node from its log, then takes part in the cell.
    ///
    /// Committed entries that are not durable elsewhere are applied before this returns. A cell of one leads
    /// after two fsyncs; wait for [`Consensus::leadership`]. With an empty log it waits for
    /// [`Consensus::initialize`], or for a leader that takes it in.
    pub(crate) async fn start(
        config: ConsensusConfig,
        disk: Disk,
        transport: Arc<dyn Transport>,
        machine: impl Machine,
    ) -> Result<Self, ConsensusError> {
        let raft_config = Arc::new(config.validate()?);
        let fence = Fence::default();
        let failure = Failure::new();
        let (log, applied) = open(&config, &disk, &fence, &failure).await?;
        let vote = log.clone().read_vote().await;
        let vote = vote.map_err(|source| ConsensusError::Log {
            path: config.log_directory(),
            source,
        })?;
        // An answer to a leader is a promise not to vote for another during its lease, on which it answers
        // reads. openraft forgets it with the process.
        let promised_until = vote.map(|_| Instant::now() + config.election_max);
        let (applied_term, applied_terms) = watch::channel(Term(0));
        let persists = watch::Sender::new(Persists::default());
        let stopping = CancellationToken::new();
        let state_machine = StateMachine::new(
            config.node,
            machine,
            applied,
            config.applied_path(),
            disk.clone(),
            Signals {
                applied_term,
                persists: persists.clone(),
                stopping: stopping.clone(),
                failure: failure.clone(),
            },
        );
        let purging = Purging::default();
        let network = Network::new(transport, purging.clone());
        let raft = Raft::build(
            config.node.0,
            raft_config,
            network,
            log.clone(),
            state_machine,
        )
        .await;
        let raft = raft.map_err(|error| fatal(&failure, &error))?;
        raft.run();
        if promised_until.is_some() {
            raft.runtime_config().elect(false);
        }

        let (publish, leadership) = watch::channel(Leadership::default());
        let follower = tokio::spawn({
            let (server, metrics) = (raft.server_metrics(), raft.metrics());
            let failure = failure.clone();
            async move {
                leadership::follow(server, applied_terms, publish).await;
                // The core task has ended. In order, or of what?
                let ended = metrics.borrow_watched().running_state.clone();
                match ended {
                    Ok(()) => failure.set("consensus stopped", &Fatal::<Cell>::Panicked),
                    Err(Fatal::Stopped) => {}
                    Err(error) => failure.set("consensus stopped", &error),
                }
            }
        });
        let changing = Arc::new(Mutex::new(()));
        let metrics = raft.metrics();
        let consensus = Self {
            inner: Arc::new(Inner {
                node: config.node,
                incarnation: config.incarnation,
                raft,
                log,
                disk,
                fence,
                budget: Budget::new(config.in_flight_bytes_max, config.in_flight_count_max),
                unflushed_bytes_max: config.in_flight_bytes_max.saturating_mul(2),
                log_entries_kept: config.log_entries_kept,
                log_bytes_kept: config.log_bytes_kept,
                purging,
                entry_bytes_max: config.entry_bytes_max,
                handing_over: std::sync::RwLock::default(),
                failure,
                leadership,
                lease: config.election_max,
                promised_until,
                hold: Hold::default(),
                changing,
                snapshot: Mutex::new(()),
                persists,
                receiver: Receiver::default(),
                stopping,
                tasks: std::sync::Mutex::new(vec![follower]),
            }),
        };
        let finisher = members::finish_changes(Arc::downgrade(&consensus.inner), metrics);
        consensus.keep(tokio::spawn(finisher));
        if let Some(until) = promised_until {
            let raft = consensus.inner.raft.clone();
            let stopping = consensus.inner.stopping.clone();
            consensus.keep(tokio::spawn(async move {
                if stopping
                    .run_until_cancelled(sleep_until(until))
                    .await
                    .is_some()
                {
                    raft.runtime_config().elect(true);
                }
            }));
        }
        if let Err(error) = consensus.inner.stand(&config).await {
            consensus.stop().await;
            return Err(error);
        }
        Ok(consensus)
    }

    fn keep(&self, task: JoinHandle<()>) {
        let tasks = self.inner.tasks.lock();
        tasks.unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Begins a new cell with these voters, this node among them. Nothing happens if this node's log has
    /// begun already.
    ///
    /// Only one node of a cell may do this, and every one of `members` must be on an empty log.
    pub(crate) async fn initialize(
        &self,
        members: Vec<(NodeId, Member)>,
    ) -> Result<(), ConsensusError> {
        let inner = &*self.inner;
        let members: BTreeMap<_, _> = members.into_iter().map(|(id, m)| (id.0, m)).collect();
        let this = members.get(&inner.node.0);
        if this.is_none_or(|this| this.incarnation != inner.incarnation) {
            let (node, incarnation) = (inner.node, inner.incarnation);
            let reason =
                format!("{node}, incarnation {incarnation}, is not among the first voters");
            return Err(ConsensusError::Config { reason });
        }
        match inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => {
                let reason = error.to_string();
                Err(ConsensusError::Config { reason })
            }
            Err(RaftError::Fatal(error)) => Err(fatal(&inner.failure, &error)),
        }
    }

    /// Whether this node's log has begun: by [`Consensus::initialize`], or by a leader that took it in.
    pub(crate) async fn is_initialized(&self) -> Result<bool, ConsensusError> {
        let inner = &*self.inner;
        let initialized = inner.raft.is_initialized().await;
        initialized.map_err(|error| fatal(&inner.failure, &error))
    }

    /// Proposes `command`, made in `term`, and returns at once.
    ///
    /// Proposals of one caller are appended in the order of these calls, or not at all. `done` is called
    /// exactly once, possibly before this returns, often on consensus' own tasks: it may send on a channel
    /// and nothing more.
    pub(crate) fn propose(
        &self,
        term: Term,
        command: Command,
        done: impl FnOnce(Proposed) + Send + 'static,
    ) {
        if let Some(refusal) = self.refuses(term) {
            return done(Proposed::Refused(refusal));
        }
        let inner = &*self.inner;
        let bytes = command.body().len() as u64 + AROUND_BYTES;
        // A leader whose disk is slower than its followers' commits what it has not flushed.
        let lags = inner.log.unflushed_bytes() > inner.unflushed_bytes_max;
        let share = if lags { None } else { inner.budget.take(bytes) };
        let Some(share) = share else {
            let (bytes, count) = (inner.budget.bytes(), inner.budget.count());
            return done(Proposed::Refused(Refusal::Busy { bytes, count }));
        };
        let promise = Promise::new(done, share);
        if command.body().len() <= inner.entry_bytes_max {
            let _others_too = inner.handing_over.read();
            return inner.hand_over(term, command.into(), |outcome| promise.keep(outcome));
        }
        let alone = inner.handing_over.write();
        let mut number = alone.unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let parts = split(command, inner.entry_bytes_max, *number);
        let promises = joint::promises(promise, parts.len());
        for (part, promise) in parts.into_iter().zip(promises) {
            // One that is refused makes all others useless, and dropping the rest changes nothing any more.
            if promise.is_settled() {
                break;
            }
            inner.hand_over(term, part, |outcome| promise.keep(outcome));
        }
    }

    fn refuses(&self, term: Term) -> Option<Refusal> {
        let inner = &*self.inner;
        if inner.stopping.is_cancelled() || inner.failure.is_set() {
            return Some(Refusal::Stopped);
        }
        let leader = || inner.leadership.borrow().leader.clone();
        if !inner.fence.holds(term) {
            return Some(Refusal::NotLeader { leader: leader() });
        }
        inner.hold.is_on(term).then_some(Refusal::Lease)
    }

    /// Which life of this node's disk this is.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// Who leads. Ends with `leading: false` when consensus stops.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// What closes a leadership at once; see [`Fence`].
    pub(crate) fn fence(&self) -> Fence {
        self.inner.fence.clone()
    }

    /// How long ago this node was in touch with a majority, as far as it knows: as leader, since the messages
    /// left that a majority answered last; as follower, since the leader's last sign of life. `None` if
    /// nobody leads.
    pub(crate) async fn quorum_seen_ago(&self) -> Option<Duration> {
        let raft = &self.inner.raft;
        let metrics = self.inner.metrics();
        if metrics.state == ServerState::Leader {
            if metrics.membership_config.voter_ids().eq([metrics.id]) {
                return Some(Duration::ZERO);
            }
            return metrics
                .last_quorum_acked
                .map(|at| at.into_inner().elapsed());
        }
        metrics.current_leader?;
        let seen = raft.with_raft_state(|state| state.vote_last_modified().map(|at| at.elapsed()));
        seen.await.ok().flatten()
    }

    /// Returns when it is certain that this node led at a moment after the call, and that everything
    /// committed before that moment is applied here: the barrier before a linearizable read.
    pub(crate) async fn confirm(&self, within: Duration) -> Result<(), ConfirmError> {
        self.confirm_by(ReadPolicy::ReadIndex, within).await
    }

    /// The same from memory, while a quorum has answered within the lease: without a round trip, trusting
    /// that clocks of voters run at about the same speed.
    pub(crate) async fn confirm_by_lease(&self, within: Duration) -> Result<(), ConfirmError> {
        // For a test that wants to see that it is noticed.
        fail::fail_point!("sabotage::lease", |_| Ok(()));
        self.confirm_by(ReadPolicy::LeaseRead, within).await
    }

    async fn confirm_by(&self, policy: ReadPolicy, within: Duration) -> Result<(), ConfirmError> {
        let confirm = self.inner.raft.ensure_linearizable(policy);
        match timeout(within, confirm).await {
            Ok(Ok(_read_at)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(match refusal(&forward) {
                    Refusal::NotLeader { leader } => ConfirmError::NotLeader { leader },
                    Refusal::Lease | Refusal::Busy { .. } | Refusal::Stopped => {
                        ConfirmError::NoQuorum { waited: within }
                    }
                })
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ConfirmError::NoQuorum { waited: within })
            }
            Ok(Err(RaftError::Fatal(_))) => Err(ConfirmError::Stopped),
        }
    }

    /// Makes durable without the log everything applied so far, then removes from the log what nobody needs.
    /// Returns up to where it is durable. Disk space comes back by whole segments.
    ///
    /// What is kept: in a cell of one, nothing; in a larger one [`ConsensusConfig::log_entries_kept`], and
    /// while leading everything that some voter does not have. But of what other voters may lack never more
    /// than [`ConsensusConfig::log_bytes_kept`]: a dead one must not fill the disk of the living.
    pub(crate) async fn snapshot(&self, within: Duration) -> Result<Option<LogIndex>, WaitError> {
        let inner = &*self.inner;
        let take = async {
            let _one_at_a_time = inner.snapshot.lock().await;
            inner.persist().await?;
            inner.purge().await?;
            Ok(inner
                .metrics()
                .snapshot
                .map(|log_id| LogIndex(log_id.index)))
        };
        let late = WaitError::Deadline {
            action: "making applied entries durable",
            waited: within,
        };
        timeout(within, take).await.unwrap_or(Err(late))
    }

    /// The flushes of the log since the start.
    pub(crate) fn flushes(&self) -> Flushes {
        self.inner.log.flushes()
    }

    /// Answers another voter's message, for the receiving side of a [`Transport`].
    pub(crate) async fn answer(&self, request: &[u8]) -> Result<Bytes, AnswerError> {
        let raft = &self.inner.raft;
        let stopped = |_fatal: RaftError<Cell>| AnswerError::Stopped;
        let answer = match Request::decode(request).map_err(AnswerError::Message)? {
            Request::Vote(_) | Request::PreVote(_) if self.inner.is_promised() => {
                return Err(AnswerError::Promised);
            }
            Request::Append(append) => {
                Answer::Append(raft.append_entries(append).await.map_err(stopped)?)
            }
            Request::Vote(vote) => Answer::Vote(raft.vote(vote).await.map_err(stopped)?),
            Request::PreVote(vote) => Answer::Vote(raft.pre_vote(vote).await.map_err(stopped)?),
            Request::Transfer(transfer) => {
                let told = raft.handle_transfer_leader(transfer).await;
                let accepted = told.map_err(|_fatal| AnswerError::Stopped)?.is_ok();
                Answer::Transfer { accepted }
            }
            Request::Snapshot { vote, snapshot } => {
                let received = self.inner.receiver.receive(raft, vote, snapshot).await;
                Answer::Snapshot(received.map_err(|_fatal| AnswerError::Stopped)?)
            }
        };
        answer.encode().map_err(AnswerError::Message)
    }

    /// Size of the log on disk.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.inner.log.disk_bytes()
    }

    /// Figures for operators.
    pub(crate) fn metrics(&self) -> ConsensusMetrics {
        let inner = &*self.inner;
        let raft = inner.metrics();
        let log = inner.log.figures();
        let index = |log_id: Option<LogId>| log_id.map(|id| LogIndex(id.index));
        ConsensusMetrics {
            term: Term(raft.current_term),
            appended: raft.last_log_index.map(LogIndex),
            committed: index(raft.local_committed),
            applied: index(raft.last_applied),
            durable: index(raft.snapshot),
            purged: index(raft.purged),
            in_flight: inner.budget.count(),
            in_flight_bytes: inner.budget.bytes(),
            unflushed_bytes: inner.log.unflushed_bytes(),
            log_bytes: log.disk_bytes,
            log_segments: log.segments,
            fsyncs: log.fsyncs,
            written_bytes: log.written_bytes,
            fsync_p50: log.fsync_p50,
            fsync_p99: log.fsync_p99,
            log_cache_bytes: log.cache_bytes,
            log_cache_misses: log.cache_misses,
        }
    }

    /// Resolves when consensus cannot go on: the process has to exit and recover from its log. Never after
    /// an orderly stop.
    pub(crate) async fn failed(&self) -> ConsensusError {
        let reason = self.inner.failure.wait().await.to_string();
        ConsensusError::Fatal { reason }
    }

    /// Stops taking part and closes the log. Proposals without an outcome get [`Proposed::Unknown`].
    pub(crate) async fn stop(&self) {
        let inner = &self.inner;
        inner.stopping.cancel();
        inner.receiver.stop().await;
        if let Err(error) = inner.raft.shutdown().await {
            tracing::error!(%error, "the consensus task did not end in order");
        }
        let tasks = {
            let mut tasks = inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of consensus did not end in order");
            }
        }
        let log = inner.log.clone();
        if let Err(error) = inner.disk.run(move || log.close()).await {
            tracing::error!(%error, "the log did not close in order");
        }
    }
}

impl Inner {
    fn is_promised(&self) -> bool {
        self.promised_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Hands a proposal to the core task. It answers `done`, or drops it.
    fn hand_over(
        &self,
        term: Term,
        proposal: Proposal,
        done: impl FnOnce(Proposed) + Send + 'static,
    ) {
        let write = self
            .raft
            .write(proposal)
            .responder(Completion::new(move |result| done(outcome(result))))
            .with_leader(CommittedLeaderId::new(term.0));
        // Never waits: the budget admits fewer proposals than the core's queue has places, and tokio's own
        // idea of fairness is set aside. Should it ever, or should the core be gone, then the write is
        // dropped here, unsent, and its promise answers.
        let handed_over = unconstrained(write.into_future()).now_or_never();
        if !matches!(handed_over, Some(Ok(()))) {
            tracing::warn!(?handed_over, "a proposal could not be handed over");
        }
    }

    /// Refuses another incarnation's log; hurries a cell of one, which has nobody to wait for.
    async fn stand(&self, config: &ConsensusConfig) -> Result<(), ConsensusError> {
        let failed = |error| fatal(&self.failure, &error);
        let node = config.node.0;
        let known = move |state: &openraft::RaftState<Cell>| {
            let membership = state.membership_state.effective().membership();
            let this = membership.get_node(&node).map(|member| member.incarnation);
            (this, membership.voter_ids().eq([node]))
        };
        let known = self.raft.with_raft_state(known).await;
        let (this, alone) = known.map_err(failed)?;
        if let Some(expected) = this.filter(|this| *this != config.incarnation) {
            return Err(ConsensusError::OtherIncarnation {
                node: config.node,
                got: config.incarnation,
                expected,
            });
        }
        if alone {
            self.raft.trigger().elect(false).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Raft's snapshot is the machine's persist, with the file that says so.
    async fn persist(&self) -> Result<(), WaitError> {
        let index = |log_id: Option<LogId>| log_id.map(|log_id| LogIndex(log_id.index));
        let metrics = self.metrics();
        if index(metrics.snapshot) >= index(metrics.last_applied) {
            return Ok(());
        }
        let mut persists = self.persists.subscribe();
        let begun = persists.borrow().begun;
        let result = loop {
            // Ignored while an earlier one goes on, whose caller has left: so again, until it is heard.
            self.raft.trigger().snapshot().await.map_err(stopped)?;
            tokio::select! {
                ended = persists.wait_for(|persists| persists.ended > begun) => {
                    break ended.map_err(|_closed| WaitError::Stopped)?.result.clone();
                }
                () = tokio::time::sleep(PERSIST_AGAIN) => {}
            }
        };
        let durable = result.map_err(|reason| WaitError::Persist {
            reason: reason.to_string(),
        })?;
        self.wait_for(|metrics| index(metrics.snapshot) >= durable)
            .await
    }

    async fn purge(&self) -> Result<(), WaitError> {
        let Some(upto) = self.purgeable(&self.metrics()) else {
            return Ok(());
        };
        self.purging.begin(upto);
        self.raft.trigger().purge_log(upto).await.map_err(stopped)?;
        self.wait_for(|m| m.purged.is_some_and(|log_id| log_id.index >= upto))
            .await
    }

    /// Last entry that this node need not keep, for itself or for others.
    fn purgeable(&self, metrics: &RaftMetrics<Cell>) -> Option<u64> {
        let durable = metrics.snapshot?.index;
        if metrics.membership_config.nodes().count() <= 1 {
            return Some(durable);
        }
        let kept = durable.checked_sub(self.log_entries_kept);
        let replication = metrics.replication.iter().flat_map(BTreeMap::values);
        let had_by_all = replication
            .map(|matched| matched.map(|log_id| log_id.index))
            .fold(kept, std::cmp::min);
        let too_long = self.log.index_before(self.log_bytes_kept);
        had_by_all.max(too_long.map(|index| index.min(durable)))
    }

    /// A copy: the original is locked against the core task.
    pub(super) fn metrics(&self) -> RaftMetrics<Cell> {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(super) async fn wait_for(
        &self,
        reached: impl Fn(&RaftMetrics<Cell>) -> bool,
    ) -> Result<(), WaitError> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_watched();
                if now.running_state.is_err() {
                    return Err(WaitError::Stopped);
                }
                if reached(&now) {
                    return Ok(());
                }
            }
            metrics
                .changed()
                .await
                .map_err(|_closed| WaitError::Stopped)?;
        }
    }
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consensus")
            .field("leadership", &*self.inner.leadership.borrow())
            .finish_non_exhaustive()
    }
}

/// Opens the log and reads what is durable without it, on a thread that may block.
async fn open(
    config: &ConsensusConfig,
    disk: &Disk,
    fence: &Fence,
    failure: &Failure,
) -> Result<(LogStore, Applied), ConsensusError> {
    let mut options = LogOptions {
        directory: config.log_directory(),
        node: config.node,
        cache_bytes: config.log_cache_bytes,
        cache_entries: config.log_cache_entries,
        segment_bytes: config.log_segment_bytes,
        is_used: false,
    };
    let path = config.applied_path();
    let (fence, failure, slow) = (fence.clone(), failure.clone(), disk.slow.clone());
    let open = move || {
        let applied = Applied::read(&path);
        let applied = applied.map_err(|source| ConsensusError::Applied { path, source })?;
        options.is_used = applied.last.is_some();
        let log = LogStore::open(&options, slow, fence, failure)?;
        let purged = log.purged().map_err(|source| ConsensusError::Log {
            path: options.directory.clone(),
            source,
        })?;
        if purged > applied.last {
            let index = |log_id: Option<LogId>| log_id.map(|id| LogIndex(id.index));
            let (purged, durable) = (index(purged), index(applied.last));
            return Err(ConsensusError::Gap { purged, durable });
        }
        if let Some(durable) = applied.last {
            let cut = log.cut_off_against(durable);
            cut.map_err(|source| ConsensusError::Log {
                path: options.directory.clone(),
                source,
            })?;
        }
        Ok((log, applied))
    };
    let opened = disk.run(open).await;
    opened.unwrap_or_else(|panicked| {
        Err(ConsensusError::Fatal {
            reason: format!("opening the log: {panicked}"),
        })
    })
}

fn fatal(failure: &Failure, error: &Fatal<Cell>) -> ConsensusError {
    failure.set("consensus stopped", error);
    ConsensusError::Fatal {
        reason: error.to_string(),
    }
}

fn stopped(_error: Fatal<Cell>) -> WaitError {
    WaitError::Stopped
}
