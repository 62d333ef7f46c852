//! Copies that are damaged on a voter that does not lead: found now and then, and fetched anew.
//!
//! Damaged is a copy that does not arrive where a committed transaction leads, and one whose content, read
//! at the start, is at no known position, not even after the log has been repeated. A voter with such a
//! copy still votes and keeps the log; what it lacks is that one database. It takes the pages that differ
//! from the leader, in step with the log (see [`crate::consensus`]): so what replaces the copy has all
//! that was handed to it.
//!
//! A leader with a damaged copy hands over, if there is somebody: only then can it be repaired.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidemark_protocol::{DatabaseId, Node};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cell::Primary;
use crate::pipeline::Line;

/// How often damage is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Time in which the log may yet bring a copy to a known position.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failed try.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest that handing over may take.
const HAND_OVER_WAIT: Duration = Duration::from_secs(2);

impl Primary {
    /// Looks for damage and repairs it, until the node stops.
    pub(crate) async fn repair_damaged(self: Arc<Self>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since = HashMap::new();
        loop {
            look.tick().await;
            let damaged = self.damaged(&mut since);
            let Some(first) = damaged.first() else {
                continue;
            };
            let tried = if self.consensus.leadership().borrow().leading {
                self.hand_over_with(*first).await
            } else if let Some(source) = self.upstream() {
                self.repair_from(&damaged, source).await
            } else {
                continue;
            };
            if !tried {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Databases that do not mend by themselves. `since`: when each was first found without a position.
    fn damaged(&self, since: &mut HashMap<DatabaseId, Instant>) -> Vec<DatabaseId> {
        let now = Instant::now();
        let lines = self.databases.all();
        let lost = |line: &Arc<Line>| line.database().position().is_none();
        since.retain(|database, _| {
            lines
                .iter()
                .any(|line| line.id() == *database && lost(line))
        });
        let damaged = lines.iter().filter(|line| {
            let patient = lost(line) && {
                let first = *since.entry(line.id()).or_insert(now);
                now.duration_since(first) >= LOG_PATIENCE
            };
            line.is_damaged() || patient
        });
        damaged.map(|line| line.id()).collect()
    }

    async fn repair_from(&self, damaged: &[DatabaseId], source: String) -> bool {
        for database in damaged {
            tracing::warn!(%database, source, "a damaged copy is fetched anew");
            if let Err(error) = self.consensus.repair(*database, source.clone()).await {
                let error = crate::peer_http::chain(&error);
                tracing::error!(%database, error, "a damaged copy is not repaired");
                return false;
            }
            tracing::info!(%database, "a damaged copy is repaired");
        }
        true
    }

    /// False in any case: a moment passes before the next look.
    async fn hand_over_with(&self, damaged: DatabaseId) -> bool {
        if self.consensus.has_other_voters() {
            tracing::warn!(database = %damaged, "this leader's copy is damaged: it hands over");
            if let Err(error) = self.consensus.transfer(None, HAND_OVER_WAIT).await {
                tracing::warn!(%error, "nobody took over");
            }
        }
        false
    }
}
