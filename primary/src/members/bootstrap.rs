//! How a cell of several voters begins.
//!
//! Every voter is given the same list. The one with the lowest id asks all others until all have answered
//! at once, on empty logs and with that same list; then it initialises, and the membership has the
//! incarnation of each. The others ask too, and wait to be contacted.
//!
//! All are needed once, because nobody else can tell a new voter from one whose disk was lost: a majority
//! of empty logs could be two nodes that voted, and acknowledged, and forgot. Whoever finds the cell begun
//! and its own id in it under another incarnation is such a node, and stops.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tidemark_protocol::cell::{CellIntroduction, CellVoter};
use tidemark_protocol::{Incarnation, NodeId};
use tokio::time::{MissedTickBehavior, interval};

use super::MembersError;
use crate::cell::Primary;
use crate::consensus::Member;

/// Time between two rounds of questions.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Rounds after which it is said again who is waited for.
const ROUNDS_SILENT: u32 = 120;

/// This node, as the others should see it.
struct Here<'a> {
    node: NodeId,
    incarnation: Incarnation,
    voters: &'a [CellVoter],
}

/// What the answers of a round say.
#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    /// Somebody has not answered, or is another's to begin.
    Wait,
    /// The cell has begun with this node: it will be contacted.
    Begun,
    /// This node begins the cell, with these.
    Begin(Vec<(NodeId, Incarnation, String)>),
}

impl Primary {
    /// Returns once the cell has begun with this node.
    pub(super) async fn bootstrap(&self) -> Result<(), MembersError> {
        let voters = self.first_voters();
        let here = Here {
            node: self.config.node,
            incarnation: self.config.incarnation,
            voters: &voters,
        };
        let mut rounds = interval(ASK_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waited_for = Vec::new();
        for round in 0_u32.. {
            rounds.tick().await;
            if self.has_begun().await? {
                return Ok(());
            }
            let answers = self.ask_all(&voters, round).await;
            match judge(&here, &answers)? {
                Verdict::Begun => return Ok(()),
                Verdict::Begin(members) => return self.begin(members).await,
                Verdict::Wait => {}
            }
            let others = voters.iter().map(|voter| voter.node);
            let missing: Vec<_> = others
                .filter(|node| *node != here.node && !answers.contains_key(node))
                .collect();
            if missing != waited_for || round.is_multiple_of(ROUNDS_SILENT) {
                let names = missing.iter().map(ToString::to_string);
                let missing = names.collect::<Vec<_>>().join(" ");
                tracing::info!(%missing, "the cell has yet to begin: all first voters are needed once");
            }
            waited_for = missing;
        }
        unreachable!("it asks for ever")
    }

    /// Whether this node's log says who votes.
    pub(super) async fn has_begun(&self) -> Result<bool, MembersError> {
        self.consensus
            .is_initialized()
            .await
            .map_err(|error| MembersError::Consensus {
                reason: error.to_string(),
            })
    }

    async fn begin(&self, members: Vec<(NodeId, Incarnation, String)>) -> Result<(), MembersError> {
        tracing::info!(voters = members.len(), "the cell begins");
        let members = members.into_iter().map(|(node, incarnation, address)| {
            let member = Member {
                address,
                incarnation,
            };
            (node, member)
        });
        fail::fail_point!("primary::before_begin");
        let begun = self.consensus.initialize(members.collect()).await;
        fail::fail_point!("primary::after_begin");
        begun.map_err(|error| MembersError::Consensus {
            reason: error.to_string(),
        })
    }

    async fn ask_all(
        &self,
        voters: &[CellVoter],
        round: u32,
    ) -> BTreeMap<NodeId, CellIntroduction> {
        let others = voters.iter().filter(|voter| voter.node != self.config.node);
        let asked = others.map(async |voter| {
            let url = self.members.peers.way(voter.node, &voter.url);
            match self.members.peers.introduction(url).await {
                Ok(answer) if answer.node == voter.node => Some((voter.node, answer)),
                Ok(answer) => {
                    if round.is_multiple_of(ROUNDS_SILENT) {
                        let (expected, got) = (voter.node, answer.node);
                        tracing::warn!(url, %expected, %got, "another node answers for a voter");
                    }
                    None
                }
                Err(error) => {
                    if error.stranger() && round.is_multiple_of(ROUNDS_SILENT) {
                        tracing::warn!(%error, "a voter has another cluster secret");
                    }
                    None
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Decides by what all others answered in one round.
fn judge(
    here: &Here<'_>,
    answers: &BTreeMap<NodeId, CellIntroduction>,
) -> Result<Verdict, MembersError> {
    for answer in answers.values().filter(|answer| answer.initialized) {
        let known = answer
            .members
            .iter()
            .find(|member| member.node == here.node);
        match known {
            Some(member) if member.incarnation == here.incarnation => return Ok(Verdict::Begun),
            Some(member) => {
                return Err(MembersError::OtherDisk {
                    node: here.node,
                    known: member.incarnation,
                    ours: here.incarnation,
                });
            }
            // It may just not have heard yet of whom it began with.
            None if answer.members.is_empty() => {}
            None => {
                let url = here.voters.iter().find(|voter| voter.node == answer.node);
                return Err(MembersError::NoMember {
                    node: here.node,
                    url: url.map(|voter| voter.url.clone()).unwrap_or_default(),
                });
            }
        }
    }
    for (peer, answer) in answers {
        if answer.voters != here.voters {
            return Err(MembersError::Lists {
                ours: here.voters.to_vec(),
                theirs: answer.voters.clone(),
                peer: *peer,
            });
        }
    }
    let first = here.voters.first();
    let all_empty = answers.len() + 1 == here.voters.len()
        && answers.values().all(|answer| !answer.initialized);
    if !all_empty || first.is_none_or(|voter| voter.node != here.node) {
        return Ok(Verdict::Wait);
    }
    let members = here.voters.iter().map(|voter| {
        let answer = answers.get(&voter.node);
        let incarnation = answer.map_or(here.incarnation, |answer| answer.incarnation);
        (voter.node, incarnation, voter.url.clone())
    });
    Ok(Verdict::Begin(members.collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tidemark_protocol::Term;
    use tidemark_protocol::cell::CellMember;

    use super::*;

    fn voters(ids: &[u64]) -> Vec<CellVoter> {
        let voter = |id: &u64| CellVoter {
            node: NodeId(*id),
            url: format!("http://voter-{id}"),
        };
        ids.iter().map(voter).collect()
    }

    /// What node `id`, of incarnation `id * 10`, says on an empty log.
    fn empty(id: u64, list: &[u64]) -> CellIntroduction {
        CellIntroduction {
            node: NodeId(id),
            incarnation: Incarnation(u128::from(id) * 10),
            voters: voters(list),
            initialized: false,
            term: Term(0),
            leading: false,
            leader_url: None,
            members: Vec::new(),
        }
    }

    /// The same in a cell of `(id, incarnation)`s.
    fn begun(id: u64, list: &[u64], members: &[(u64, u128)]) -> CellIntroduction {
        let member = |(id, incarnation): &(u64, u128)| CellMember {
            node: NodeId(*id),
            incarnation: Incarnation(*incarnation),
            url: format!("http://voter-{id}"),
            voter: true,
            matched: None,
            behind: None,
            silent_ms: None,
        };
        CellIntroduction {
            initialized: true,
            members: members.iter().map(member).collect(),
            ..empty(id, list)
        }
    }

    /// The verdict of node `id`, of incarnation `id * 10`, told the voters 1, 2 and 3.
    fn check(id: u64, answers: Vec<CellIntroduction>) -> Result<Verdict, MembersError> {
        let list = voters(&[1, 2, 3]);
        let here = Here {
            node: NodeId(id),
            incarnation: Incarnation(u128::from(id) * 10),
            voters: &list,
        };
        let answers = answers.into_iter().map(|answer| (answer.node, answer));
        judge(&here, &answers.collect())
    }

    const ALL: &[u64] = &[1, 2, 3];

    #[test]
    fn lowest_begins_with_the_incarnations_of_all() {
        let verdict = check(1, vec![empty(2, ALL), empty(3, ALL)]).unwrap();
        let member = |id: u64| {
            let url = format!("http://voter-{id}");
            (NodeId(id), Incarnation(u128::from(id) * 10), url)
        };
        assert_eq!(
            verdict,
            Verdict::Begin(vec![member(1), member(2), member(3)])
        );
    }

    #[test]
    fn majority_is_not_enough_and_others_do_not_begin() {
        assert_eq!(check(1, vec![empty(2, ALL)]).unwrap(), Verdict::Wait);
        let both = vec![empty(1, ALL), empty(3, ALL)];
        assert_eq!(check(2, both).unwrap(), Verdict::Wait);
    }

    #[test]
    fn wiped_voter_of_a_begun_cell_is_refused() {
        let cell = [(1, 7), (2, 20), (3, 30)];
        // The lowest too: nobody else could stop it from beginning the cell once more.
        let error = check(1, vec![begun(2, ALL, &cell), empty(3, ALL)]).unwrap_err();
        assert_eq!(
            error,
            MembersError::OtherDisk {
                node: NodeId(1),
                known: Incarnation(7),
                ours: Incarnation(10),
            }
        );
        assert_eq!(
            check(2, vec![begun(3, ALL, &cell)]).unwrap(),
            Verdict::Begun
        );
    }

    #[test]
    fn node_that_a_begun_cell_does_not_know_is_refused() {
        let error = check(1, vec![begun(2, ALL, &[(2, 20), (3, 30)])]).unwrap_err();
        assert!(matches!(error, MembersError::NoMember { .. }), "{error}");
    }

    #[test]
    fn different_lists_are_named() {
        let error = check(1, vec![empty(2, &[1, 2, 4])])
            .unwrap_err()
            .to_string();
        for list in [
            "1=http://voter-1,2=http://voter-2,3=http://voter-3 here",
            "1=http://voter-1,2=http://voter-2,4=http://voter-4 at voter 0000000000000002",
        ] {
            assert!(error.contains(list), "{error}");
        }
    }
}
