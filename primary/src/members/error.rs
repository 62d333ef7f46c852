//! Why a node cannot be part of its cell.

use std::path::PathBuf;

use tidemark_protocol::cell::{CellRefusal, CellVoter};
use tidemark_protocol::{Incarnation, NodeId};

/// Why a node cannot be part of its cell. Each is final: somebody has to change something.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// Two nodes were told different first voters.
    #[error(
        "the first voters are {} here and {} at voter {peer}: give every voter the same list",
        list(ours),
        list(theirs)
    )]
    Lists {
        /// As this node was told.
        ours: Vec<CellVoter>,
        /// As the other was told.
        theirs: Vec<CellVoter>,
        /// The other.
        peer: NodeId,
    },
    /// The cell knows this id with another data directory.
    #[error(
        "voter {node} of this cell had another disk (incarnation {known}, this one is {ours}): what it \
         promised is lost; remove it and join under a new id"
    )]
    OtherDisk {
        /// The id.
        node: NodeId,
        /// In the membership.
        known: Incarnation,
        /// Of this data directory.
        ours: Incarnation,
    },
    /// The cell has begun, and this node is no member.
    #[error(
        "the cell at {url} goes on without node {node}: join it under a new id and on a new directory"
    )]
    NoMember {
        /// This node.
        node: NodeId,
        /// Who said so.
        url: String,
    },
    /// It was one, and is no more.
    #[error("node {node} was removed from its cell")]
    Removed {
        /// This node.
        node: NodeId,
    },
    /// The leader does not take this node in.
    #[error("the cell does not take in node {node}")]
    Refused {
        /// This node.
        node: NodeId,
        /// Why.
        #[source]
        refusal: CellRefusal,
    },
    /// It was started without what it was made for.
    #[error("'{}' was made to join a cell and has not yet: start it with join, or on another directory", directory.display())]
    JoinForgotten {
        /// The node's directory.
        directory: PathBuf,
    },
    /// This node's own consensus.
    #[error("the cell cannot begin: {reason}")]
    Consensus {
        /// What went wrong.
        reason: String,
    },
}

fn list(voters: &[CellVoter]) -> String {
    let voters = voters
        .iter()
        .map(|voter| format!("{:x}={}", voter.node.0, voter.url));
    let text = voters.collect::<Vec<_>>().join(",");
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}
