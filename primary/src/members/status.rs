//! What operators and other nodes see of the cell.

use tidemark_protocol::NodeId;
use tidemark_protocol::cell::{CellIntroduction, CellMember, CellStatus};

use crate::cell::Primary;
use crate::consensus::LogIndex;

impl Primary {
    /// The cell as this node sees it.
    pub(crate) fn cell_status(&self) -> CellStatus {
        let leadership = self.consensus.leadership().borrow().clone();
        let metrics = self.consensus.metrics();
        let index = |at: Option<LogIndex>| at.map(|LogIndex(index)| index);
        CellStatus {
            term: leadership.term,
            leader: leadership.leader.map(|leader| leader.node),
            members: self.cell_members(),
            changing: self.consensus.members().changing,
            committed: index(metrics.committed),
            applied: index(metrics.applied),
            log_bytes: metrics.log_bytes,
        }
    }

    /// What this node tells of itself to others of the cell.
    pub(super) async fn introduction(&self) -> CellIntroduction {
        let leadership = self.consensus.leadership().borrow().clone();
        CellIntroduction {
            node: self.config.node,
            incarnation: self.config.incarnation,
            voters: self.first_voters(),
            // Unknown only when consensus has failed: then nothing may be begun on this answer.
            initialized: self.consensus.is_initialized().await.unwrap_or(true),
            term: leadership.term,
            leading: leadership.leading,
            leader_url: leadership.leader.map(|leader| leader.address),
            members: self.cell_members(),
        }
    }

    /// The members, by id.
    pub(super) fn cell_members(&self) -> Vec<CellMember> {
        let appended = self.consensus.metrics().appended;
        let leads = self.consensus.leadership().borrow().leading;
        let members = self.consensus.members().members.into_iter();
        let mut members: Vec<_> = members
            .map(|member| {
                let matched = member.matched.map(|LogIndex(index)| index);
                let newest = appended.map(|LogIndex(index)| index);
                let silent = member.silent;
                CellMember {
                    node: member.node,
                    incarnation: member.incarnation,
                    url: member.address,
                    voter: member.voter,
                    matched,
                    behind: match (newest, matched) {
                        (Some(newest), Some(matched)) if leads => {
                            Some(newest.saturating_sub(matched))
                        }
                        _ => None,
                    },
                    silent_ms: silent
                        .map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
                }
            })
            .collect();
        members.sort_unstable_by_key(|member| member.node);
        members
    }

    /// One member.
    pub(super) fn cell_member(&self, node: NodeId) -> Option<CellMember> {
        let mut members = self.cell_members().into_iter();
        members.find(|member| member.node == node)
    }
}
