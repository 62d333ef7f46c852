//! openraft's state machine, on a [`Machine`].
//!
//! Keeps the books that raft needs (what is applied, under which membership) and leaves the databases to
//! the machine. Nothing here is durable per entry: the log is. The file of [`Applied`] says from where on
//! the log must be applied again.
//!
//! ```text
//! durable <= applied <= taken over             (the last only while a peer's state is being installed)
//! ```
//!
//! What is durable never ends within a command in parts, see [`super::parts`].

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tidemark_protocol::{DatabaseId, NodeId, Term};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Command;
use super::applied::Applied;
use super::cell::{Cell, CellSnapshot, LogId, SnapshotMeta, StoredMembership};
use super::disk::Disk;
use super::failure::{Failure, describe};
use super::machine::{BoxedMachine, Committed, LogIndex, Machine, MachineError, Persisting};
use super::parts::{Assembly, Complete, Taken};
use super::snapshot::Content;
use crate::files;

/// Entries handed to the machine at once.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Bytes handed to the machine at once, unless one entry is larger.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Applies committed entries to a machine.
pub(super) struct StateMachine {
    node: NodeId,
    /// Never locked: openraft wants its state machine `Sync` and then only calls it with `&mut self`.
    machine: Mutex<Box<dyn BoxedMachine>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// The machine has a peer's state up to here: what `applied` still lacks of it is passed over.
    taken_over: Option<LogId>,
    /// With the books as they were before its first part.
    assembly: Assembly<SnapshotMeta>,
    durable: Durable,
    signals: Signals,
}

/// What the state machine says to the handle, and hears from it.
#[derive(Clone)]
pub(super) struct Signals {
    /// Term of what is applied.
    pub(super) applied_term: watch::Sender<Term>,
    pub(super) persists: watch::Sender<Persists>,
    /// Cancelled when consensus stops: what takes long ends early.
    pub(super) stopping: CancellationToken,
    pub(super) failure: Failure,
}

/// Persists that were begun, counted, and how the last one ended.
#[derive(Clone, Debug)]
pub(super) struct Persists {
    pub(super) begun: u64,
    /// The number of the last one that has ended. They end in order.
    pub(super) ended: u64,
    /// Up to where it is durable since, or why the machine refused.
    pub(super) result: Result<Option<LogIndex>, Arc<str>>,
}

impl Default for Persists {
    fn default() -> Self {
        let result = Ok(None);
        Self {
            begun: 0,
            ended: 0,
            result,
        }
    }
}

/// The file that says what is durable without the log, and its content.
#[derive(Clone)]
struct Durable {
    path: Arc<PathBuf>,
    disk: Disk,
    /// Held while the file is replaced: one snapshot may be built while the next is begun.
    current: Arc<Mutex<Applied>>,
}

/// A persist under way.
pub(super) struct Build {
    number: u64,
    meta: SnapshotMeta,
    /// Taken by the first call. Never locked, see [`StateMachine`].
    persisting: Mutex<Option<Persisting>>,
    durable: Durable,
    signals: Signals,
}

/// Entries on their way to the machine, and who waits for them.
#[derive(Default)]
struct Batch {
    entries: Vec<Committed>,
    responders: Vec<ApplyResponder<Cell>>,
    bytes: usize,
}

impl StateMachine {
    /// `applied` is what the file at `path` says.
    pub(super) fn new(
        node: NodeId,
        machine: impl Machine,
        applied: Applied,
        path: PathBuf,
        disk: Disk,
        signals: Signals,
    ) -> Self {
        Self {
            node,
            machine: Mutex::new(Box::new(machine)),
            applied: applied.last,
            membership: applied.membership.clone(),
            taken_over: applied.last,
            assembly: Assembly::default(),
            durable: Durable {
                path: Arc::new(path),
                disk,
                current: Arc::new(Mutex::new(applied)),
            },
            signals,
        }
    }

    fn machine(&mut self) -> &mut dyn BoxedMachine {
        self.machine
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
    }

    /// Lets the machine take over a peer's state, durably, beside whatever openraft does; see
    /// [`super::snapshot`]. May end early when consensus stops.
    pub(super) async fn take_over(
        &mut self,
        meta: SnapshotMeta,
        content: Content,
    ) -> Result<(), MachineError> {
        let Content { manifest, source } = content;
        if meta.last_log_id <= self.taken_over.max(self.applied) {
            return Ok(());
        }
        let stopping = self.signals.stopping.clone();
        tokio::select! {
            installed = self.machine().install(manifest.clone(), &source) => installed?,
            () = stopping.cancelled() => {
                return Err(MachineError::new("install a peer's state", "consensus stops"));
            }
        }
        self.taken_over = meta.last_log_id;
        self.assembly.drop_open();
        let applied = Applied {
            last: meta.last_log_id,
            membership: meta.last_membership,
            manifest,
        };
        let advanced = self.durable.advance(applied).await;
        advanced.map_err(|error| {
            self.signals.failure.set("write what is durable", &error);
            MachineError::new("write what is durable", error)
        })
    }

    /// Lets the machine fetch a damaged database anew. May end early when consensus stops.
    pub(super) async fn repair(
        &mut self,
        database: DatabaseId,
        source: &str,
    ) -> Result<(), MachineError> {
        let stopping = self.signals.stopping.clone();
        tokio::select! {
            repaired = self.machine().repair(database, source) => repaired,
            () = stopping.cancelled() => {
                Err(MachineError::new("repair a database", "consensus stops"))
            }
        }
    }

    fn is_taken_over(&self, log_id: &LogId) -> bool {
        let taken_over = self.taken_over.as_ref();
        taken_over.is_some_and(|taken_over| log_id.index <= taken_over.index)
    }

    fn note_applied(&mut self, applied: Option<LogId>) {
        self.applied = applied;
        if let Some(LogId { leader_id, .. }) = applied {
            let term = Term(leader_id.term);
            self.signals
                .applied_term
                .send_if_modified(|current| std::mem::replace(current, term) != term);
        }
    }

    /// Where others reach this node. Empty if the membership does not say.
    fn address(&self) -> String {
        let member = self.membership.membership().get_node(&self.node.0);
        member.map_or_else(String::new, |member| member.address.clone())
    }

    /// Hands the batch to the machine, then answers.
    async fn hand_on(&mut self, batch: &mut Batch) -> io::Result<()> {
        let Batch {
            entries,
            responders,
            bytes: _,
        } = std::mem::take(batch);
        if !entries.is_empty() {
            let applied = self.machine().apply(entries).await;
            applied.map_err(|error| failed(&self.signals.failure, error))?;
        }
        for responder in responders {
            responder.send(());
        }
        Ok(())
    }
}

impl Batch {
    fn push(&mut self, log_id: LogId, command: Command) {
        self.bytes += command.body().len();
        self.entries.push(Committed {
            index: LogIndex(log_id.index),
            term: Term(log_id.leader_id.term),
            command,
        });
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.entries.len() >= BATCH_ENTRIES_MAX
    }
}

impl Durable {
    fn get(&self) -> Applied {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes `applied` the content of the file, unless that is newer.
    async fn advance(&self, applied: Applied) -> io::Result<()> {
        let Self {
            path,
            disk,
            current,
        } = self.clone();
        let replace = move || {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.last > applied.last {
                return Ok(());
            }
            applied.write(&path)?;
            *current = applied;
            Ok(())
        };
        disk.run(replace).await?
    }
}

impl Applied {
    /// To be had from the node at `source`.
    fn into_snapshot(self, source: String) -> CellSnapshot {
        let Self {
            last,
            membership,
            manifest,
        } = self;
        let meta = SnapshotMeta {
            last_log_id: last,
            last_membership: membership,
        };
        Snapshot {
            meta,
            snapshot: Content { manifest, source },
        }
    }
}

impl RaftStateMachine<Cell> for StateMachine {
    type SnapshotData = Content;
    type SnapshotBuilder = Build;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Cell>>> + Unpin + OptionalSend,
    {
        let mut batch = Batch::default();
        let mut applied = self.applied;
        while let Some(next) = entries.next().await {
            let (entry, responder) =
                next.inspect_err(|e| self.signals.failure.set("read the log", e))?;
            let log_id = entry.log_id;
            let term = Term(log_id.leader_id.term);
            match entry.payload {
                EntryPayload::Blank => self.assembly.pass(term),
                EntryPayload::Membership(membership) => {
                    self.assembly.pass(term);
                    self.membership = StoredMembership::new(Some(log_id), membership);
                }
                // Part of the state that the machine took over. Whoever proposed it is told nothing by it.
                EntryPayload::Normal(_) if self.is_taken_over(&log_id) => {
                    applied = Some(log_id);
                    continue;
                }
                EntryPayload::Normal(proposal) => {
                    let before = || SnapshotMeta {
                        last_log_id: applied,
                        last_membership: self.membership.clone(),
                    };
                    match self.assembly.take(term, proposal, before) {
                        Taken::Command(command) => batch.push(log_id, command),
                        Taken::Complete(parts) => {
                            let joined = join(parts).await;
                            let joined =
                                joined.inspect_err(|e| self.signals.failure.set("join parts", e));
                            batch.push(log_id, joined?);
                        }
                        Taken::Part => {}
                        Taken::Stray => {
                            // What it is part of never takes effect: nobody is told that it did.
                            applied = Some(log_id);
                            continue;
                        }
                    }
                }
            }
            batch.responders.extend(responder);
            applied = Some(log_id);
            if batch.is_full() {
                self.hand_on(&mut batch).await?;
                self.applied = applied;
            }
        }
        self.hand_on(&mut batch).await?;
        self.note_applied(applied);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Build {
        let number = self.signals.persists.borrow().begun + 1;
        self.signals.persists.send_modify(|p| p.begun = number);
        let books = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        Build {
            number,
            meta: self.assembly.before().cloned().unwrap_or(books),
            persisting: Mutex::new(Some(self.machine().persist())),
            durable: self.durable.clone(),
            signals: self.signals.clone(),
        }
    }

    /// Only the books: the machine has taken over the state before, see [`super::snapshot`].
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, content: Content) -> io::Result<()> {
        let taken = self.take_over(meta.clone(), content).await;
        taken.map_err(|error| failed(&self.signals.failure, error))?;
        self.membership = meta.last_membership.clone();
        self.note_applied(meta.last_log_id);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<CellSnapshot>> {
        let durable = self.durable.get();
        let source = self.address();
        Ok(durable
            .last
            .is_some()
            .then(|| durable.into_snapshot(source)))
    }
}

impl RaftSnapshotBuilder<Cell> for Build {
    type SnapshotData = Content;

    async fn build_snapshot(&mut self) -> io::Result<CellSnapshot> {
        let persisting = self
            .persisting
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let persisting = persisting.ok_or_else(|| io::Error::other("a snapshot is built once"))?;
        let manifest = match persisting.await {
            Ok(manifest) => manifest,
            Err(error) => return self.refused("persist", error),
        };
        let meta = self.meta.clone();
        let applied = Applied {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            manifest: manifest.clone(),
        };
        if let Err(error) = self.durable.advance(applied).await {
            return self.refused("write what is durable", error);
        }
        self.ended(Ok(meta.last_log_id.map(|last| LogIndex(last.index))));
        // Of what is built openraft keeps the meta data; what is sent comes from the state machine.
        let source = String::new();
        Ok(Snapshot {
            meta,
            snapshot: Content { manifest, source },
        })
    }
}

impl Build {
    fn ended(&self, result: Result<Option<LogIndex>, Arc<str>>) {
        let ended = self.number;
        self.signals.persists.send_modify(|persists| {
            persists.ended = ended;
            persists.result = result;
        });
    }

    /// A persist that finds no room, or that readers are in the way of, is tried again at another time: all
    /// it would have allowed is to cut the log. After any other failure of the disk nobody can say what of the
    /// files is on it: that ends consensus.
    fn refused<E>(&self, what: &str, error: E) -> io::Result<CellSnapshot>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        if files::is_broken(&error) {
            self.signals.failure.set(what, &error);
            return Err(io::Error::other(error));
        }
        let reason = describe(what, &error);
        tracing::warn!(reason, "applied entries are not durable without the log");
        self.ended(Err(reason.into()));
        // An error here would end consensus. A snapshot of nothing changes nothing; what is durable may be a
        // peer's state that openraft has not accepted.
        Ok(Applied::default().into_snapshot(String::new()))
    }
}

/// Not on this thread, which heartbeats and their answers need, nor on one of those that clients' SQL may have all
/// of: what is committed must not wait for it.
async fn join(parts: Complete) -> io::Result<Command> {
    let (done, joined) = oneshot::channel();
    let joining = std::thread::Builder::new().name("join-parts".to_owned());
    joining.spawn(move || {
        // Whoever is gone wants no answer.
        let _ = done.send(parts.join());
    })?;
    let panicked = |_closed| io::Error::other("the thread panicked");
    joined.await.map_err(panicked)?.map_err(io::Error::other)
}

fn failed(failure: &Failure, error: MachineError) -> io::Error {
    failure.set("the machine failed", &error);
    io::Error::other(error)
}
