//! One database of a replica: the half that everyone shares.
//!
//! 1. The connection puts what it receives into the inbox ([`Copy::feed`]), in order.
//! 2. A strand takes it out in batches and applies it ([`crate::applier::Applier`]).
//! 3. The strand publishes where the copy stands ([`Copy::publish`]); requests that wait for a bookmark
//!    watch that.
//! 4. Requests read from the open database in the slot ([`Copy::open`]). The slot is empty while nothing
//!    may be read: a damaged copy is never in it.
//!
//! ```text
//! confirmed <= published <= position of the database in the slot <= received
//! ```
//!
//! An idle copy costs no thread and no timer. One that nobody uses for a while closes its files and
//! costs its place in memory alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use tidemark_engine::{Database, Strand};
use tidemark_protocol::stream::Pages;
use tidemark_protocol::{DatabaseId, Position, Transaction};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::applier::{Appetite, Applier};
use crate::metrics::DatabaseMeter;
use crate::outbox::Outbox;
use crate::site::Site;
use crate::soundings::{Mark, Sight};
use crate::standing::{Condition, Standing};

/// Most transactions applied as one.
const BATCH_TRANSACTIONS_MAX: usize = 1024;
/// Bytes after which a batch takes no further transaction.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Batches of one database before the strand lets another have the thread.
const BATCHES_PER_TURN_MAX: usize = 8;
/// Jobs in a copy's strand: it posts one at a time.
const STRAND_JOBS_MAX: usize = 4;

/// One database of a replica.
#[derive(Debug)]
pub(crate) struct Copy {
    id: DatabaseId,
    site: Arc<Site>,
    slot: RwLock<Option<Arc<Open>>>,
    standing: watch::Sender<Standing>,
    inbox: Mutex<Inbox>,
    strand: Strand<Applier>,
    meter: Option<DatabaseMeter>,
    /// The look at idle copies before which it was used last.
    used_at: AtomicU64,
    /// Bytes and tables when the files were last closed, if they were ever open.
    measured: Mutex<Option<(u64, u64)>>,
}

/// An open database, held by the slot and by every read in flight.
#[derive(Debug)]
pub(crate) struct Open {
    /// The database. Before `_held`, so that it is gone when the holders are known to be.
    pub(crate) database: Arc<Database>,
    _held: mpsc::Sender<Infallible>,
}

/// Resolves when nobody holds an [`Open`] any more.
pub(crate) type Released = mpsc::Receiver<Infallible>;

/// What the strand is to do.
#[derive(Debug)]
pub(crate) enum Item {
    /// Open the files.
    Open,
    /// A connection is up.
    Connected(Arc<Outbox>),
    /// Connection of this number is down.
    Disconnected(u64),
    /// A transaction came, with the share of the queue that it takes.
    Transaction(Transaction, OwnedSemaphorePermit),
    /// The source wants page hashes, on this connection.
    NeedHashes(u64, OwnedSemaphorePermit),
    /// An image begins.
    ImageBegin(Position, u32),
    /// Pages of it.
    Pages(Pages, OwnedSemaphorePermit),
    /// It is complete.
    ImageEnd,
    /// The source no longer holds the database.
    Dropped,
    /// What went wrong with the source on this connection may work now.
    Again(u64),
    /// Close the files if nobody needs them.
    Sleep,
    /// Open them again: somebody does.
    Wake,
    /// A read found something wrong with the files.
    Suspect,
    /// The pages of this open database are not what its position says.
    Unsound(Weak<Database>),
    /// Delete the files.
    Delete,
    /// Close the files; says when they are.
    Close(oneshot::Sender<()>),
    /// Nobody reads the closed database any more.
    Released,
}

/// What the strand takes at once.
#[derive(Debug)]
pub(crate) enum Work {
    /// Transactions that came one after the other.
    Transactions(Vec<Transaction>, Vec<OwnedSemaphorePermit>),
    /// Anything else.
    Item(Item),
}

#[derive(Debug, Default)]
struct Inbox {
    items: VecDeque<Item>,
    /// Set apart: it is taken before all items, and alone while the strand waits for it.
    released: bool,
    /// Whether a job is posted or running.
    scheduled: bool,
    /// What went through here.
    mark: Mark,
}

impl Copy {
    /// A copy whose files are about to be opened, and which then follows if there is a connection. Not
    /// before its `former` ones, if there are any, are closed.
    pub(crate) fn new(
        id: DatabaseId,
        site: Arc<Site>,
        outbox: Option<&Arc<Outbox>>,
        former: Vec<watch::Receiver<Standing>>,
    ) -> Arc<Self> {
        let applier = Applier::new(id, Arc::clone(&site), !former.is_empty());
        let strand = Strand::new(applier, Arc::clone(&site.threads), STRAND_JOBS_MAX);
        let standing = Standing {
            position: None,
            // Reads of a former one may take long: nobody should wait for them here.
            condition: if former.is_empty() {
                Condition::Opening
            } else {
                Condition::Alone
            },
        };
        let copy = Arc::new(Self {
            id,
            meter: site.metrics.meter(id),
            used_at: AtomicU64::new(site.looks.load(Ordering::Relaxed)),
            site,
            slot: RwLock::new(None),
            standing: watch::Sender::new(standing),
            inbox: Mutex::default(),
            strand,
            measured: Mutex::default(),
        });
        if let Some(outbox) = outbox {
            copy.feed(Item::Connected(Arc::clone(outbox)));
        }
        if former.is_empty() {
            copy.feed(Item::Open);
            return copy;
        }
        let waiting = Arc::clone(&copy);
        copy.site.runtime.spawn(async move {
            for mut standing in former {
                // Without a deadline: two must not have the files, and all reads of the former have one. An error
                // means that it is gone as well.
                let closed = |standing: &Standing| standing.condition == Condition::Closed;
                drop(standing.wait_for(closed).await);
            }
            waiting.feed(Item::Released);
        });
        copy
    }

    pub(crate) fn id(&self) -> DatabaseId {
        self.id
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.site.directory_of(self.id)
    }

    /// The database to read from, if it may be read.
    pub(crate) fn open(&self) -> Option<Arc<Open>> {
        self.touch();
        self.peek()
    }

    /// As [`Copy::open`], without counting as a use.
    pub(crate) fn peek(&self) -> Option<Arc<Open>> {
        self.slot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes that the copy is in use.
    pub(crate) fn touch(&self) {
        let now = self.site.looks.load(Ordering::Relaxed);
        // Mostly it is the same, and others' copies of the cache line stay valid.
        if self.used_at.load(Ordering::Relaxed) != now {
            self.used_at.store(now, Ordering::Relaxed);
        }
    }

    /// The look at idle copies before which it was used last.
    pub(crate) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// Bytes and user tables, as of now if the files are open. `None`: they never were.
    pub(crate) fn measure(&self) -> Option<(u64, u64)> {
        match self.peek() {
            Some(open) => Some((
                open.database.file_size(),
                open.database.table_count().unwrap_or_default(),
            )),
            None => *self.measured.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Whether [`Copy::measure`] has nothing to tell.
    pub(crate) fn is_unmeasured(&self) -> bool {
        let closed = self
            .slot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none();
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        closed && measured.is_none()
    }

    /// Remembers what [`Copy::measure`] gives while the files are closed.
    pub(crate) fn remember_measures(&self) {
        let measured = self.measure();
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = measured;
    }

    /// The open database, woken if it sleeps. `None` if it cannot be read by then.
    pub(crate) async fn awake(self: &Arc<Self>, until: Instant) -> Option<Arc<Open>> {
        let mut standing = self.standing();
        loop {
            match standing.borrow_and_update().condition {
                Condition::Asleep { .. } => self.feed(Item::Wake),
                Condition::Opening => {}
                Condition::Following
                | Condition::Alone
                | Condition::Catching
                | Condition::Damaged(_)
                | Condition::Dropped
                | Condition::Closed => return self.open(),
            }
            timeout_at(until, standing.changed()).await.ok()?.ok()?;
        }
    }

    /// Where the copy stands, now and from now on.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Where the copy stands now.
    pub(crate) fn stands(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether `test` holds of where the copy stands now. Cheaper than [`Copy::stands`].
    pub(crate) fn stands_so<R>(&self, test: impl FnOnce(&Standing) -> R) -> R {
        test(&self.standing.borrow())
    }

    /// Hands something to the strand.
    pub(crate) fn feed(self: &Arc<Self>, item: Item) {
        let mut inbox = self.inbox();
        match &item {
            Item::Transaction(transaction, _) => inbox.mark.received(transaction.header().next),
            Item::ImageBegin(position, _) => inbox.mark.image_begun(*position),
            Item::ImageEnd => inbox.mark.image_ended(),
            Item::NeedHashes(..) => inbox.mark.interrupted(),
            Item::Dropped => inbox.mark.dropped(),
            Item::Open
            | Item::Connected(_)
            | Item::Disconnected(_)
            | Item::Pages(..)
            | Item::Again(_)
            | Item::Sleep
            | Item::Wake
            | Item::Suspect
            | Item::Unsound(_)
            | Item::Delete
            | Item::Close(_)
            | Item::Released => {}
        }
        if matches!(item, Item::Released) {
            inbox.released = true;
        } else {
            inbox.items.push_back(item);
        }
        let idle = !std::mem::replace(&mut inbox.scheduled, true);
        drop(inbox);
        if idle {
            self.schedule();
        }
    }

    /// Says where the copy stands and wakes who waits for that.
    pub(crate) fn publish(&self, position: Option<Position>, condition: Condition) {
        if let (Some(meter), Some(position)) = (&self.meter, position) {
            meter.set(position);
        }
        if let Some(position) = position {
            self.inbox().mark.applied(position);
        }
        let next = Standing {
            position,
            condition,
        };
        self.standing.send_if_modified(|standing| {
            let changed = *standing != next;
            *standing = next;
            changed
        });
    }

    /// Asks the source for this database, and notes when. `gap`: what it has lies behind an image.
    pub(crate) fn ask_to_follow(&self, outbox: &Outbox, gap: bool, ask: impl FnOnce()) {
        let proof = self.site.soundings.proof();
        let standing = self.stands();
        self.inbox().mark.restart(&standing, proof, gap);
        ask();
        self.inbox().mark.followed(outbox.number());
    }

    /// The source is to send an image, which may have to wait before it is fed.
    pub(crate) fn interrupted(&self) {
        self.inbox().mark.interrupted();
    }

    /// What is known of how old the copy is.
    pub(crate) fn sight(&self) -> Sight {
        let proof = self.site.soundings.proof(); // before anything else: see there
        let mut inbox = self.inbox();
        self.stands_so(|standing| inbox.mark.sight(standing, proof))
    }

    /// Lets reads have the database.
    pub(crate) fn fill(&self, database: Arc<Database>) -> Released {
        let (held, released) = mpsc::channel(1);
        *self.slot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Open {
            database,
            _held: held,
        }));
        released
    }

    /// Lets no further read have the database.
    pub(crate) fn empty(&self) {
        let open = self
            .slot
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(open); // perhaps the last holder: outside the lock
    }

    fn schedule(self: &Arc<Self>) {
        let copy = Arc::clone(self);
        let posted = self.strand.post(move |applier| {
            let _guard = PanicGuard(&copy);
            copy.turn(applier);
        });
        if posted.is_err() {
            self.poisoned();
        }
    }

    fn turn(self: &Arc<Self>, applier: &mut Applier) {
        for _ in 0..BATCHES_PER_TURN_MAX {
            match self.take(applier.appetite()) {
                Some(work) => applier.handle(self, work),
                None => return,
            }
        }
        self.schedule(); // still marked as scheduled
    }

    /// The next work, or the end of the turn.
    fn take(&self, appetite: Appetite) -> Option<Work> {
        let mut inbox = self.inbox();
        if std::mem::take(&mut inbox.released) {
            return Some(Work::Item(Item::Released));
        }
        if appetite == Appetite::Discarding {
            inbox
                .items
                .retain(|item| !matches!(item, Item::Transaction(..) | Item::Pages(..)));
        }
        if appetite != Appetite::All || inbox.items.is_empty() {
            inbox.scheduled = false;
            return None;
        }
        let mut transactions = Vec::new();
        let mut shares = Vec::new();
        let mut bytes = 0;
        while transactions.len() < BATCH_TRANSACTIONS_MAX && bytes < BATCH_BYTES_MAX {
            match inbox.items.pop_front() {
                Some(Item::Transaction(transaction, share)) => {
                    bytes += transaction.encoded().len();
                    transactions.push(transaction);
                    shares.push(share);
                }
                Some(item) if transactions.is_empty() => return Some(Work::Item(item)),
                Some(item) => {
                    inbox.items.push_front(item);
                    break;
                }
                None => break,
            }
        }
        Some(Work::Transactions(transactions, shares))
    }

    /// The strand is gone for good: nothing of this copy may be trusted.
    fn poisoned(&self) {
        self.empty();
        self.inbox().items.clear();
        self.publish(None, Condition::Damaged("its applier failed".into()));
        self.site.failed.cancel();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notices a panic of the applier.
struct PanicGuard<'a>(&'a Copy);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(db = %self.0.id, "the applier of a database panicked");
            self.0.poisoned();
        }
    }
}
