//! The state of one voter for another that the log no longer reaches: what is sent, and how it is taken over.
//!
//! A snapshot is small: the machine's manifest and where its sender is reached. The databases themselves
//! are fetched from there by [`super::Machine::install`], which takes as long as it takes.
//!
//! 1. The leader sends [`super::wire::Request::Snapshot`], and goes on sending it until it hears how that
//!    ended. The receiver begins with the first and answers at once, always: nothing queues.
//! 2. The receiver lets its state machine take over the state, beside openraft ([`Receiver`]), and makes
//!    that durable.
//! 3. Then it hands the snapshot to openraft, whose own installing finds the machine there already.
//!
//! Why beside openraft: while its state machine installs, openraft holds back the purge of the log that
//! the snapshot replaces, and that holds back every command behind it: appends, heartbeats and votes go
//! unanswered until the end. A voter that fetches for minutes would be as good as dead for minutes. As it
//! is, openraft's installing takes one replaced file. During step 2 only the state machine's task is
//! occupied: what is committed meanwhile is applied afterwards, and waits in a queue as long as the API's.
//!
//! Invariants:
//!
//! - One state is taken over at a time, whoever sends. A newer one comes after it.
//! - Entries that a state taken over covers never reach the machine, also where openraft applies them
//!   because a newer leader brought them between steps 2 and 3.
//! - The state sent is committed. So it does no harm to take over what a deposed leader sent.

use bytes::Bytes;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::cell::{Cell, CellSnapshot, CellVote};
use super::failure::describe;
use super::state_machine::StateMachine;

/// What openraft hands from a voter's state machine to another's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Content {
    /// The machine's own words about the state.
    pub(super) manifest: Bytes,
    /// Base URL of the node that has it. Empty if that node is not in its own membership.
    pub(super) source: String,
}

/// What became of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Receipt {
    /// The receiver is there, or further; or it follows the newer vote.
    Installed {
        /// Vote that it holds.
        vote: CellVote,
    },
    /// It is at work, on this or another. Ask again.
    Installing,
    /// It did not get there. Whoever asks again begins again.
    Failed,
}

/// The receiving side.
#[derive(Default)]
pub(super) struct Receiver {
    /// Installs. Looked at when the next snapshot comes.
    task: Mutex<Option<JoinHandle<bool>>>,
}

impl Receiver {
    /// Begins to install, or says how far it is. Never waits for installing.
    pub(super) async fn receive(
        &self,
        raft: &Raft<Cell, StateMachine>,
        vote: CellVote,
        snapshot: CellSnapshot,
    ) -> Result<Receipt, Fatal<Cell>> {
        let mut task = self.task.lock().await;
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(Receipt::Installing);
        }
        if let Some(ended) = task.take()
            && !ended.await.unwrap_or(false)
        {
            return Ok(Receipt::Failed);
        }
        let (held, applied) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, metrics.last_applied)
        };
        if held > vote {
            return Ok(Receipt::Installed { vote: held });
        }
        if snapshot.meta.last_log_id <= applied {
            // Nothing to install; the answer counts for the leader as one to an append.
            let answer = raft.install_full_snapshot(vote, snapshot).await?;
            return Ok(Receipt::Installed { vote: answer.vote });
        }
        *task = Some(tokio::spawn(install(raft.clone(), vote, snapshot)));
        Ok(Receipt::Installing)
    }

    /// Waits for the end of what was begun. The state machine has been told to stop.
    pub(super) async fn stop(&self) {
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the install task did not end in order");
        }
    }
}

/// Steps 2 and 3. False if that did not succeed.
async fn install(raft: Raft<Cell, StateMachine>, vote: CellVote, snapshot: CellSnapshot) -> bool {
    let source = snapshot.snapshot.source.clone();
    tracing::info!(source, meta = %snapshot.meta, "taking over a peer's state");
    let (meta, content) = (snapshot.meta.clone(), snapshot.snapshot.clone());
    let taken = raft.with_state_machine(move |machine| Box::pin(machine.take_over(meta, content)));
    match taken.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let reason = describe("take over a peer's state", &error);
            tracing::warn!(source, reason, "a snapshot is not installed");
            return false;
        }
        Err(_stopped) => return false,
    }
    let meta = snapshot.meta.clone();
    let installed = raft.install_full_snapshot(vote, snapshot).await.is_ok();
    if installed {
        tracing::info!(source, %meta, "took over a peer's state");
    }
    installed
}
