//! Who leads, as seen from this node.

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{ServerState, alias};
use tidemark_protocol::{NodeId, Term};
use tokio::sync::watch;

use super::Member;
use super::cell::Cell;

/// A node that leads, or is believed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    /// The node.
    pub(crate) node: NodeId,
    /// Where it is reached. Empty if the membership does not say.
    pub(crate) address: String,
}

impl Leader {
    pub(super) fn new(id: u64, node: Option<&Member>) -> Self {
        Self {
            node: NodeId(id),
            address: node.map_or_else(String::new, |n| n.address.clone()),
        }
    }
}

/// Who leads, as seen from this node.
///
/// It trails: services start and stop by it. What must not be late is the [`super::Fence`] and the term
/// that goes with each proposal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Leadership {
    /// Newest term known.
    pub(crate) term: Term,
    /// This node leads `term`, and the blank entry that opens the term is applied here: the local state is
    /// the newest committed one, and work may begin.
    pub(crate) leading: bool,
    /// The leader of `term`, if known.
    pub(crate) leader: Option<Leader>,
}

/// Keeps `publish` true until the core task ends, then withdraws the leadership.
///
/// `applied_term` is the term of the newest entry applied here.
pub(super) async fn follow(
    mut server: alias::WatchReceiverOf<Cell, RaftServerMetrics<Cell>>,
    mut applied_term: watch::Receiver<Term>,
    publish: watch::Sender<Leadership>,
) {
    loop {
        // Read both after being woken: a change in between wakes again.
        let applied = *applied_term.borrow_and_update();
        let seen = observe(&server.borrow_watched(), applied);
        publish.send_if_modified(|current| {
            let changed = *current != seen;
            if changed {
                tracing::info!(old = ?current, new = ?seen, "leadership changed");
                *current = seen;
            }
            changed
        });
        let core_lives = tokio::select! {
            changed = server.changed() => changed.is_ok(),
            changed = applied_term.changed() => changed.is_ok(),
        };
        if !core_lives {
            publish.send_modify(|current| current.leading = false);
            return;
        }
    }
}

fn observe(server: &RaftServerMetrics<Cell>, applied: Term) -> Leadership {
    let term = Term(server.vote.leader_id().term);
    let leads = server.state == ServerState::Leader && server.vote.is_committed();
    let membership = server.membership_config.membership();
    Leadership {
        term,
        leading: leads && applied == term,
        leader: server
            .current_leader
            .map(|id| Leader::new(id, membership.get_node(&id))),
    }
}
