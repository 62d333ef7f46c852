//! The types openraft is instantiated with.
//!
//! Standard leader ids (one leader per term), so that the term alone is the fencing token.

use openraft::impls::{BoxedErrorSource, Entry, EntryPayload, InlineBatch, Vote};
use openraft::vote::leader_id_std;
use openraft::{RaftTypeConfig, alias};

use super::Member;
use super::completion::Completion;
use super::proposal::Proposal;

/// The cell's type configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Cell;

// Written out because openraft's macro cannot set `Responder<T>`.
impl RaftTypeConfig for Cell {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, u64, Member>;
    type Entry = Entry<CommittedLeaderId, Self::Payload>;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder<T>
        = Completion<T>
    where
        T: Send + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(super) type CommittedLeaderId = leader_id_std::CommittedLeaderId<u64>;
pub(super) type LogId = alias::LogIdOf<Cell>;
pub(super) type CellVote = alias::VoteOf<Cell>;
pub(super) type CellEntry = alias::EntryOf<Cell>;
pub(super) type CellPayload = alias::PayloadOf<Cell>;
pub(super) type Membership = openraft::Membership<u64, Member>;
pub(super) type StoredMembership = alias::StoredMembershipOf<Cell>;
pub(super) type SnapshotMeta = alias::SnapshotMetaOf<Cell>;
pub(super) type CellSnapshot = alias::SnapshotOf<Cell, super::snapshot::Content>;
