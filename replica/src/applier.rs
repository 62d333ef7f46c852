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
//! What is done at each is in `following`, `images` and `files`; `sleep` has a copy that nobody uses: it closes
//! its files ([`Condition::Asleep`]) and opens them for the next read or transaction. A failure of the files closes them and opens them again after a pause.

mod files;
mod following;
mod images;
mod sleep;

use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::{Database, Owner};
use tidemark_protocol::{DatabaseId, Position};
use tokio::sync::oneshot;

use crate::copy::{Copy, Item, Released, Work};
use crate::outbox::Outbox;
use crate::resync::{Complete, Resync};
use crate::site::Site;
use crate::standing::Condition;

/// Frames after which the WAL is copied into the file as far as readers allow.
const CHECKPOINT_FRAMES: u32 = 2000;
/// Bytes of WAL after which the checkpoint waits for readers, so that the WAL can start over.
const WAL_BYTES_MAX: u64 = 32 << 20;
/// Frames between two tries of that.
const RESTART_FRAMES: u32 = 1000;
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
    /// One that opens its files when it is told to, or, if a former copy `is_read`, when that is released.
    pub(crate) fn new(id: DatabaseId, site: Arc<Site>, is_read: bool) -> Self {
        Self {
            id,
            site,
            files: None,
            released: None,
            outbox: None,
            feed: if is_read {
                Feed::Releasing(AfterRelease::Open)
            } else {
                Feed::Idle
            },
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
            Work::Item(Item::Open) => self.on_begin(copy),
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
            Work::Item(Item::Unsound(database)) => self.on_unsound(copy, &database),
            Work::Item(Item::Delete) => self.on_delete(copy),
            Work::Item(Item::Close(done)) => self.on_close(copy, done),
            Work::Item(Item::Released) => self.on_released(copy),
        }
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
