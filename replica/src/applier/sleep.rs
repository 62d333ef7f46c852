//! A copy that nobody uses closes its files, and opens them for the next read or transaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemark_engine::{CheckpointMode, SMALL_BYTES_MAX};

use super::files::Unopened;
use super::{AfterRelease, Applier, Feed};
use crate::copy::Copy;
use crate::standing::Condition;

impl Applier {
    /// Closes the files if that is worth it: opening hashes all pages, so only of a small database.
    pub(super) fn on_sleep(&mut self, copy: &Arc<Copy>) {
        let Some((owner, database)) = &mut self.files else {
            return;
        };
        let quiet = matches!(self.feed, Feed::Idle | Feed::Following);
        if !quiet
            || self.damaged.is_some()
            || copy.used_at() == self.site.looks.load(Ordering::Relaxed)
        {
            return;
        }
        if database.file_size() > SMALL_BYTES_MAX {
            database.close_idle_readers();
            copy.touch(); // and not again until it has been idle for as long
            return;
        }
        // A WAL would have to be recovered at the next opening.
        if owner.wal_frames() > 0 {
            match owner.checkpoint(CheckpointMode::Truncate) {
                Ok(report) if report.durable.is_some() => {}
                // Somebody reads from it, and keeps it from being emptied: another time.
                Ok(_) => return,
                Err(error) => return self.storage_failed(copy, &error),
            }
        }
        let following = matches!(self.feed, Feed::Following);
        let position = owner.position();
        copy.remember_measures();
        self.release(copy, AfterRelease::Sleep { following }, Duration::ZERO);
        self.asleep = position;
    }

    /// Opens the files if they sleep. `false`: they are not as they were, and what is to be done about
    /// that has begun.
    pub(super) fn wake(&mut self, copy: &Arc<Copy>) -> bool {
        let Some(position) = self.asleep.take() else {
            return true;
        };
        self.site.metrics.wakes.inc();
        match self.open(copy) {
            Ok(Some(opened)) if opened == position => {
                let following = matches!(self.feed, Feed::Following);
                let condition = if following {
                    Condition::Following
                } else {
                    Condition::Alone
                };
                self.publish(copy, condition);
                true
            }
            Ok(_) | Err(Unopened::Damaged(_)) => {
                tracing::error!(db = %self.id, %position, "the files of a closed database changed");
                self.site.metrics.resync("damaged");
                self.set_damaged(copy, "its files changed while they were closed");
                self.ask_for_resync(copy);
                false
            }
            Err(Unopened::Storage(reason)) => {
                self.storage_failed(copy, &reason);
                false
            }
        }
    }
}
