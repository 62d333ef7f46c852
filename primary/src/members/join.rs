//! How this node becomes a voter of a cell that goes on.
//!
//! It asks the leader every half second, with the same request each time, until it votes; whoever does not
//! lead says who does. The leader takes it in as a learner first, and gives it its vote once it has nearly
//! all of the log. A node that restarts meanwhile goes on asking; one that votes already does not ask.

use std::collections::VecDeque;
use std::time::Duration;

use tidemark_protocol::cell::{JoinAnswer, JoinRequest, JoinState};
use tokio::time::{MissedTickBehavior, interval};

use super::MembersError;
use super::peers::PeerError;
use crate::cell::Primary;
use crate::config::Join;

/// Time between two questions.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Questions after which it is told again what is waited for.
const ASKS_SILENT: u32 = 60;

impl Primary {
    /// Returns once this node votes.
    pub(super) async fn join(&self, join: &Join) -> Result<(), MembersError> {
        if self.votes() {
            return Ok(());
        }
        let request = JoinRequest {
            node: self.config.node,
            incarnation: self.config.incarnation,
            url: self.config.advertise.clone(),
            replace: join.replace,
        };
        let mut ways = Ways::new(&join.url);
        let mut turns = interval(ASK_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<JoinAnswer> = None;
        for ask in 0_u32.. {
            turns.tick().await;
            let url = ways.next();
            match self.members.peers.join(&url, &request).await {
                Ok(answer) if answer.state == JoinState::Voter => {
                    tracing::info!(cell = url, "this node votes");
                    return Ok(());
                }
                Ok(answer) => {
                    if told != Some(answer) && (told.is_none() || ask.is_multiple_of(4)) {
                        tracing::info!(cell = url, behind = answer.behind, "joining the cell");
                        told = Some(answer);
                    }
                    ways.good(url);
                }
                Err(PeerError::Refused { refusal, .. }) if !refusal.code.retryable() => {
                    return Err(MembersError::Refused {
                        node: self.config.node,
                        refusal,
                    });
                }
                Err(error) => {
                    debug_assert!(error.passes());
                    if ask.is_multiple_of(ASKS_SILENT) {
                        tracing::info!(%error, "the cell does not take this node in yet");
                    }
                    let leader = match error {
                        PeerError::Refused { leader, .. } => leader,
                        PeerError::Silent { .. } => None,
                    };
                    match leader {
                        Some(leader) => ways.good(leader),
                        None => ways.more(self.others().into_iter().map(|(_, url)| url)),
                    }
                }
            }
        }
        unreachable!("it asks for ever")
    }

    /// Whether this node votes, as far as its own log knows.
    fn votes(&self) -> bool {
        let this = self.config.node;
        let members = self.consensus.members();
        let mut voters = members.members.iter().filter(|member| member.voter);
        voters.any(|member| member.node == this)
    }
}

/// Where to ask next: where it went well, else everybody in turn.
struct Ways {
    given: String,
    good: Option<String>,
    others: VecDeque<String>,
}

impl Ways {
    fn new(given: &str) -> Self {
        Self {
            given: given.to_owned(),
            good: None,
            others: VecDeque::new(),
        }
    }

    /// Used up by this: whoever answers well is named again.
    fn next(&mut self) -> String {
        self.good
            .take()
            .or_else(|| self.others.pop_front())
            .unwrap_or_else(|| self.given.clone())
    }

    fn good(&mut self, url: String) {
        self.good = Some(url);
    }

    /// Members that this node has heard of. The one that was given comes up between rounds of them.
    fn more(&mut self, urls: impl Iterator<Item = String>) {
        if self.others.is_empty() {
            self.others.extend(urls);
            self.others.push_back(self.given.clone());
        }
    }
}
