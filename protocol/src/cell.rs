//! The cell's own account of itself, and what is asked of it: joining, leaving, handing over.
//!
//! All of it is JSON under `/tidemark/v1/cell`, for whoever knows the cluster secret. A voter that does
//! not lead refuses what only the leader can do with 503 and the header `tidemark-leader`.

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, NodeId, Term};

/// Where a node of the cell tells of itself.
pub const CELL_PATH: &str = "/tidemark/v1/cell";
/// Where a node asks to become a voter.
pub const JOIN_PATH: &str = "/tidemark/v1/cell/join";
/// Where an operator has a node leave.
pub const REMOVE_PATH: &str = "/tidemark/v1/cell/remove";
/// Where an operator has the leader hand over.
pub const TRANSFER_PATH: &str = "/tidemark/v1/cell/transfer";

/// The cell as one of its nodes sees it. Log positions are indices; they count entries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CellStatus {
    /// Newest term known.
    pub term: Term,
    /// Who leads it, if known.
    pub leader: Option<NodeId>,
    /// Everybody who votes or is about to, by id.
    pub members: Vec<CellMember>,
    /// Whether a change of the voters is on its way.
    pub changing: bool,
    /// Last entry known to be committed.
    pub committed: Option<u64>,
    /// Last entry applied here.
    pub applied: Option<u64>,
    /// Size of the log on disk.
    pub log_bytes: u64,
}

/// A member of the cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CellMember {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory: another one under the same id is not this member.
    pub incarnation: Incarnation,
    /// Base URL under which the others reach it.
    pub url: String,
    /// Whether it votes. Otherwise it is joining.
    pub voter: bool,
    /// Last entry it is known to have. Only the leader knows.
    pub matched: Option<u64>,
    /// Entries that it lacks. Only the leader knows.
    pub behind: Option<u64>,
    /// Milliseconds since it last answered. Only the leader knows.
    pub silent_ms: Option<u64>,
}

/// A first voter, as the configuration lists it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CellVoter {
    /// The node.
    pub node: NodeId,
    /// Its base URL.
    pub url: String,
}

/// What a node tells another that begins, joins or looks for its cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CellIntroduction {
    /// The node that answers.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// The first voters as it was told them, by id.
    pub voters: Vec<CellVoter>,
    /// Whether its log has a beginning: it is, or was, part of a cell.
    pub initialized: bool,
    /// Newest term it knows.
    pub term: Term,
    /// Whether it leads that term.
    pub leading: bool,
    /// Base URL of the leader, if it knows one.
    pub leader_url: Option<String>,
    /// The members it knows of.
    pub members: Vec<CellMember>,
}

/// A node asks to become a voter. It asks again until it is one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Base URL under which the others reach it.
    pub url: String,
    /// The voter whose place it takes, if any.
    pub replace: Option<NodeId>,
}

/// How far a joining node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinState {
    /// It gets the log and does not vote yet.
    Learner,
    /// It votes.
    Voter,
}

/// The leader's answer to a [`JoinRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// How far it is.
    pub state: JoinState,
    /// Entries that it lacks; `None` as long as nothing is known to have reached it.
    pub behind: Option<u64>,
}

/// An operator has a node leave the cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// The node.
    pub node: NodeId,
    /// Even if those who stay would have no majority alive.
    #[serde(default)]
    pub force: bool,
}

/// The cell's members after a change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoveAnswer {
    /// Who is left, by id.
    pub members: Vec<CellMember>,
}

/// An operator has the leader hand over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TransferRequest {
    /// To this voter; `None`: to the one that has most.
    #[serde(default)]
    pub to: Option<NodeId>,
}

/// Who leads now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransferAnswer {
    /// The new leader.
    pub leader: NodeId,
}

/// Why the cell refuses: a code for programs and a text for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CellRefusal {
    /// What the caller can do about it.
    pub code: CellRefusalCode,
    /// What is wrong, naming the thing and both values.
    pub message: String,
}

/// What kind of refusal it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CellRefusalCode {
    /// The request cannot be read. Fix it.
    BadRequest,
    /// The cluster secret is missing or wrong.
    Unauthenticated,
    /// This node does not lead; `tidemark-leader` says who does, if that is known.
    NotLeader,
    /// The id belongs, or belonged, to another life of a data directory. Take a new one.
    IdUsed,
    /// The cell has as many voters as it may have. Replace or remove one.
    Full,
    /// No such member.
    NoMember,
    /// It is the only voter.
    LastVoter,
    /// Those who stay would have no majority alive. `force` does it all the same.
    NoQuorum,
    /// Another change is on its way. Try again later.
    Changing,
    /// It was not done in time; it may be done yet. Ask again.
    TimedOut,
    /// A fault of the server.
    Internal,
}

impl CellRefusalCode {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::NoMember => 404,
            Self::IdUsed | Self::Full | Self::LastVoter | Self::NoQuorum => 409,
            Self::Internal => 500,
            Self::NotLeader | Self::Changing | Self::TimedOut => 503,
        }
    }

    /// Whether asking again, unchanged, can help.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::NotLeader | Self::Changing | Self::TimedOut | Self::Internal
        )
    }
}

impl CellRefusal {
    /// A refusal of this kind.
    pub fn new(code: CellRefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
