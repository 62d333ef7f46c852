//! Errors of the consensus handle.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tidemark_protocol::{Incarnation, NodeId};

use super::{Leader, LogIndex};

/// Why consensus did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsensusError {
    /// The settings contradict each other.
    #[error("consensus settings are not usable: {reason}")]
    Config {
        /// Which and why.
        reason: String,
    },
    /// The log cannot be opened.
    #[error("open log {}", path.display())]
    Log {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log is another node's: a disk or volume was swapped.
    #[error("log {} belongs to node {got}, this is node {expected}", path.display())]
    ForeignLog {
        /// Its directory.
        path: PathBuf,
        /// Node written in the log.
        got: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// The log knows this node under another incarnation: its files were copied, or partly lost.
    #[error("the cell knows node {node} as incarnation {expected}, this is {got}")]
    OtherIncarnation {
        /// This node.
        node: NodeId,
        /// Its incarnation.
        got: Incarnation,
        /// What the membership says.
        expected: Incarnation,
    },
    /// The file that says what is durable without the log cannot be read.
    #[error("read {}", path.display())]
    Applied {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Entries that were never made durable elsewhere are no longer in the log.
    #[error("the log begins after {purged:?}, but only {durable:?} is durable without it")]
    Gap {
        /// Last entry purged from the log.
        purged: Option<LogIndex>,
        /// Last entry known to be durable without the log.
        durable: Option<LogIndex>,
    },
    /// It failed while running. Final: exit and recover from the log.
    #[error("consensus failed: {reason}")]
    Fatal {
        /// What failed, with its causes.
        reason: String,
    },
}

/// Why leadership was not confirmed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ConfirmError {
    /// Another node leads.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Who to ask.
        leader: Option<Leader>,
    },
    /// Not enough voters answered, or not in time.
    #[error("no quorum confirmed the leadership within {waited:?}")]
    NoQuorum {
        /// How long was waited.
        waited: Duration,
    },
    /// Consensus has stopped on this node.
    #[error("consensus has stopped")]
    Stopped,
}

/// Why a snapshot or purge is not known to be complete.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// It goes on, but the deadline has passed.
    #[error("{action} did not finish within {waited:?}")]
    Deadline {
        /// What was waited for.
        action: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The machine could not make everything durable. Nothing is lost: the log keeps it.
    #[error("the machine did not persist: {reason}")]
    Persist {
        /// Why.
        reason: String,
    },
    /// Consensus has stopped on this node.
    #[error("consensus has stopped")]
    Stopped,
}

/// Why another voter's message was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// It is not a message of this version.
    #[error("a voter's message cannot be read")]
    Message(#[source] io::Error),
    /// Started again a moment ago, this node may have promised a leader not to vote for another.
    #[error("this voter has started again a moment ago and does not vote yet")]
    Promised,
    /// Consensus has stopped on this node.
    #[error("consensus has stopped")]
    Stopped,
}
