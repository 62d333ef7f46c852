//! Fetching anew what is damaged here, in step with the log.
//!
//! On the state machine's task, between two batches of entries: so what is fetched takes the place of a
//! copy to which nothing is added meanwhile, and nothing that is committed passes it by. What is committed
//! during the fetch is applied afterwards; appends, heartbeats and votes go on.

use openraft::errors::Fatal;
use tidemark_protocol::DatabaseId;

use super::cell::Cell;
use super::{Consensus, MachineError};

impl Consensus {
    /// Lets the machine fetch a damaged database from the node at the base URL `source`. An error changes
    /// nothing; another try may succeed.
    pub(crate) async fn repair(
        &self,
        database: DatabaseId,
        source: String,
    ) -> Result<(), MachineError> {
        let repaired = self.inner.raft.with_state_machine(move |machine| {
            Box::pin(async move { machine.repair(database, &source).await })
        });
        repaired.await.unwrap_or_else(|stopped: Fatal<Cell>| {
            Err(MachineError::new("repair a database", stopped))
        })
    }
}
