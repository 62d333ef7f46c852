//! The files of a copy: opened, closed once the reads of them have ended, checkpointed, deleted.

use std::fs;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidemark_engine::{CheckpointMode, Database, OpenError, Opened, claimed_position};
use tidemark_protocol::stream::FollowerMessage;
use tidemark_protocol::{DatabaseId, PAGE_SIZE, Position};
use tokio::sync::oneshot;

use super::{
    AfterRelease, Applier, CHECKPOINT_FRAMES, Feed, PAUSE_MAX, RESTART_FRAMES, WAL_BYTES_MAX,
};
use crate::copy::{Copy, Item};
use crate::standing::Condition;

/// Why a copy is not read any more whose files do not hold what was written to them.
const CHANGED: &str = "pages changed on disk";

pub(super) enum Unopened {
    /// The content is not usable: resynchronise.
    Damaged(String),
    /// The machine failed: try again later.
    Storage(String),
}

impl Applier {
    /// Says where the files are, if that can be had without opening them, or opens them.
    pub(super) fn on_begin(&mut self, copy: &Arc<Copy>) {
        let claimed = (self.id != DatabaseId::CATALOGUE)
            .then(|| claimed_position(&copy.directory(), self.id))
            .flatten();
        let Some(position) = claimed else {
            return self.on_open(copy);
        };
        // As if it had gone to sleep. Opened, it is looked whether that is so, before anything is read of it.
        self.asleep = Some(position);
        self.publish(copy, Condition::Alone);
        self.follow(copy);
    }

    /// Opens the files and says where they are.
    pub(super) fn on_open(&mut self, copy: &Arc<Copy>) {
        let failed_before = std::mem::take(&mut self.failed);
        if !self.reopen(copy) {
            return;
        }
        if failed_before {
            // Transactions may be on their way that came too late for these files: they are only
            // told from the ones that are wanted if everything starts over.
            self.ask_for_resync(copy);
        } else {
            self.follow(copy);
        }
    }

    /// Opens the files, or notes that what they hold is of no use. `false` if they failed.
    pub(super) fn reopen(&mut self, copy: &Arc<Copy>) -> bool {
        self.feed = Feed::Idle;
        match self.open(copy) {
            Ok(Some(position)) => {
                if self.outbox.is_none() {
                    copy.publish(Some(position), Condition::Alone);
                } // else the caller goes on to follow, and says so
            }
            Ok(None) => {
                tracing::warn!(db = %self.id, "the content of a database is at no known position");
                self.set_damaged(copy, "its content is at no known position");
            }
            Err(Unopened::Damaged(reason)) => {
                tracing::warn!(db = %self.id, reason, "a database cannot be opened");
                self.set_damaged(copy, &reason);
            }
            Err(Unopened::Storage(reason)) => {
                self.storage_failed(copy, &reason);
                return false;
            }
        }
        true
    }

    pub(super) fn open(&mut self, copy: &Arc<Copy>) -> Result<Option<Position>, Unopened> {
        let directory = copy.directory();
        fs::create_dir_all(&directory).map_err(|error| Unopened::Storage(error.to_string()))?;
        let Opened { database, owner } = Database::open(&directory, self.id, &self.site.options)
            .map_err(|error| {
                let reason = error.to_string();
                if matches!(error, OpenError::NotADatabase { .. }) {
                    Unopened::Damaged(reason)
                } else {
                    Unopened::Storage(reason)
                }
            })?;
        let position = owner.position();
        if position.is_none() {
            // Closed again at once: its pages are read as raw bytes.
            drop(database);
            owner.close();
            return Ok(None);
        }
        self.damaged = None;
        self.frames_checkpointed = 0;
        self.released = Some(copy.fill(Arc::clone(&database)));
        self.files = Some((owner, database));
        Ok(position)
    }

    /// Closes the files and goes on when the reads of them have ended, which they do: each has a
    /// deadline. And not before a pause.
    pub(super) fn release(&mut self, copy: &Arc<Copy>, after: AfterRelease, pause: Duration) {
        copy.publish(self.readable_position(), Condition::Opening);
        copy.empty();
        if let Some((owner, database)) = self.files.take() {
            drop(database);
            owner.close();
        }
        self.frames_checkpointed = 0;
        self.feed = Feed::Releasing(after);
        let released = self.released.take();
        if released.is_none() && pause.is_zero() {
            copy.feed(Item::Released);
            return;
        }
        let copy = Arc::clone(copy);
        self.site.runtime.spawn(async move {
            if let Some(mut released) = released {
                while released.recv().await.is_some() {}
            }
            tokio::time::sleep(pause).await;
            copy.feed(Item::Released);
        });
    }

    pub(super) fn on_released(&mut self, copy: &Arc<Copy>) {
        match std::mem::replace(&mut self.feed, Feed::Idle) {
            Feed::Releasing(AfterRelease::Install(complete)) => self.install(copy, complete),
            Feed::Releasing(AfterRelease::Open) => self.on_open(copy),
            Feed::Releasing(AfterRelease::Sleep { following }) => {
                self.feed = if following {
                    Feed::Following
                } else {
                    Feed::Idle
                };
                self.site.metrics.sleeps.inc();
                self.publish(
                    copy,
                    if following {
                        Condition::Following
                    } else {
                        Condition::Alone
                    },
                );
            }
            Feed::Releasing(AfterRelease::Delete) => self.delete_files(copy),
            Feed::Releasing(AfterRelease::Close(done)) => {
                copy.publish(None, Condition::Closed);
                self.ended = true;
                let _ = done.send(()); // nobody need wait for it
            }
            feed @ (Feed::Idle | Feed::Following | Feed::Asked | Feed::Resync(_)) => {
                self.feed = feed;
            }
        }
    }

    /// The files failed: close them, and open them again after a pause. What they hold then is found
    /// out from their content.
    pub(super) fn storage_failed(&mut self, copy: &Arc<Copy>, error: &dyn std::fmt::Display) {
        tracing::error!(db = %self.id, %error, "the files of a database failed");
        self.site.metrics.storage_failures.inc();
        if let Some(outbox) = &self.outbox {
            outbox.control(FollowerMessage::Unfollow { database: self.id });
        }
        self.failed = true;
        let pause = self.next_pause();
        self.release(copy, AfterRelease::Open, pause);
        copy.publish(None, Condition::Damaged(error.to_string().into()));
    }

    /// The next of the pauses after failures of our own.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    pub(super) fn checkpoint_if_due(&mut self, copy: &Arc<Copy>) {
        let Some((owner, _)) = &mut self.files else {
            return;
        };
        let frames = owner.wal_frames();
        if frames < self.frames_checkpointed {
            self.frames_checkpointed = 0; // the WAL started over
        }
        let large = u64::from(frames) * PAGE_SIZE as u64 > WAL_BYTES_MAX;
        let (mode, every) = if large {
            (CheckpointMode::Restart, RESTART_FRAMES)
        } else {
            (CheckpointMode::Passive, CHECKPOINT_FRAMES)
        };
        if frames - self.frames_checkpointed < every {
            return;
        }
        match owner.checkpoint(mode) {
            Ok(_) => self.frames_checkpointed = frames,
            Err(error) => self.storage_failed(copy, &error),
        }
    }

    /// A read failed in a way that content as it should be does not explain: look at every page.
    pub(super) fn on_suspect(&mut self, copy: &Arc<Copy>) {
        let Some((_, database)) = &self.files else {
            return;
        };
        if !matches!(self.feed, Feed::Idle | Feed::Following) || self.damaged.is_some() {
            return;
        }
        let intact = database
            .snapshot()
            .and_then(|mut snapshot| Ok(snapshot.checksum()? == snapshot.position().checksum));
        match intact {
            Ok(true) => {}
            Ok(false) => self.pages_changed(copy),
            Err(error) => self.storage_failed(copy, &error),
        }
    }

    /// Every page of these files was looked at, and they are not what their position says.
    pub(super) fn on_unsound(&mut self, copy: &Arc<Copy>, database: &Weak<Database>) {
        let open = self.files.as_ref().map(|(_, open)| Arc::downgrade(open));
        if open.is_none_or(|open| !open.ptr_eq(database)) || self.damaged.is_some() {
            return; // they were exchanged meanwhile, or it is known
        }
        match self.feed {
            Feed::Idle | Feed::Following => self.pages_changed(copy),
            // The image that comes takes no page over that it has not looked at.
            Feed::Asked | Feed::Resync(_) => self.set_damaged(copy, CHANGED),
            Feed::Releasing(_) => {}
        }
    }

    fn pages_changed(&mut self, copy: &Arc<Copy>) {
        tracing::error!(db = %self.id, "pages of a database changed on disk");
        self.site.metrics.resync("damaged");
        self.set_damaged(copy, CHANGED);
        self.ask_for_resync(copy);
    }

    pub(super) fn on_delete(&mut self, copy: &Arc<Copy>) {
        if let Some(outbox) = self.outbox.take() {
            outbox.control(FollowerMessage::Unfollow { database: self.id });
        }
        self.release(copy, AfterRelease::Delete, Duration::ZERO);
        copy.publish(None, Condition::Dropped);
    }

    pub(super) fn delete_files(&mut self, copy: &Arc<Copy>) {
        self.ended = true;
        // Out of the way at once: a crash in between must not leave half a copy.
        let deleted = copy.directory().with_extension("deleted");
        let rest = match fs::remove_dir_all(&deleted) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::rename(copy.directory(), &deleted),
        };
        match rest.and_then(|()| fs::remove_dir_all(&deleted)) {
            Ok(()) => tracing::info!(db = %self.id, "a database was deleted"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(db = %self.id, %error, "files of a deleted database remain");
            }
        }
        copy.publish(None, Condition::Closed); // a later copy may have the directory
    }

    /// Closes for good: a clean file makes the next start quick.
    pub(super) fn on_close(&mut self, copy: &Arc<Copy>, done: oneshot::Sender<()>) {
        if let (Some((owner, _)), None) = (&mut self.files, &self.damaged)
            && let Err(error) = owner.checkpoint(CheckpointMode::Truncate)
        {
            tracing::warn!(db = %self.id, %error, "the last checkpoint of a database failed");
        }
        self.outbox = None;
        self.release(copy, AfterRelease::Close(done), Duration::ZERO);
    }
}
