//! One database of a replica: the half that one thread at a time owns.
//!
//! Every decision about a database is made here, in the order in which things were received:
//!
//! * a connection comes up: say where the copy stands (`Follow`);
//! * transactions: verify and apply them merged, publish, confirm, checkpoint when due;
//! * the source wants hashes, then sends an image: [`Resync`] builds a file, which takes the place of
//!   the old one after the reads of that have ended;
//! * a transaction does not fit or gives other content than it says: the copy asks to be
//!   resynchronised. Diverged content is never read again; content that is merely old may be.
//!
//! ```text
//! Idle -> Following <-> Asked -> Resync -> Releasing -> Following
//! ```
//!
//! A copy that nobody uses closes its files ([`Condition::Asleep`]) and opens them for the next read or
//! transaction. A failure of the files closes them and opens them again after a pause.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::{ApplyError, CheckpointMode, Database, OpenError, Opened, Owner};
use tidemark_protocol::stream::FollowerMessage;
use tidemark_protocol::{DatabaseId, PAGE_SIZE, Position, Transaction};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::copy::{Copy, Item, Released, Work};
use crate::old_pages::OldPages;
use crate::outbox::Outbox;
use crate::resync::{Complete, Resync, ResyncError};
use crate::site::Site;
use crate::standing::Condition;

/// Frames after which the WAL is copied into the file as far as readers allow.
const CHECKPOINT_FRAMES: u32 = 2000;
/// Bytes of WAL after which the checkpoint waits for readers, so that the WAL can start over.
const WAL_BYTES_MAX: u64 = 32 << 20;
/// Frames between two tries of that.
const RESTART_FRAMES: u32 = 1000;
/// Largest file that is closed for want of use: opening it again takes a few milliseconds.
const SLEEP_BYTES_MAX: u64 = 4 << 20;
/// First pause after files failed, before they are tried again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause before the source is asked again for a database that it says it does not hold.
const DROPPED_PAUSE: Duration = Duration::from_secs(1);

/// The owner's side of one database.
#[derive(Debug)]
pub(crate) struct Applier {
    id: DatabaseId,
    site: Arc<Site>,
    /// The open files, with the word that the last read of them has ended.
    files: Option<(Owner, Arc<Database>)>,
    released: Option<Released>,
    outbox: Option<Arc<Outbox>>,
    feed: Feed,
    /// Frames of the WAL when it was last checkpointed.
    frames_checkpointed: u32,
    /// Resynchronisations that failed since the last that did not. After the first, no hashes are sent.
    resyncs_failed: u32,
    /// The next pause after files failed.
    pause: Duration,
    /// Why the copy must not be read, while it must not.
    damaged: Option<Arc<str>>,
    /// Where the copy stands while its files are closed for want of use.
    asleep: Option<Position>,
    /// Whether the files failed and were not opened again yet.
    failed: bool,
    /// Whether this is the end: deleted, or closed for good.
    ended: bool,
}

/// What an applier takes from its inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Appetite {
    /// Everything, in order.
    All,
    /// [`Item::Released`] alone; the rest stays.
    Holding,
    /// [`Item::Released`] alone; the rest stays, but for transactions and pages, which nobody will want.
    Discarding,
}

/// What the source is expected to send next.
#[derive(Debug)]
enum Feed {
    /// Nothing.
    Idle,
    /// Transactions.
    Following,
    /// The wish for hashes: anything before that was sent before it knew.
    Asked,
    /// An image.
    Resync(Resync),
    /// Nothing is taken until the reads of the closed files have ended.
    Releasing(AfterRelease),
}

#[derive(Debug)]
enum AfterRelease {
    Install(Complete),
    Open,
    /// With whether the source sends transactions.
    Sleep {
        following: bool,
    },
    Delete,
    Close(oneshot::Sender<()>),
}

impl Applier {
    pub(crate) fn new(id: DatabaseId, site: Arc<Site>) -> Self {
        Self {
            id,
            site,
            files: None,
            released: None,
            outbox: None,
            feed: Feed::Idle,
            frames_checkpointed: 0,
            resyncs_failed: 0,
            pause: PAUSE_MIN,
            damaged: None,
            asleep: None,
            failed: false,
            ended: false,
        }
    }

    /// What the inbox may hand over now.
    pub(crate) fn appetite(&self) -> Appetite {
        match self.feed {
            Feed::Releasing(AfterRelease::Install(_) | AfterRelease::Sleep { .. }) => {
                Appetite::Holding
            }
            Feed::Releasing(_) => Appetite::Discarding,
            Feed::Idle | Feed::Following | Feed::Asked | Feed::Resync(_) => Appetite::All,
        }
    }

    /// Does one piece of work.
    pub(crate) fn handle(&mut self, copy: &Arc<Copy>, work: Work) {
        if self.ended {
            return;
        }
        match work {
            Work::Transactions(transactions, shares) => {
                self.on_transactions(copy, &transactions);
                drop(shares); // only now may as much be received again
            }
            Work::Item(Item::Open) => self.on_open(copy),
            Work::Item(Item::Connected(outbox)) => self.on_connected(copy, outbox),
            Work::Item(Item::Disconnected(number)) => self.on_disconnected(copy, number),
            Work::Item(Item::Transaction(transaction, share)) => {
                self.on_transactions(copy, &[transaction]);
                drop(share);
            }
            Work::Item(Item::NeedHashes(number, place)) => {
                self.on_need_hashes(copy, number, place);
            }
            Work::Item(Item::ImageBegin(position, page_count)) => {
                let directory = copy.directory();
                self.on_resync(copy, "begin", |resync| {
                    resync.image(&directory, position, page_count)
                });
            }
            Work::Item(Item::Pages(pages, share)) => {
                self.on_resync(copy, "pages", |resync| {
                    if resync.has_begun() {
                        resync.pages(&pages)
                    } else {
                        Ok(())
                    }
                });
                drop(share);
            }
            Work::Item(Item::ImageEnd) => self.on_image_end(copy),
            Work::Item(Item::Dropped) => self.on_dropped(copy),
            Work::Item(Item::Again(number)) => self.on_again(copy, number),
            Work::Item(Item::Sleep) => self.on_sleep(copy),
            Work::Item(Item::Wake) => {
                self.wake(copy);
            }
            Work::Item(Item::Suspect) => self.on_suspect(copy),
            Work::Item(Item::Delete) => self.on_delete(copy),
            Work::Item(Item::Close(done)) => self.on_close(copy, done),
            Work::Item(Item::Released) => self.on_released(copy),
        }
    }

    /// Opens the files and says where they are.
    fn on_open(&mut self, copy: &Arc<Copy>) {
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
    fn reopen(&mut self, copy: &Arc<Copy>) -> bool {
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

    fn on_connected(&mut self, copy: &Arc<Copy>, outbox: Arc<Outbox>) {
        if self
            .outbox
            .as_ref()
            .is_some_and(|known| known.number() >= outbox.number())
        {
            return; // told twice, or late
        }
        self.outbox = Some(outbox);
        self.feed = Feed::Idle;
        self.follow(copy);
    }

    fn on_disconnected(&mut self, copy: &Arc<Copy>, number: u64) {
        if self
            .outbox
            .as_ref()
            .is_none_or(|outbox| outbox.number() != number)
        {
            return;
        }
        self.outbox = None;
        self.feed = Feed::Idle; // an image that was under way is gone, the old file is untouched
        self.publish(copy, Condition::Alone);
    }

    /// Tells the source where the copy stands, if there is a source and something to tell.
    fn follow(&mut self, copy: &Arc<Copy>) {
        let Some(outbox) = &self.outbox else { return };
        let position = if self.damaged.is_some() {
            None
        } else {
            self.position()
        };
        if position.is_none() && self.damaged.is_none() {
            return; // not open yet
        }
        outbox.control(FollowerMessage::Follow {
            database: self.id,
            position,
        });
        let (feed, condition) = match position {
            Some(_) => (Feed::Following, Condition::Following),
            None => (Feed::Asked, Condition::Catching),
        };
        self.feed = feed;
        self.publish(copy, condition);
    }

    fn on_transactions(&mut self, copy: &Arc<Copy>, transactions: &[Transaction]) {
        copy.touch();
        if !self.wake(copy) {
            return;
        }
        let (Feed::Following, Some((owner, _))) = (&self.feed, &mut self.files) else {
            return; // sent before the source knew that it is of no use here
        };
        fail::fail_point!("replica::before_apply");
        match owner.apply(transactions) {
            Ok(position) => {
                fail::fail_point!("replica::after_apply");
                self.pause = PAUSE_MIN;
                self.publish(copy, Condition::Following);
                if let Some(outbox) = &self.outbox {
                    outbox.confirm(self.id, position);
                }
                self.site
                    .metrics
                    .applied_transactions
                    .inc_by(transactions.len() as u64);
                self.site.metrics.applied_batches.inc();
                self.checkpoint_if_due(copy);
            }
            Err(ApplyError::Storage(error)) => self.storage_failed(copy, &error),
            Err(error @ ApplyError::Checksum { .. }) => {
                tracing::error!(db = %self.id, %error, "a copy has diverged");
                self.site.metrics.resync("diverged");
                self.set_damaged(copy, &error.to_string());
                self.ask_for_resync(copy);
            }
            Err(error) => {
                tracing::warn!(db = %self.id, %error, "a copy cannot be continued");
                self.site.metrics.resync("base");
                self.ask_for_resync(copy);
            }
        }
    }

    /// Makes the source start over with this database. What it has sent already is of no use.
    fn ask_for_resync(&mut self, copy: &Arc<Copy>) {
        let database = self.id;
        if let Some(outbox) = &self.outbox {
            outbox.control(FollowerMessage::Unfollow { database });
            outbox.control(FollowerMessage::Follow {
                database,
                position: None,
            });
            self.feed = Feed::Asked;
            self.publish(copy, Condition::Catching);
        } else {
            self.feed = Feed::Idle;
            self.publish(copy, Condition::Alone);
        }
    }

    fn on_need_hashes(&mut self, copy: &Arc<Copy>, number: u64, place: OwnedSemaphorePermit) {
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
    fn old_pages(&mut self, copy: &Arc<Copy>) -> OldPages {
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

    fn on_resync(
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

    fn on_image_end(&mut self, copy: &Arc<Copy>) {
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

    fn complain_of(&self, part: &str) {
        if let Some(outbox) = &self.outbox {
            outbox.complain(format!("image of database {}: unexpected {part}", self.id));
        }
    }

    /// An image did not work out. A source that broke the protocol is left. Else once more, without
    /// relying on what is here; and when that fails as well, after pauses: most likely the disk is full.
    fn resync_failed(&mut self, copy: &Arc<Copy>, error: &ResyncError) {
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

    /// Tries once more on this connection, after a pause.
    fn again_after(&self, copy: &Arc<Copy>, pause: Duration) {
        let Some(number) = self.outbox.as_ref().map(|outbox| outbox.number()) else {
            return;
        };
        let copy = Arc::clone(copy);
        self.site.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            copy.feed(Item::Again(number));
        });
    }

    fn on_again(&mut self, copy: &Arc<Copy>, number: u64) {
        let same = self
            .outbox
            .as_ref()
            .is_some_and(|outbox| outbox.number() == number);
        if !same || !matches!(self.feed, Feed::Idle) {
            return;
        }
        if self.resyncs_failed > 0 {
            self.ask_for_resync(copy); // remains of the last image may still be on their way
        } else {
            self.follow(copy);
        }
    }

    /// The next of the pauses after failures of our own.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// Closes the files and goes on when the reads of them have ended, which they do: each has a
    /// deadline. And not before a pause.
    fn release(&mut self, copy: &Arc<Copy>, after: AfterRelease, pause: Duration) {
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

    fn on_released(&mut self, copy: &Arc<Copy>) {
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

    fn install(&mut self, copy: &Arc<Copy>, complete: Complete) {
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

    fn on_dropped(&mut self, copy: &Arc<Copy>) {
        // The catalogue says when its files go. Until then nothing new comes; or the source is slower
        // than its own catalogue and gets it a little later.
        self.feed = Feed::Idle;
        self.publish(copy, Condition::Alone);
        self.again_after(copy, DROPPED_PAUSE);
    }

    /// A read failed in a way that content as it should be does not explain: look at every page.
    fn on_suspect(&mut self, copy: &Arc<Copy>) {
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
            Ok(false) => {
                tracing::error!(db = %self.id, "pages of a database changed on disk");
                self.site.metrics.resync("damaged");
                self.set_damaged(copy, "pages changed on disk");
                self.ask_for_resync(copy);
            }
            Err(error) => self.storage_failed(copy, &error),
        }
    }

    /// Closes the files if that is worth it: opening hashes all pages, so only of a small database.
    fn on_sleep(&mut self, copy: &Arc<Copy>) {
        let Some((owner, database)) = &mut self.files else {
            return;
        };
        let quiet = matches!(self.feed, Feed::Idle | Feed::Following);
        if !quiet || self.damaged.is_some() || copy.was_used() {
            return;
        }
        if database.file_size() > SLEEP_BYTES_MAX {
            database.close_idle_readers();
            return;
        }
        // A WAL would have to be recovered at the next opening.
        if owner.wal_frames() > 0
            && let Err(error) = owner.checkpoint(CheckpointMode::Truncate)
        {
            return self.storage_failed(copy, &error);
        }
        let following = matches!(self.feed, Feed::Following);
        let position = owner.position();
        copy.remember_measures();
        self.release(copy, AfterRelease::Sleep { following }, Duration::ZERO);
        self.asleep = position;
    }

    /// Opens the files if they sleep. `false`: they are not as they were, and what is to be done about
    /// that has begun.
    fn wake(&mut self, copy: &Arc<Copy>) -> bool {
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

    fn on_delete(&mut self, copy: &Arc<Copy>) {
        if let Some(outbox) = self.outbox.take() {
            outbox.control(FollowerMessage::Unfollow { database: self.id });
        }
        self.release(copy, AfterRelease::Delete, Duration::ZERO);
        copy.publish(None, Condition::Dropped);
    }

    fn delete_files(&mut self, copy: &Arc<Copy>) {
        self.ended = true;
        match fs::remove_dir_all(copy.directory()) {
            Ok(()) => tracing::info!(db = %self.id, "a database was deleted"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(db = %self.id, %error, "files of a deleted database remain");
            }
        }
    }

    /// Closes for good: a clean file makes the next start quick.
    fn on_close(&mut self, copy: &Arc<Copy>, done: oneshot::Sender<()>) {
        if let (Some((owner, _)), None) = (&mut self.files, &self.damaged)
            && let Err(error) = owner.checkpoint(CheckpointMode::Truncate)
        {
            tracing::warn!(db = %self.id, %error, "the last checkpoint of a database failed");
        }
        self.outbox = None;
        self.release(copy, AfterRelease::Close(done), Duration::ZERO);
    }

    fn checkpoint_if_due(&mut self, copy: &Arc<Copy>) {
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

    /// The files failed: close them, and open them again after a pause. What they hold then is found
    /// out from their content.
    fn storage_failed(&mut self, copy: &Arc<Copy>, error: &dyn std::fmt::Display) {
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

    fn open(&mut self, copy: &Arc<Copy>) -> Result<Option<Position>, Unopened> {
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

    fn position(&self) -> Option<Position> {
        match &self.files {
            Some((owner, _)) => owner.position(),
            None => self.asleep,
        }
    }

    /// The position as readers may know it.
    fn readable_position(&self) -> Option<Position> {
        if self.damaged.is_some() {
            None
        } else {
            self.position()
        }
    }

    fn set_damaged(&mut self, copy: &Arc<Copy>, reason: &str) {
        copy.empty();
        let reason: Arc<str> = reason.into();
        copy.publish(None, Condition::Damaged(Arc::clone(&reason)));
        self.damaged = Some(reason);
    }

    /// Publishes a condition, unless damage is the one that counts.
    fn publish(&self, copy: &Copy, condition: Condition) {
        match &self.damaged {
            Some(reason) => copy.publish(None, Condition::Damaged(Arc::clone(reason))),
            None if self.asleep.is_some() => {
                let following = condition == Condition::Following;
                copy.publish(self.asleep, Condition::Asleep { following });
            }
            None => copy.publish(self.position(), condition),
        }
    }
}

enum Unopened {
    /// The content is not usable: resynchronise.
    Damaged(String),
    /// The machine failed: try again later.
    Storage(String),
}
