//! The outcome of a proposal, and the promise that there is exactly one.

use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;

use super::budget::Share;
use super::cell::Cell;
use super::{Leader, LogIndex};

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Proposed {
    /// Committed, and handed to [`super::Machine::apply`], which returned.
    Committed {
        /// Its place in the log.
        index: LogIndex,
    },
    /// Not appended, here or anywhere: nothing happened and nothing will.
    Refused(Refusal),
    /// It may be committed now, later, or never. Only the applied log tells.
    Unknown,
}

/// Why a proposal was not appended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The term is over, or this node never led it.
    #[error("not the leader of that term; the leader is {leader:?}")]
    NotLeader {
        /// Who to try. May name this node itself, in a newer term.
        leader: Option<Leader>,
    },
    /// Leading, but no quorum has confirmed it recently; or leadership is being handed over.
    #[error("leadership is not confirmed at the moment")]
    Lease,
    /// Too much in flight. Wait for outcomes.
    #[error("{bytes} bytes in {count} proposals are in flight already")]
    Busy {
        /// Bytes in flight.
        bytes: u64,
        /// Proposals in flight.
        count: u64,
    },
    /// Consensus has stopped on this node.
    #[error("consensus has stopped")]
    Stopped,
}

/// Calls back once: with the outcome, or with [`Proposed::Unknown`] when it is dropped.
pub(super) struct Promise<F: FnOnce(Proposed)> {
    /// With what is in flight until the outcome is known: given back before anybody hears of it.
    open: Option<(F, Share)>,
}

impl<F: FnOnce(Proposed)> Promise<F> {
    pub(super) fn new(done: F, share: Share) -> Self {
        let open = Some((done, share));
        Self { open }
    }

    pub(super) fn keep(mut self, outcome: Proposed) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Proposed) {
        if let Some((done, share)) = self.open.take() {
            drop(share);
            done(outcome);
        }
    }
}

impl<F: FnOnce(Proposed)> Drop for Promise<F> {
    fn drop(&mut self) {
        self.settle(Proposed::Unknown);
    }
}

/// openraft's way to answer one request.
pub(super) struct Completion<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Completion<T> {
    pub(super) fn new(complete: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(complete))
    }
}

impl<T: Send + 'static> Responder<Cell, T> for Completion<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// Translates openraft's answer to a proposal.
pub(super) fn outcome(result: ClientWriteResult<Cell>) -> Proposed {
    match result {
        Ok(written) => Proposed::Committed {
            index: LogIndex(written.log_id.index),
        },
        Err(ClientWriteError::ForwardToLeader(forward)) => Proposed::Refused(refusal(&forward)),
        // Appended here once. The next leader may hold it too, and commit it.
        Err(ClientWriteError::LogEntryDiscarded(_)) => Proposed::Unknown,
        Err(
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => {
            // Answers to membership changes, never to a command.
            tracing::error!(%error, "a proposal was answered as a membership change");
            Proposed::Unknown
        }
    }
}

pub(super) fn refusal(forward: &ForwardToLeader<Cell>) -> Refusal {
    match forward.reason {
        ForwardReason::NotLeader => Refusal::NotLeader {
            leader: forward
                .leader_id
                .map(|id| Leader::new(id, forward.leader_node.as_ref())),
        },
        ForwardReason::LeadershipTransfer | ForwardReason::LeaseExpired => Refusal::Lease,
    }
}
