//! Databases that nobody uses close their files, and open them for the next request or transaction.
//!
//! An open database costs a connection or more, their page caches, file handles and page hashes; one that
//! sleeps its entry in a map. One look each [`LOOK`] for all of them; nothing per database waits or ticks.
//!
//! What makes it safe: a line is let go of only under the write lock of the map, and only while the map has
//! the one reference to it and its writer is at rest, so no request and no committed transaction is on its way to
//! it; everything that was committed is durable in its own files by then. What its writer had executed for a client that is gone,
//! and that is not committed, goes with the overlay, as when leadership is lost: the commit, should it come,
//! opens the database again and is applied as another node's would be. The next line goes on from the same
//! [`super::slot::HighestProposed`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tidemark_engine::{IdleRule, SMALL_BYTES_MAX, open_files};
use tidemark_protocol::{DatabaseId, Position};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::slot::{Asleep, Slot};
use super::{CLOSE_CHECK, Databases, DatabasesError, READERS_WAIT};
use crate::pipeline::Line;

/// How often it is looked which databases are idle.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How often to look whether a writer that has answered is at rest.
const REST_CHECKS: u32 = 5;
/// Databases put to sleep at once: each may sync two files.
const AT_ONCE: usize = 8;

impl Databases {
    /// Puts databases to sleep until `stop`: those that nobody has used for `idle_wait`, and those used least
    /// recently while more than `open_max` are open.
    pub(crate) async fn close_idle(
        self: Arc<Self>,
        idle_wait: Duration,
        open_max: usize,
        stop: CancellationToken,
    ) {
        let looks_max = (idle_wait.as_millis() / LOOK.as_millis()).max(1);
        let rule = IdleRule {
            looks_max: u64::try_from(looks_max).unwrap_or(u64::MAX),
            open_max,
            files_max: self.options.files_max,
        };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = stop.cancelled() => return,
            }
            let idle = self.idle(&rule);
            stream::iter(idle)
                .for_each_concurrent(AT_ONCE, async |database| {
                    if let Err(error) = self.put_to_sleep(database).await {
                        tracing::warn!(%database, %error, "an idle database stays open");
                    }
                })
                .await;
        }
    }

    /// Those to be put to sleep now. Begins the next look.
    fn idle(&self, rule: &IdleRule) -> Vec<DatabaseId> {
        let now = self.begin_look();
        let open: Vec<_> = self
            .all()
            .into_iter()
            .map(|line| (line.used_at(), (line.id(), line.database().file_size())))
            .filter(|(_, (id, _))| *id != DatabaseId::CATALOGUE)
            .collect();
        let count = i64::try_from(open.len() + 1).unwrap_or(i64::MAX);
        self.context.metrics.open_databases.set(count);
        let idle = rule.pick(now, open, open_files());
        idle.filter_map(|(id, bytes)| {
            if bytes <= SMALL_BYTES_MAX {
                return Some(id);
            }
            // To open it again, all of it would have to be read and hashed.
            if let Some(line) = self.peek(id) {
                line.database().close_idle_readers();
            }
            None
        })
        .collect()
    }

    /// Closes the files of a database, if nobody uses it. True if they are closed.
    pub(crate) async fn put_to_sleep(&self, database: DatabaseId) -> Result<bool, DatabasesError> {
        let _changing = self.changing(database).lock().await;
        let Some(line) = self.peek(database) else {
            return Ok(false);
        };
        if line.is_damaged() || line.database().position().is_none() {
            return Ok(false);
        }
        let durable = line.persist().await?;
        // It has answered and is not at rest yet. Or it has more to do, and the next look is early enough.
        for _ in 0..REST_CHECKS {
            if line.is_at_rest() {
                break;
            }
            tokio::time::sleep(CLOSE_CHECK).await;
        }
        let Some(line) = self.let_go(line, durable) else {
            return Ok(false);
        };
        let directory = self.directory(database);
        // Closing is file work, too.
        self.threads().run(Box::new(move || drop(line)));
        let directories = std::slice::from_ref(&directory);
        if !self.are_closed(directories, READERS_WAIT).await {
            tracing::error!(%database, "an idle database does not close");
        }
        tracing::debug!(%database, %durable, "database closed");
        Ok(true)
    }

    /// Takes the line out of the map if `line` is the only reference beside it and has nothing to do.
    fn let_go(&self, line: Arc<Line>, durable: Position) -> Option<Arc<Line>> {
        let mut slots = self.slots_write();
        let here = slots.get_mut(&line.id())?;
        let same = matches!(here, Slot::Open(open) if Arc::ptr_eq(open, &line));
        // The map's and this one.
        let unused = Arc::strong_count(&line) == 2 && line.has_no_readers();
        // A client may be gone and what it asked for run on: the files stay open until the end of that, and whoever
        // opens them again, the log among them, would wait.
        let unused = unused && line.is_at_rest();
        let settled = line.database().position() == Some(durable)
            && line.newest().is_none_or(|newest| durable.reached(&newest));
        (same && unused && settled).then(|| {
            *here = Slot::Asleep(Asleep {
                durable,
                proposed: line.proposed().clone(),
            });
            line
        })
    }
}
