//! Who is in the cell, and how that changes: one change at a time, each through the log.
//!
//! A node first joins as a learner, which gets the log and has no vote. Voters change by joint consensus: while
//! the change is under way a majority of the old voters and a majority of the new ones must agree, so that at
//! no moment two groups can decide without each other. A leader that is lost half way leaves the cell between
//! the two; whoever leads next finishes what was begun (`finish_changes`).
//!
//! A leadership is handed over in three steps: wait until the successor has nearly everything, let in no
//! more proposals until it has all and all are committed, then tell it to stand. No proposal is in doubt by
//! that, and the cell has no leader for one round of votes. From the moment a successor is told, the old leader
//! neither proposes nor answers reads under its lease, for the rest of its term, whether it works out or not;
//! if it does not, the others miss its signs of life and elect somebody, it included.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, RaftError};
use openraft::{ChangeMembers, Instant as _, RaftMetrics, ServerState};
use tidemark_protocol::{Incarnation, NodeId, Term};
use tokio::time::{sleep, timeout};

use super::cell::{Cell, LogId, Membership};
use super::handle::Inner;
use super::{Consensus, Leader, LogIndex, Member};

/// Entries a successor may lack when proposals begin to be held back for it.
const SUCCESSOR_LAG_MAX: u64 = 512;
/// Longest that proposals are held back.
const HOLD_MAX: Duration = Duration::from_secs(2);
/// Pause before a change is tried again that came when the leader was not sure of itself.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// The nodes of the cell, as this node's log has them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Members {
    /// A change is under way: committed by nobody yet, or begun and not ended.
    pub(crate) changing: bool,
    /// In the order of their ids.
    pub(crate) members: Vec<MemberStatus>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MemberStatus {
    /// The node.
    pub(crate) node: NodeId,
    /// Base URL under which the others reach it.
    pub(crate) address: String,
    /// The life of its disk that was taken in.
    pub(crate) incarnation: Incarnation,
    /// It votes, before or after the change that is under way. Otherwise it is a learner.
    pub(crate) voter: bool,
    /// Last entry it is known to have. Known while this node leads.
    pub(crate) matched: Option<LogIndex>,
    /// Age of its last sign of life. Known of others while this node leads, once there was one.
    pub(crate) silent: Option<Duration>,
}

/// Why the cell did not change, or is not known to have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum MembersError {
    /// Nothing was done: this node does not lead.
    #[error("not the leader; the leader is {leader:?}")]
    NotLeader {
        /// Who to ask.
        leader: Option<Leader>,
    },
    /// Nothing was done: another change has to end first.
    #[error("another change of the cell is under way")]
    UnderWay,
    /// Nothing was done: no such node is in the cell, or none that votes where a voter is needed.
    #[error("node {node} is not in the cell, or has no vote where one is needed")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// Nothing was done: the id is another node's, or this one's on a lost disk, or elsewhere.
    #[error("node {node} is known at '{}' as incarnation {}", known.address, known.incarnation)]
    OtherMember {
        /// The node.
        node: NodeId,
        /// What the cell knows by that id.
        known: Member,
    },
    /// Nothing was done: nobody would be left to vote, or nobody else could lead.
    #[error("no other voter")]
    NobodyElse,
    /// Not in time. A change may still happen.
    #[error("no quorum agreed within {waited:?}")]
    NoQuorum {
        /// How long was waited.
        waited: Duration,
    },
    /// The leadership was lost meanwhile. The change may be done, half done and finished by the next leader,
    /// or undone.
    #[error("the leadership was lost meanwhile; the outcome is not known")]
    Unknown,
    /// Consensus has stopped on this node.
    #[error("consensus has stopped")]
    Stopped,
}

/// The term in which proposals are held back; zero for none.
#[derive(Debug, Default)]
pub(super) struct Hold(AtomicU64);

/// Lets proposals in again when it is dropped.
struct Held<'a>(&'a Hold);

impl Hold {
    pub(super) fn is_on(&self, term: Term) -> bool {
        term.0 != 0 && self.0.load(Ordering::Acquire) == term.0
    }

    fn begin(&self, term: Term) -> Held<'_> {
        self.0.store(term.0, Ordering::Release);
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Release);
    }
}

impl Consensus {
    /// Whether others vote too, one of whom could be elected without this node.
    pub(crate) fn has_other_voters(&self) -> bool {
        let server = self.inner.raft.server_metrics();
        let server = server.borrow_watched();
        // Not by `voter_ids`, which collects them first: every read asks.
        let configs = server.membership_config.membership().get_joint_config();
        configs.iter().flatten().any(|id| *id != server.id)
    }

    /// The nodes of the cell. A node that does not lead may be behind.
    pub(crate) fn members(&self) -> Members {
        let metrics = self.inner.metrics();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let matched = |id: &u64| *metrics.replication.as_ref()?.get(id)?;
        let heard = |id: &u64| *metrics.heartbeat.as_ref()?.get(id)?;
        let status = |(id, member): (&u64, &Member)| {
            let Member {
                address,
                incarnation,
            } = member.clone();
            MemberStatus {
                node: NodeId(*id),
                address,
                incarnation,
                voter: voters.contains(id),
                matched: matched(id).map(|log_id: LogId| LogIndex(log_id.index)),
                silent: heard(id).map(|heard| heard.into_inner().elapsed()),
            }
        };
        Members {
            changing: is_changing(&metrics),
            members: membership.nodes().map(status).collect(),
        }
    }

    /// Takes a node in as a learner. Nothing happens if it is in the cell as this member already.
    ///
    /// That its id was never another's is for the caller to know: the membership forgets who has left.
    pub(crate) async fn add_learner(
        &self,
        node: NodeId,
        member: Member,
        within: Duration,
    ) -> Result<(), MembersError> {
        let check = |membership: &Membership| match membership.get_node(&node.0) {
            Some(known) if *known == member => Ok(None),
            Some(known) => Err(MembersError::OtherMember {
                node,
                known: known.clone(),
            }),
            None => {
                let add = BTreeMap::from([(node.0, member.clone())]);
                Ok(Some(ChangeMembers::AddNodes(add)))
            }
        };
        self.change(check, within).await
    }

    /// Gives the learners `add` a vote and takes the nodes `remove` out of the cell, in one step. Nothing
    /// happens if that is so already.
    ///
    /// A leader that is to go hands over first and names its successor, which can be asked to remove it: as a
    /// removed leader it would never learn what became of its last proposals.
    pub(crate) async fn change_voters(
        &self,
        add: BTreeSet<NodeId>,
        remove: BTreeSet<NodeId>,
        within: Duration,
    ) -> Result<(), MembersError> {
        let leads = self.inner.metrics().state == ServerState::Leader;
        if leads && remove.contains(&self.inner.node) {
            let successor = self.hand_over(None, &remove, within).await?;
            let leader = Some(successor);
            return Err(MembersError::NotLeader { leader });
        }
        self.change(|now| new_voters(now, &add, &remove), within)
            .await
    }

    /// Hands the leadership over to `to`, or to the voter that has most, and returns when this node knows of
    /// another leader: it, if nothing went wrong, otherwise whoever was elected instead.
    ///
    /// New proposals are refused as [`super::Refusal::Lease`] meanwhile, those in flight are waited for.
    pub(crate) async fn transfer(
        &self,
        to: Option<NodeId>,
        within: Duration,
    ) -> Result<Leader, MembersError> {
        self.hand_over(to, &BTreeSet::new(), within).await
    }

    async fn hand_over(
        &self,
        to: Option<NodeId>,
        not_to: &BTreeSet<NodeId>,
        within: Duration,
    ) -> Result<Leader, MembersError> {
        let give_up = MembersError::NoQuorum { waited: within };
        let handed_over = timeout(within, async {
            let _turn = self.inner.changing.lock().await;
            self.hand_over_now(to, not_to, within).await
        });
        handed_over.await.unwrap_or(Err(give_up))
    }

    /// [`Consensus::hand_over`] when nothing else changes.
    async fn hand_over_now(
        &self,
        to: Option<NodeId>,
        not_to: &BTreeSet<NodeId>,
        within: Duration,
    ) -> Result<Leader, MembersError> {
        let metrics = self.inner.metrics();
        if metrics.state != ServerState::Leader {
            return Err(self.not_leader());
        }
        let term = Term(metrics.current_term);
        let to = self.successor(&metrics, to, not_to)?;
        if self.bring_up_to_date(term, to).await?
            && let Some(_held) = self
                .hold_until_equal(term, to, within.min(HOLD_MAX))
                .await?
        {
            tracing::info!(%term, to = %NodeId(to), "handing the leadership over");
            let told = self.inner.raft.trigger().transfer_leader(to).await;
            told.map_err(|_stopped| MembersError::Stopped)?;
            return self.another_leads(term).await;
        }
        self.another_leads(term).await
    }

    /// Makes the change that `decide` finds necessary, given the membership in effect.
    async fn change(
        &self,
        decide: impl Fn(&Membership) -> Result<Option<ChangeMembers<u64, Member>>, MembersError>,
        within: Duration,
    ) -> Result<(), MembersError> {
        let Ok(_turn) = self.inner.changing.try_lock() else {
            return Err(MembersError::UnderWay);
        };
        let change = async {
            loop {
                let (at, membership, settled) = self.effective().await?;
                if self.inner.metrics().state != ServerState::Leader {
                    return Err(self.not_leader());
                }
                if !settled {
                    return Err(MembersError::UnderWay);
                }
                let Some(change) = decide(&membership)? else {
                    return Ok(());
                };
                tracing::info!(?change, "the cell changes");
                let changed = self.inner.raft.change_membership(change, false).await;
                let Err(error) = changed else { return Ok(()) };
                if self.effective().await?.0 != at {
                    return Err(MembersError::Unknown);
                }
                if let Some(error) = self.refusal(error) {
                    return Err(error);
                }
                sleep(TRY_AGAIN).await;
            }
        };
        let late = MembersError::NoQuorum { waited: within };
        timeout(within, change).await.unwrap_or(Err(late))
    }

    /// What a refused change means. `None`: it may be tried again soon.
    fn refusal(&self, error: RaftError<Cell, ClientWriteError<Cell>>) -> Option<MembersError> {
        let error = match error {
            RaftError::APIError(error) => error,
            RaftError::Fatal(_) => return Some(MembersError::Stopped),
        };
        Some(match error {
            ClientWriteError::ForwardToLeader(forward) => match forward.reason {
                ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => self.not_leader(),
                // As it is right after an election.
                ForwardReason::LeaseExpired => return None,
            },
            ClientWriteError::LogEntryDiscarded(_) => MembersError::Unknown,
            ClientWriteError::ChangeMembershipError(error) => match error {
                ChangeMembershipError::InProgress(_) => MembersError::UnderWay,
                ChangeMembershipError::EmptyMembership(_) => MembersError::NobodyElse,
                ChangeMembershipError::LearnerNotFound(error) => MembersError::UnknownNode {
                    node: NodeId(error.node_id),
                },
                // Answers to appends of whole memberships, which are not made here.
                ChangeMembershipError::UnsupportedMembershipTransition(_)
                | ChangeMembershipError::UncommittedLeaderLog(_)
                | ChangeMembershipError::NodeMetadataChanged(_) => MembersError::UnderWay,
            },
            ClientWriteError::PreconditionFailed(_) => MembersError::UnderWay,
        })
    }

    /// The entry that set the membership in effect, the membership, and whether that is all there is to it.
    async fn effective(&self) -> Result<(Option<LogId>, Membership, bool), MembersError> {
        let read = |state: &openraft::RaftState<Cell>| {
            let effective = state.membership_state.effective();
            let membership = effective.membership().clone();
            let settled = membership.get_joint_config().len() == 1
                && effective.log_id() == state.membership_state.committed().log_id();
            (*effective.log_id(), membership, settled)
        };
        let read = self.inner.raft.with_raft_state(read).await;
        read.map_err(|_stopped| MembersError::Stopped)
    }

    fn not_leader(&self) -> MembersError {
        let leader = self.inner.leadership.borrow().leader.clone();
        // A node that has just lost it must not send anybody to itself.
        let leader = leader.filter(|leader| leader.node != self.inner.node);
        MembersError::NotLeader { leader }
    }

    /// Who is to lead: `to`, or of the voters heard of lately the one that has most.
    fn successor(
        &self,
        metrics: &RaftMetrics<Cell>,
        to: Option<NodeId>,
        not_to: &BTreeSet<NodeId>,
    ) -> Result<u64, MembersError> {
        let configs = metrics.membership_config.membership().get_joint_config();
        let voters = configs.last().cloned().unwrap_or_default();
        if let Some(node) = to {
            return match voters.contains(&node.0) {
                true if node == self.inner.node => Err(MembersError::NobodyElse),
                true => Ok(node.0),
                false => Err(MembersError::UnknownNode { node }),
            };
        }
        let matched = |id: &u64| *metrics.replication.as_ref()?.get(id)?;
        let heard = |id: &u64| {
            let heard = (*metrics.heartbeat.as_ref()?.get(id)?)?;
            Some(heard.into_inner().elapsed() <= self.inner.lease)
        };
        let others = voters
            .into_iter()
            .filter(|id| *id != self.inner.node.0 && !not_to.contains(&NodeId(*id)));
        others
            .max_by_key(|id| (heard(id), matched(id)))
            .ok_or(MembersError::NobodyElse)
    }

    /// Waits until `to` lacks little. False: somebody else has begun to lead meanwhile.
    async fn bring_up_to_date(&self, term: Term, to: u64) -> Result<bool, MembersError> {
        self.while_leading(term, |metrics| {
            let lag = metrics.last_log_index.unwrap_or(0);
            lag.saturating_sub(matched_by(metrics, to)) <= SUCCESSOR_LAG_MAX
        })
        .await
    }

    /// Holds proposals back until `to` has every entry and all are committed and applied here. `None`: somebody
    /// else has begun to lead meanwhile.
    async fn hold_until_equal(
        &self,
        term: Term,
        to: u64,
        within: Duration,
    ) -> Result<Option<Held<'_>>, MembersError> {
        let held = self.inner.hold.begin(term);
        let equal = self.while_leading(term, |metrics| {
            let last = metrics.last_log_index.unwrap_or(0);
            let applied = metrics.last_applied.map_or(0, |log_id| log_id.index);
            matched_by(metrics, to) == last && applied == last
        });
        let late = MembersError::NoQuorum { waited: within };
        let equal = timeout(within, equal).await.unwrap_or(Err(late))?;
        Ok(equal.then_some(held))
    }

    /// Waits for `reached`. False: this node does not lead `term` any more.
    async fn while_leading(
        &self,
        term: Term,
        reached: impl Fn(&RaftMetrics<Cell>) -> bool,
    ) -> Result<bool, MembersError> {
        let leads = |metrics: &RaftMetrics<Cell>| {
            metrics.state == ServerState::Leader && metrics.current_term == term.0
        };
        let waited = self.inner.wait_for(|m| !leads(m) || reached(m)).await;
        waited.map_err(|_stopped| MembersError::Stopped)?;
        Ok(leads(&self.inner.metrics()))
    }

    /// Waits until another node leads a later term.
    async fn another_leads(&self, term: Term) -> Result<Leader, MembersError> {
        let mut leadership = self.leadership();
        let node = self.inner.node;
        let led = leadership.wait_for(|now| {
            let another = now.leader.as_ref().is_some_and(|l| l.node != node);
            now.term > term && another
        });
        let led = led.await.map_err(|_closed| MembersError::Stopped)?;
        Ok(led.leader.clone().expect("waited for it"))
    }
}

fn matched_by(metrics: &RaftMetrics<Cell>, id: u64) -> u64 {
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id));
    matched
        .copied()
        .flatten()
        .map_or(0, |log_id: LogId| log_id.index)
}

fn is_changing(metrics: &RaftMetrics<Cell>) -> bool {
    let effective = &metrics.membership_config;
    effective.membership().get_joint_config().len() > 1
        || *effective != metrics.committed_membership_config
}

/// What has to change for `add` to vote and `remove` to be gone.
fn new_voters(
    now: &Membership,
    add: &BTreeSet<NodeId>,
    remove: &BTreeSet<NodeId>,
) -> Result<Option<ChangeMembers<u64, Member>>, MembersError> {
    let voters: BTreeSet<u64> = now.voter_ids().collect();
    if let Some(unknown) = add.iter().find(|id| now.get_node(&id.0).is_none()) {
        return Err(MembersError::UnknownNode { node: *unknown });
    }
    let ids = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect::<BTreeSet<_>>();
    let promoted: BTreeSet<_> = ids(add).difference(&voters).copied().collect();
    let (leaving, forgotten): (BTreeSet<_>, BTreeSet<_>) = ids(remove)
        .into_iter()
        .filter(|id| now.get_node(id).is_some())
        .partition(|id| voters.contains(id));
    if voters.union(&promoted).all(|id| leaving.contains(id)) {
        return Err(MembersError::NobodyElse);
    }
    let mut changes = Vec::new();
    if !promoted.is_empty() {
        changes.push(ChangeMembers::AddVoterIds(promoted));
    }
    if !leaving.is_empty() {
        changes.push(ChangeMembers::RemoveVoters(leaving));
    }
    if !forgotten.is_empty() {
        changes.push(ChangeMembers::RemoveNodes(forgotten));
    }
    Ok((!changes.is_empty()).then_some(ChangeMembers::Batch(changes)))
}

/// Ends, whenever this node leads, a change that an earlier leader or a caller without patience left half way.
/// Returns when consensus stops.
pub(super) async fn finish_changes(consensus: Weak<Inner>, mut metrics: MetricsReceiver) {
    loop {
        if half_way(&metrics.borrow_watched()) {
            let Some(inner) = consensus.upgrade() else {
                return;
            };
            Consensus { inner }.finish_change().await;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

type MetricsReceiver = openraft::alias::WatchReceiverOf<Cell, RaftMetrics<Cell>>;

/// Committed as begun, not yet as ended.
fn half_way(metrics: &RaftMetrics<Cell>) -> bool {
    let membership = &metrics.membership_config;
    metrics.state == ServerState::Leader
        && membership.membership().get_joint_config().len() > 1
        && *membership == metrics.committed_membership_config
}

impl Consensus {
    async fn finish_change(&self) {
        let _turn = self.inner.changing.lock().await;
        let metrics = self.inner.metrics();
        if !half_way(&metrics) {
            return;
        }
        let configs = metrics.membership_config.membership().get_joint_config();
        let stays = configs
            .last()
            .is_some_and(|v| v.contains(&self.inner.node.0));
        if !stays {
            // See `change_voters`.
            let nobody = BTreeSet::new();
            let handed_over = self.hand_over_now(None, &nobody, HOLD_MAX);
            match timeout(HOLD_MAX, handed_over).await {
                Ok(Ok(_leader)) => {}
                // Tried again at the next sign of anything happening.
                Ok(Err(error)) => tracing::warn!(%error, "cannot hand over before it leaves"),
                Err(late) => tracing::warn!(%late, "cannot hand over before it leaves"),
            }
            return;
        }
        let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
        match self.inner.raft.change_membership(nobody, false).await {
            Ok(_) => tracing::info!("a change of the cell that was half way is done"),
            Err(error) => tracing::warn!(%error, "a change of the cell is half way"),
        }
    }
}
