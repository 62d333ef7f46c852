//! Fetching anew what is damaged here, in step with the log.
//!
//! On the state machine's task, between two batches of entries: so what is fetched takes the place of a
//! copy to which nothing is added meanwhile, and nothing that is committed passes it by. What is committed
//! during the fetch is applied afterwards; appends, heartbeats and votes go on.
//!
//! It is given up when this node is elected, which has to apply before it can serve, and when so much waits
//! to be applied that openraft would soon wait for its state machine, deaf to everybody.

use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{RaftMetrics, ServerState, alias};
use tidemark_protocol::DatabaseId;

use super::cell::Cell;
use super::{Consensus, MachineError};

/// Entries that may wait for the end of a repair: about half of what openraft's queue holds if each
/// comes alone.
const WAITING_MAX: u64 = 30_000;

impl Consensus {
    /// Lets the machine fetch a damaged database from the node at the base URL `source`. An error changes
    /// nothing; another try may succeed.
    pub(crate) async fn repair(
        &self,
        database: DatabaseId,
        source: String,
    ) -> Result<(), MachineError> {
        let metrics = self.inner.raft.metrics();
        let repaired = self.inner.raft.with_state_machine(move |machine| {
            Box::pin(async move {
                tokio::select! {
                    repaired = machine.repair(database, &source) => repaired,
                    () = needed(metrics) => {
                        Err(MachineError::new("repair a database", "the log has to be applied first"))
                    }
                }
            })
        });
        repaired.await.unwrap_or_else(|stopped: Fatal<Cell>| {
            Err(MachineError::new("repair a database", stopped))
        })
    }
}

/// Resolves when the state machine may not be kept from applying any longer.
async fn needed(mut metrics: alias::WatchReceiverOf<Cell, RaftMetrics<Cell>>) {
    loop {
        {
            let now = metrics.borrow_watched();
            let index = |log_id: Option<super::cell::LogId>| log_id.map_or(0, |id| id.index);
            let waiting = index(now.local_committed).saturating_sub(index(now.last_applied));
            if now.state == ServerState::Leader || waiting > WAITING_MAX {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            // Consensus has ended, and the repair ends by that.
            return std::future::pending().await;
        }
    }
}
