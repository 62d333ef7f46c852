//! Stands in for what consensus does not offer yet.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemark_protocol::{Incarnation, NodeId};

use crate::consensus::{Consensus, LogIndex, Member};

#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) members: Vec<MemberStatus>,
    pub(crate) changing: bool,
}

#[derive(Debug)]
pub(crate) struct MemberStatus {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) voter: bool,
    pub(crate) matched: Option<LogIndex>,
    pub(crate) silent: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
#[error("not yet")]
pub(crate) struct ChangeError;

impl Consensus {
    pub(crate) fn shim_members(&self) -> Roster {
        Roster {
            members: Vec::new(),
            changing: false,
        }
    }
    pub(crate) async fn shim_add_learner(
        &self,
        _: NodeId,
        _: Member,
        _: Duration,
    ) -> Result<(), ChangeError> {
        Err(ChangeError)
    }
    pub(crate) async fn shim_change_voters(
        &self,
        _: BTreeSet<NodeId>,
        _: BTreeSet<NodeId>,
        _: Duration,
    ) -> Result<(), ChangeError> {
        Err(ChangeError)
    }
    pub(crate) async fn shim_transfer(
        &self,
        _: Option<NodeId>,
        _: Duration,
    ) -> Result<NodeId, ChangeError> {
        Err(ChangeError)
    }
}
