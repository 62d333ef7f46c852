//! Resynchronising: the source gets the hashes of what is here and sends the pages that differ.

use std::sync::Arc;
use std::time::Duration;

use tidemark_protocol::stream::FollowerMessage;
use tokio::sync::OwnedSemaphorePermit;

use super::files::Unopened;
use super::{AfterRelease, Applier, Feed, PAUSE_MIN};
use crate::copy::Copy;
use crate::old_pages::OldPages;
use crate::resync::{Complete, Resync, ResyncError};
use crate::standing::Condition;

impl Applier {
    /// Makes the source start over with this database. What it has sent already is of no use.
    pub(super) fn ask_for_resync(&mut self, copy: &Arc<Copy>) {
        let database = self.id;
        if let Some(outbox) = &self.outbox {
            copy.ask_to_follow(outbox, true, || {
                outbox.control(FollowerMessage::Unfollow { database });
                outbox.control(FollowerMessage::Follow {
                    database,
                    position: None,
                });
            });
            self.feed = Feed::Asked;
            self.publish(copy, Condition::Catching);
        } else {
            self.feed = Feed::Idle;
            self.publish(copy, Condition::Alone);
        }
    }

    pub(super) fn on_need_hashes(
        &mut self,
        copy: &Arc<Copy>,
        number: u64,
        place: OwnedSemaphorePermit,
    ) {
        copy.touch();
        if !self.wake(copy) {
            return;
        }
        let Some(outbox) = self
            .outbox
            .clone()
            .filter(|outbox| outbox.number() == number)
        else {
            return; // of a connection that is gone
        };
        match self.feed {
            Feed::Following => self.site.metrics.resync("source"),
            Feed::Asked => {}
            Feed::Idle => return, // given up, and the source did not know yet
            Feed::Resync(_) | Feed::Releasing(_) => {
                outbox.complain(format!("database {}: unexpected wish for hashes", self.id));
                return;
            }
        }
        tracing::info!(db = %self.id, position = ?self.position(), "a database resynchronises");
        self.publish(copy, Condition::Catching);
        let old = self.old_pages(copy);
        let resync = Resync::begin(self.id, old, place);
        match resync {
            Ok(resync) => {
                outbox.hashes(self.id, resync.hashes());
                self.feed = Feed::Resync(resync);
            }
            Err(error) => self.resync_failed(copy, &error),
        }
    }

    /// What need not be sent: the pages of the copy as it is, whatever they are.
    pub(super) fn old_pages(&mut self, copy: &Arc<Copy>) -> OldPages {
        if self.resyncs_failed > 0 {
            return OldPages::None;
        }
        let snapshot = self.files.as_ref().map(|(_, database)| database.snapshot());
        if let Some(Ok(snapshot)) = snapshot {
            return OldPages::Snapshot(Box::new(snapshot));
        }
        // The engine does not answer for the content: take the file as it lies there.
        OldPages::file(&copy.directory()).unwrap_or_else(|error| {
            tracing::warn!(db = %self.id, %error, "nothing of a damaged file can be used");
            OldPages::None
        })
    }

    pub(super) fn on_resync(
        &mut self,
        copy: &Arc<Copy>,
        part: &'static str,
        step: impl FnOnce(&mut Resync) -> Result<(), ResyncError>,
    ) {
        match &mut self.feed {
            Feed::Resync(resync) => {
                if let Err(error) = step(resync) {
                    self.resync_failed(copy, &error);
                }
            }
            Feed::Idle | Feed::Asked => {} // of an image that was given up
            Feed::Following | Feed::Releasing(_) => self.complain_of(part),
        }
    }

    pub(super) fn on_image_end(&mut self, copy: &Arc<Copy>) {
        match std::mem::replace(&mut self.feed, Feed::Idle) {
            Feed::Resync(resync) if !resync.has_begun() => self.feed = Feed::Resync(resync),
            Feed::Resync(resync) => match resync.finish() {
                Ok(complete) => self.release(copy, AfterRelease::Install(complete), Duration::ZERO),
                Err(error) => self.resync_failed(copy, &error),
            },
            feed @ (Feed::Idle | Feed::Asked) => self.feed = feed,
            feed @ (Feed::Following | Feed::Releasing(_)) => {
                self.feed = feed;
                self.complain_of("end");
            }
        }
    }

    pub(super) fn complain_of(&self, part: &str) {
        if let Some(outbox) = &self.outbox {
            outbox.complain(format!("image of database {}: unexpected {part}", self.id));
        }
    }

    /// An image did not work out. A source that broke the protocol is left. Else once more, without
    /// relying on what is here; and when that fails as well, after pauses: most likely the disk is full.
    pub(super) fn resync_failed(&mut self, copy: &Arc<Copy>, error: &ResyncError) {
        tracing::warn!(db = %self.id, %error, "resynchronising a database failed");
        self.resyncs_failed += 1;
        self.feed = Feed::Idle;
        self.site.metrics.resync("failed");
        let Some(outbox) = &self.outbox else { return };
        if error.is_of_source() {
            outbox.complain(error.to_string());
        } else if self.resyncs_failed == 1 {
            self.ask_for_resync(copy);
        } else {
            outbox.control(FollowerMessage::Unfollow { database: self.id });
            self.publish(copy, Condition::Alone);
            let pause = self.next_pause();
            self.again_after(copy, pause);
        }
    }

    pub(super) fn install(&mut self, copy: &Arc<Copy>, complete: Complete) {
        let Complete {
            rebuild,
            position,
            received,
            kept,
        } = complete;
        fail::fail_point!("replica::before_install");
        if let Err(error) = rebuild.install() {
            // The old file is there, unless installing had begun.
            if self.reopen(copy) {
                self.resync_failed(copy, &error.into());
            }
            return;
        }
        fail::fail_point!("replica::after_install");
        match self.open(copy) {
            Ok(Some(opened)) if opened == position => {
                tracing::info!(db = %self.id, %position, received, kept, "a database is in sync");
                self.site.metrics.resync_pages_received.inc_by(received);
                self.site.metrics.resync_pages_kept.inc_by(kept);
                self.resyncs_failed = 0;
                self.pause = PAUSE_MIN;
                if let Some(outbox) = &self.outbox {
                    outbox.confirm(self.id, position);
                    self.feed = Feed::Following;
                    self.publish(copy, Condition::Following);
                } else {
                    self.publish(copy, Condition::Alone);
                }
            }
            Ok(opened) => {
                let reason = format!("installed {position}, found {opened:?}");
                self.storage_failed(copy, &reason);
            }
            Err(Unopened::Damaged(reason)) => self.storage_failed(copy, &reason),
            Err(Unopened::Storage(error)) => self.storage_failed(copy, &error),
        }
    }
}
