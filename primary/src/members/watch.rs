//! How a node finds out that its cell goes on without it.
//!
//! A node that was removed is told nothing more, and without a quorum of its own it would stand for election
//! for ever. So each node that does not lead asks now and then whether the leader still lists it; at once
//! when its own log says that it was removed. Only a leader's word counts: a log that is being caught up
//! with goes through memberships of long ago.

use std::time::Duration;

use tidemark_protocol::NodeId;
use tidemark_protocol::cell::CellIntroduction;
use tokio::time::{MissedTickBehavior, interval};

use super::MembersError;
use crate::cell::Primary;

/// Time between two looks at what this node knows itself.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks between two questions, as long as nothing is suspicious: 10 s.
const LOOKS_PER_QUESTION: u32 = 5;

impl Primary {
    /// Goes on until this node is no member any more.
    pub(super) async fn watch_for_removal(&self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0_u32.. {
            looks.tick().await;
            if self.serving.borrow().is_some() {
                continue;
            }
            let members = self.consensus.members().members;
            let listed = members.iter().any(|member| member.node == self.config.node);
            if listed && !look.is_multiple_of(LOOKS_PER_QUESTION) {
                continue;
            }
            if let Err(error) = self.ask_whether_listed().await {
                return self.members.give_up(error);
            }
        }
    }

    async fn ask_whether_listed(&self) -> Result<(), MembersError> {
        for (_, url) in self.others() {
            let Ok(answer) = self.members.peers.introduction(&url).await else {
                continue;
            };
            if answer.leading && answer.term >= self.consensus.leadership().borrow().term {
                return self.listed_by(&answer);
            }
        }
        Ok(())
    }

    fn listed_by(&self, leader: &CellIntroduction) -> Result<(), MembersError> {
        let (node, ours) = (self.config.node, self.config.incarnation);
        let known = leader.members.iter().find(|member| member.node == node);
        match known {
            Some(member) if member.incarnation == ours => Ok(()),
            Some(member) => Err(MembersError::OtherDisk {
                node,
                known: member.incarnation,
                ours,
            }),
            None => Err(MembersError::Removed { node }),
        }
    }

    /// The other members that this node knows of and where it reaches them, the leader first.
    pub(super) fn others(&self) -> Vec<(NodeId, String)> {
        let leader = self.consensus.leadership().borrow().leader.clone();
        let leader = leader.map(|leader| leader.node);
        let members = self.consensus.members().members;
        let others = members.into_iter().filter(|m| m.node != self.config.node);
        let mut others: Vec<_> = others
            .map(|member| {
                let way = self.members.peers.way(member.node, &member.address);
                (member.node, way.to_owned())
            })
            .collect();
        others.sort_by_key(|(node, _)| Some(*node) != leader);
        others
    }
}
