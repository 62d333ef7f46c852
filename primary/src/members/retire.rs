//! A graceful stop: leadership goes to another voter before the process does.
//!
//! 1. New requests are let in under this leadership no more. They wait, as in any election, until another
//!    leads, and are then handed on to it. Replicas are sent away at once.
//! 2. What was let in gets its answer.
//! 3. The voter that has most of the log is told to stand at once; no election timeout passes.
//!
//! All of it is bounded. If nobody takes over in time, the process stops all the same and the others elect.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::cell::Primary;

/// Time for what was let in to be answered.
const IN_FLIGHT_WAIT: Duration = Duration::from_secs(2);
/// Time for another voter to take over.
const TRANSFER_WAIT: Duration = Duration::from_secs(2);
/// Time between two looks at what is in flight.
const LOOK_EVERY: Duration = Duration::from_millis(2);

impl Primary {
    /// Hands leadership over if this node has it and others vote. To be called while requests are still
    /// served: those that come meanwhile are handed on. Not to be taken back.
    pub async fn retire(&self) {
        if self.members.retiring.swap(true, Ordering::AcqRel) {
            return;
        }
        let leads = self.consensus.leadership().borrow().leading;
        let voters = self.cell_members();
        let others = voters
            .iter()
            .filter(|member| member.voter && member.node != self.config.node);
        if !leads || others.count() == 0 {
            return;
        }
        let begun = Instant::now();
        self.serving.send_replace(None);
        if timeout(IN_FLIGHT_WAIT, self.finished()).await.is_err() {
            tracing::warn!("writes are in flight still: their clients may learn of no outcome");
        }
        match self.consensus.transfer(None, TRANSFER_WAIT).await {
            Ok(leader) => {
                let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(leader = %leader.node, took_ms, "leadership handed over");
            }
            Err(error) => tracing::warn!(%error, "leadership was not handed over"),
        }
    }

    /// Elected in spite of it, this node has somebody else lead.
    pub(crate) async fn decline(&self) {
        if let Err(error) = self.consensus.transfer(None, TRANSFER_WAIT).await {
            tracing::warn!(%error, "leadership was not handed over");
        }
    }

    /// Whether this node must not begin to lead.
    pub(crate) fn is_retiring(&self) -> bool {
        self.members.retiring.load(Ordering::Acquire)
    }

    /// Resolves when every write that was let in has its answer.
    async fn finished(&self) {
        loop {
            // What waits for a writer is proposed by then, or refused.
            let lines = self.databases.all();
            join_all(lines.iter().map(|line| line.drained())).await;
            if self.consensus.metrics().in_flight == 0 {
                // What was committed meanwhile is on its way to its writer, and its answer behind that.
                join_all(lines.iter().map(|line| line.drained())).await;
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}
