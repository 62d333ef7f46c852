//! The leader's side: joining, removing, handing over, one change at a time.
//!
//! A change runs to its end even if whoever asked for it is gone: half of one would be a joint membership
//! that needs two majorities. What a leader that dies leaves half done, its successor is asked for again.
//!
//! Nothing is changed that would leave no majority alive: the node that goes and the silent ones counted
//! as gone, more than half of the new voters must be heard of. `force` sets that aside, for an operator who
//! knows better; it cannot help where the majority is lost already.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidemark_protocol::cell::{
    CellMember, CellRefusal, CellRefusalCode, JoinAnswer, JoinRequest, JoinState, RemoveAnswer,
    RemoveRequest, TransferAnswer, TransferRequest,
};
use tidemark_protocol::{NodeId, Term};
use tokio::sync::MutexGuard;
use tokio::time::timeout;

use crate::cell::Primary;
use crate::consensus::{Member, MembersError as ChangeError};

/// Voters of a cell at most.
const VOTERS_MAX: usize = 5;
/// A learner that lacks no more entries than this gets its vote: what it still lacks is on its way.
const NEARLY_ALL: u64 = 2048;
/// Silence after which a member is counted as gone. Several heartbeats, longer than an election.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// How long a change waits for one before it.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// Time for one change of the membership.
const CHANGE_WAIT: Duration = Duration::from_secs(8);
/// Time for another voter to take over.
const TRANSFER_WAIT: Duration = Duration::from_secs(5);

impl Primary {
    /// Brings a node closer to its vote; asked again and again.
    pub(super) async fn admit(
        self: &Arc<Self>,
        request: JoinRequest,
    ) -> Result<JoinAnswer, CellRefusal> {
        let term = self.leading_term()?;
        if request.replace == Some(request.node) {
            let text = format!("node {} cannot replace itself", request.node);
            return Err(CellRefusal::new(CellRefusalCode::BadRequest, text));
        }
        match self.cell_member(request.node) {
            Some(member) => {
                same_incarnation(&member, &request)?;
                let answer = answer(&member);
                if member.voter || !self.may_vote(&member) {
                    return Ok(answer);
                }
            }
            None => self.room_for(&request)?,
        }
        let primary = Arc::clone(self);
        to_the_end(async move { primary.bring_closer(&request, term).await }).await
    }

    async fn bring_closer(
        self: Arc<Self>,
        request: &JoinRequest,
        term: Term,
    ) -> Result<JoinAnswer, CellRefusal> {
        let _turn = self.turn().await?;
        let Some(member) = self.cell_member(request.node) else {
            fail::fail_point!("primary::before_join");
            self.record_join(request, term).await?;
            let member = Member {
                address: request.url.trim_end_matches('/').to_owned(),
                incarnation: request.incarnation,
            };
            tracing::info!(node = %request.node, url = request.url, "a node joins the cell");
            fail::fail_point!("primary::before_learner");
            let added = self
                .consensus
                .add_learner(request.node, member, CHANGE_WAIT);
            added.await.map_err(|error| refusal(&error))?;
            return Ok(JoinAnswer {
                state: JoinState::Learner,
                behind: None,
            });
        };
        same_incarnation(&member, request)?;
        if member.voter || !self.may_vote(&member) {
            return Ok(answer(&member));
        }
        self.room_for(request)?;
        let replaced = request.replace.and_then(|node| self.cell_member(node));
        if let Some(replaced) = &replaced {
            self.stays_alive(Some(request.node), replaced.node)?;
            self.make_way(replaced.node).await?;
            self.record_leave(replaced.node, term).await?;
        }
        let replaced = replaced.map(|member| member.node);
        tracing::info!(node = %request.node, ?replaced, "a node gets its vote");
        fail::fail_point!("primary::before_voter");
        self.change(Some(request.node), replaced).await?;
        fail::fail_point!("primary::after_voter");
        Ok(JoinAnswer {
            state: JoinState::Voter,
            behind: member.behind,
        })
    }

    /// Has a node leave the cell. Asked again, it finds that done.
    pub(super) async fn remove_member(
        self: &Arc<Self>,
        request: RemoveRequest,
    ) -> Result<RemoveAnswer, CellRefusal> {
        let term = self.leading_term()?;
        let primary = Arc::clone(self);
        to_the_end(async move { primary.let_go(&request, term).await }).await
    }

    async fn let_go(
        self: Arc<Self>,
        request: &RemoveRequest,
        term: Term,
    ) -> Result<RemoveAnswer, CellRefusal> {
        let _turn = self.turn().await?;
        let node = request.node;
        let Some(member) = self.cell_member(node) else {
            let catalogue = self.catalogue();
            let known = catalogue.as_ref().and_then(|known| known.member(node));
            if known.is_none_or(|entry| entry.left_at.is_none()) {
                let text = format!("node {node} is no member of this cell");
                return Err(CellRefusal::new(CellRefusalCode::NoMember, text));
            }
            return Ok(self.members_left());
        };
        if member.voter {
            if self.voters().len() == 1 {
                let text = format!("node {node} is the only voter of this cell");
                return Err(CellRefusal::new(CellRefusalCode::LastVoter, text));
            }
            if !request.force {
                self.stays_alive(None, node)?;
            }
            self.make_way(node).await?;
        }
        fail::fail_point!("primary::before_leave");
        self.record_leave(node, term).await?;
        tracing::info!(%node, "a node leaves the cell");
        fail::fail_point!("primary::before_removal");
        self.change(None, Some(node)).await?;
        fail::fail_point!("primary::after_removal");
        Ok(self.members_left())
    }

    /// Has another voter lead.
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        request: TransferRequest,
    ) -> Result<TransferAnswer, CellRefusal> {
        self.leading_term()?;
        if let Some(to) = request.to {
            match self.cell_member(to) {
                Some(member) if member.voter => {}
                _ => {
                    let text = format!("node {to} is no voter of this cell");
                    return Err(CellRefusal::new(CellRefusalCode::NoMember, text));
                }
            }
        }
        let primary = Arc::clone(self);
        to_the_end(async move {
            let _turn = primary.turn().await?;
            let leader = primary.transfer_to(request.to).await?;
            Ok(TransferAnswer { leader })
        })
        .await
    }

    async fn transfer_to(&self, to: Option<NodeId>) -> Result<NodeId, CellRefusal> {
        let transferred = self.consensus.transfer(to, TRANSFER_WAIT).await;
        let leader = transferred.map_err(|error| refusal(&error))?;
        Ok(leader.node)
    }

    /// The leader cannot go and lead: it hands over, and whoever asked asks its successor.
    async fn make_way(&self, leaving: NodeId) -> Result<(), CellRefusal> {
        if leaving != self.config.node {
            return Ok(());
        }
        let leader = self.transfer_to(None).await?;
        let text = format!("node {leaving} has handed over to node {leader}: ask again");
        Err(CellRefusal::new(CellRefusalCode::NotLeader, text))
    }

    async fn change(&self, add: Option<NodeId>, remove: Option<NodeId>) -> Result<(), CellRefusal> {
        let (add, remove) = (BTreeSet::from_iter(add), BTreeSet::from_iter(remove));
        let changed = self.consensus.change_voters(add, remove, CHANGE_WAIT).await;
        changed.map_err(|error| refusal(&error))
    }

    async fn turn(&self) -> Result<MutexGuard<'_, ()>, CellRefusal> {
        let turn = timeout(TURN_WAIT, self.members.change.lock()).await;
        turn.map_err(|_| {
            let text = format!("another change of the members took longer than {TURN_WAIT:?}");
            CellRefusal::new(CellRefusalCode::Changing, text)
        })
    }

    fn leading_term(&self) -> Result<Term, CellRefusal> {
        let serving = *self.serving.borrow();
        serving.ok_or_else(|| {
            let text = format!("node {} does not lead its cell", self.config.node);
            CellRefusal::new(CellRefusalCode::NotLeader, text)
        })
    }

    fn voters(&self) -> Vec<CellMember> {
        let mut members = self.cell_members();
        members.retain(|member| member.voter);
        members
    }

    fn members_left(&self) -> RemoveAnswer {
        RemoveAnswer {
            members: self.cell_members(),
        }
    }

    /// Refuses a vote too many.
    fn room_for(&self, request: &JoinRequest) -> Result<(), CellRefusal> {
        let mut stay = self.voters();
        stay.retain(|voter| Some(voter.node) != request.replace);
        if stay.len() < VOTERS_MAX {
            return Ok(());
        }
        let text = format!(
            "the cell has {} voters, at most {VOTERS_MAX}: replace one of them",
            stay.len()
        );
        Err(CellRefusal::new(CellRefusalCode::Full, text))
    }

    /// Whether a learner lacks little enough, and is there.
    fn may_vote(&self, learner: &CellMember) -> bool {
        self.is_alive(learner) && learner.behind.is_some_and(|behind| behind <= NEARLY_ALL)
    }

    fn is_alive(&self, member: &CellMember) -> bool {
        member.node == self.config.node
            || member
                .silent_ms
                .is_some_and(|silent| Duration::from_millis(silent) < SILENT_AFTER)
    }

    /// Refuses to let go of a voter if those who stay, and the one that comes, have no majority alive.
    fn stays_alive(&self, comes: Option<NodeId>, goes: NodeId) -> Result<(), CellRefusal> {
        let members = self.cell_members().into_iter();
        let after: Vec<_> = members
            .filter(|member| member.node != goes && (member.voter || Some(member.node) == comes))
            .collect();
        let alive = after.iter().filter(|member| self.is_alive(member)).count();
        if alive * 2 > after.len() {
            return Ok(());
        }
        let silent = after.iter().filter(|member| !self.is_alive(member));
        let silent: Vec<_> = silent.map(|member| member.node.to_string()).collect();
        let text = format!(
            "without node {goes} only {alive} of {} voters are alive: {} does not answer",
            after.len(),
            silent.join(" "),
        );
        Err(CellRefusal::new(CellRefusalCode::NoQuorum, text))
    }
}

fn same_incarnation(member: &CellMember, request: &JoinRequest) -> Result<(), CellRefusal> {
    if member.incarnation == request.incarnation {
        return Ok(());
    }
    let text = format!(
        "id {} is incarnation {} in this cell, this node is {}: take a new id",
        member.node, member.incarnation, request.incarnation
    );
    Err(CellRefusal::new(CellRefusalCode::IdUsed, text))
}

fn answer(member: &CellMember) -> JoinAnswer {
    JoinAnswer {
        state: if member.voter {
            JoinState::Voter
        } else {
            JoinState::Learner
        },
        behind: member.behind,
    }
}

/// Runs it in a task of its own, so that a caller who leaves does not break it off.
async fn to_the_end<A: Send + 'static>(
    change: impl Future<Output = Result<A, CellRefusal>> + Send + 'static,
) -> Result<A, CellRefusal> {
    let ended = tokio::spawn(change).await;
    ended.unwrap_or_else(|panicked| {
        tracing::error!(%panicked, "a change of the members broke off");
        Err(CellRefusal::new(
            CellRefusalCode::Internal,
            "the change broke off",
        ))
    })
}

fn refusal(error: &ChangeError) -> CellRefusal {
    let code = match error {
        ChangeError::NotLeader { .. } => CellRefusalCode::NotLeader,
        ChangeError::UnderWay => CellRefusalCode::Changing,
        ChangeError::UnknownNode { .. } => CellRefusalCode::NoMember,
        ChangeError::OtherMember { .. } => CellRefusalCode::IdUsed,
        ChangeError::NobodyElse => CellRefusalCode::LastVoter,
        ChangeError::NoQuorum { .. } | ChangeError::Unknown | ChangeError::Stopped => {
            CellRefusalCode::TimedOut
        }
    };
    CellRefusal::new(code, error.to_string())
}
