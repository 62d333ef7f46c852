//! The owner: the one place where a database changes.
//!
//! On a primary:
//!
//! 1. [`Owner::execute`] runs a request inside `BEGIN IMMEDIATE … COMMIT` on the tip. SQLite hands the
//!    changed pages to the overlay; hashing them gives the next position; the record is encoded once,
//!    and its bytes are what the overlay keeps, the log stores and the replicas receive.
//! 2. The cell commits the record, elsewhere.
//! 3. [`Owner::acknowledge`] flushes it, with all before it, to the WAL file: readers see it.
//!    [`Owner::discard`] drops what will never be acknowledged.
//!
//! On a follower or replica [`Owner::apply`] does the same from records: it checks the chain, computes
//! each checksum before anything is written, and injects once.
//!
//! # What is on disk when
//!
//! A flush or an injection writes a journal entry and WAL frames, and syncs neither: the log is what
//! makes a transaction durable. A process that dies loses nothing of either. A power loss may take any
//! tail of both; the content is then some state since the last checkpoint, or, if the journal's tail is
//! gone too, an unidentified one, and [`Owner::replay`] from [`Owner::durable`] on repairs it.
//!
//! A checkpoint syncs the WAL before it copies the first page, so that a torn copy can be repeated from
//! the WAL, and syncs the database file at its end; only then is the journal rewritten (see there), and
//! only then does [`Owner::durable`] move. When the WAL starts over, SQLite writes and syncs its new
//! header first.
//!
//! A failed write or sync is final: the owner refuses everything from then on until the database is
//! opened again, because nobody can tell what the files hold.

mod opening;

use std::cell::Cell;
use std::collections::VecDeque;
use std::error::Error;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use fail::fail_point;
use tidemark_protocol::render::ResultSink;
use tidemark_protocol::transaction::TransactionHeader;
use tidemark_protocol::{
    PAGE_SIZE, PageNo, Position, Rules, Seq, Statement, Transaction, TransactionBuilder,
};

use self::opening::{Hashed, hash_all, identify};
use crate::control::{Control, Stamp};
use crate::error::{ApplyError, EngineError, ExecuteError, OpenError};
use crate::ffi::{Code, Connection, Setup, VirtualWal};
use crate::files;
use crate::hash::{Ahead, Change, LOCK_PAGE, PageHashes};
use crate::journal::Journal;
use crate::overlay::{Overlay, PAGES_BYTES_MAX};
use crate::shared::Shared;
use crate::sql::{Access, Ran, RunError, Sql, Terms, engine_error};

/// Fewest differing pages of the tip that are worth a sweep.
const TIP_PAGES_SWEPT: usize = 4096;

/// How hard a checkpoint tries. All of them run in the owner, readers go on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckpointMode {
    /// Copy what no reader needs in the WAL; never waits.
    Passive,
    /// Copy everything and wait (`checkpoint_wait`) until no reader uses the WAL, so that the next
    /// transaction starts it over.
    Restart,
    /// As `Restart`, and cut the WAL file to zero bytes.
    Truncate,
}

/// What a checkpoint did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointReport {
    /// Frames in the WAL.
    pub wal_frames: u32,
    /// Frames of them that are in the database file now.
    pub backfilled: u32,
    /// Whether readers kept it from doing all that the mode asks for.
    pub busy: bool,
    /// The position that is now durable in the database file; `None` when it was not complete.
    pub durable: Option<Position>,
}

/// The one owner of all writes, injections and checkpoints of a database. `Send`, not `Sync`.
#[derive(Debug)]
pub struct Owner {
    sql: Sql,
    wal: Arc<Mutex<Overlay>>,
    shared: Arc<Shared>,
    journal: Journal,
    /// Of the acknowledged state, whether identified or not.
    hashes: PageHashes,
    /// From there to the tip.
    tip: Ahead,
    /// When the tip has this many differences, those that are none any more are sought.
    tip_pages_next_sweep: usize,
    /// What each pending transaction does to the hashes, oldest first.
    changes: VecDeque<Change>,
    /// What readers see; `None` while unidentified.
    acknowledged: Option<Position>,
    wal_frames: u32,
    /// The content is at no position, whatever it is.
    is_marked: bool,
    /// The connection's settings are made. They need a readable schema.
    is_set_up: bool,
    poison: Option<String>,
    _not_sync: PhantomData<Cell<()>>,
}

impl Owner {
    /// Opens the files, hashes every page and identifies the position.
    pub(crate) fn open(shared: Arc<Shared>) -> Result<Self, OpenError> {
        let options = &shared.options;
        let main = files::main_path(&shared.path);
        let wal = Arc::new(Mutex::new(Overlay::default()));
        let setup = Setup {
            exclusive: options.exclusive,
            limits: &options.limits,
            busy_timeout: options.checkpoint_wait,
        };
        let failed = |doing, message: String, code: Code| match code.primary() {
            Code::NOTADB | Code::CORRUPT => OpenError::NotADatabase {
                path: main.clone(),
                reason: message,
            },
            _ => EngineError::Sqlite {
                doing,
                message,
                code: code.0,
            }
            .into(),
        };
        let connection = Connection::open(&main, wal.clone(), &setup)
            .map_err(|code| failed("open", code.name().to_owned(), code))?;
        // The first transaction opens the WAL and recovers it; this one needs no schema.
        connection
            .run_internal(c"PRAGMA user_version")
            .map_err(|code| failed("read", connection.message(), code))?;
        let hashed = {
            let mut wal = wal.lock().expect("nobody else has this lock yet");
            hash_all(&mut wal).map_err(|code| failed("hash pages", code.name().to_owned(), code))?
        };
        let (hashes, key) = match hashed {
            Hashed::All(hashes, key) => (hashes, key),
            Hashed::Absent { pages, present } => {
                return Err(OpenError::NotADatabase {
                    path: main,
                    reason: format!(
                        "it should have {pages} pages, but with its log it has {present} at most"
                    ),
                });
            }
        };
        let (journal, identified) = identify(&shared, &hashes)?;
        let is_marked = files::is_marked(&shared.path);
        let acknowledged = identified.filter(|_| !is_marked);
        shared.record(key, acknowledged, hashes.page_count());
        let sql = Sql::new(connection, options.statements_cached);
        let mut owner = Self {
            sql,
            wal,
            journal,
            tip: Ahead::of(&hashes),
            tip_pages_next_sweep: TIP_PAGES_SWEPT,
            hashes,
            changes: VecDeque::new(),
            acknowledged,
            wal_frames: key.frames(),
            is_marked,
            is_set_up: false,
            poison: None,
            shared,
            _not_sync: PhantomData,
        };
        owner.set_up()?;
        Ok(owner)
    }

    /// The acknowledged state: what readers see. `None` while unidentified.
    pub fn position(&self) -> Option<Position> {
        self.acknowledged
    }

    /// The state including transactions that await acknowledgement. `None` while unidentified.
    pub fn tip(&self) -> Option<Position> {
        let pending = self
            .wal
            .lock()
            .ok()?
            .pending()
            .back()
            .map(|last| last.header().next);
        pending.or(self.acknowledged)
    }

    /// Has `pulse` called every now and then, some hundred steps apart, while statements run, by the thread that
    /// runs them: for what must not wait until they end. It can be set once.
    pub fn set_pulse(&self, pulse: impl Fn() + Send + 'static) {
        self.sql.connection().set_pulse(Box::new(pulse));
    }

    /// Runs statements as one transaction on top of the tip. The change stays in memory, invisible to
    /// readers, until acknowledged. `None`: nothing was written; the answer depends on the tip.
    ///
    /// Whatever fails, nothing happened.
    pub fn execute<S: ResultSink>(
        &mut self,
        statements: &[Statement],
        stamp: &Stamp,
        control: &Control,
        sink: &mut S,
    ) -> Result<Option<Transaction>, ExecuteError> {
        self.execute_under(Rules::Request, statements, stamp, control, sink)
    }

    /// As [`Owner::execute`], with the statements taken by `rules`.
    pub fn execute_under<S: ResultSink>(
        &mut self,
        rules: Rules,
        statements: &[Statement],
        stamp: &Stamp,
        control: &Control,
        sink: &mut S,
    ) -> Result<Option<Transaction>, ExecuteError> {
        self.end_abandoned()?;
        let base = self.ready_to_write()?;
        let ran = self.run_transaction(rules, statements, control, sink);
        if ran.is_err() {
            sink.reset();
        }
        let sealed = self.settle(ran, control)?;
        let Some((pages, pages_after)) = sealed else {
            return Ok(None);
        };
        self.record(base, pages, pages_after, stamp, sink.recorded())
            .map(Some)
            .inspect_err(|_| sink.reset())
    }

    /// Rewrites the database without its free pages, as a transaction like any other. Its record holds
    /// the whole database, so only small ones can be vacuumed; a larger one is [`TooLarge`].
    ///
    /// [`TooLarge`]: ExecuteError::TooLarge
    pub fn vacuum(&mut self, stamp: &Stamp) -> Result<Option<Transaction>, ExecuteError> {
        self.end_abandoned()?;
        let base = self.ready_to_write()?;
        let connection = self.sql.connection();
        connection.allow_attached(true);
        let ran = connection
            .run_internal(c"VACUUM")
            .map_err(|code| RunError::Storage(engine_error(self.sql.connection(), code, "vacuum")));
        self.sql.connection().allow_attached(false);
        let unbounded = Control {
            deadline: Instant::now(),
            steps_max: None,
        };
        let sealed = self.settle(ran, &unbounded)?;
        let Some((pages, pages_after)) = sealed else {
            return Ok(None);
        };
        self.record(base, pages, pages_after, stamp, &[]).map(Some)
    }

    /// Checks that a transaction may begin and returns the state it begins on.
    fn ready_to_write(&self) -> Result<Position, ExecuteError> {
        self.check_poison()?;
        let base = self.tip().ok_or(ExecuteError::Damaged {
            database: self.shared.id,
        })?;
        let (bytes, max) = (self.overlay_bytes(), self.shared.options.overlay_bytes_max);
        if bytes >= max {
            return Err(ExecuteError::Backlog { bytes, max });
        }
        Ok(base)
    }

    /// Undoes what a request left behind that panicked on its way, in its sink perhaps.
    fn end_abandoned(&mut self) -> Result<(), ExecuteError> {
        if self.sql.is_at_rest() {
            return Ok(());
        }
        let ended = self.sql.roll_back().and_then(|()| self.sql.switch_back());
        if let Err(error) = ended {
            return Err(self.poison(error).into());
        }
        let mut wal = self.lock()?;
        if wal.take_sealed().is_some() {
            wal.invalidate();
        }
        Ok(())
    }

    /// Leaves the connection without a transaction and takes what was committed.
    fn settle(
        &mut self,
        ran: Result<(), RunError>,
        control: &Control,
    ) -> Result<Option<(TransactionBuilder, u32)>, ExecuteError> {
        let rolled_back = if ran.is_err() {
            self.sql.roll_back()
        } else {
            Ok(())
        };
        if let Err(error) = rolled_back.and_then(|()| self.sql.switch_back()) {
            return Err(self.poison(error).into());
        }
        let sealed = self.lock()?.take_sealed();
        match ran {
            Ok(()) => Ok(sealed),
            Err(error) => {
                if sealed.is_some() {
                    // SQLite believes it committed; what its cache holds will never be.
                    self.lock()?.invalidate();
                }
                Err(self.execute_error(error, control))
            }
        }
    }

    fn run_transaction<S: ResultSink>(
        &mut self,
        rules: Rules,
        statements: &[Statement],
        control: &Control,
        sink: &mut S,
    ) -> Result<(), RunError> {
        let pages = self.tip.page_count();
        let limits = &self.shared.options.limits;
        let statement_bytes_max = match rules {
            Rules::Request => limits.sql_length,
            Rules::Script => limits.script_sql_length(),
        };
        let connection = self.sql.connection();
        connection.set_statement_bytes_max(statement_bytes_max);
        self.sql.heed_head(statements);
        self.sql.begin_write().map_err(RunError::Storage)?;
        let wal = Arc::clone(&self.wal);
        let terms = Terms {
            access: Access::Write,
            rules,
            control,
            pages_known: &|| pages,
            between: &|| {
                // After a panic inside of it the next statement fails on its own.
                if let Ok(mut wal) = wal.lock() {
                    wal.release_savepoints();
                }
            },
        };
        let Ran { count, unended } = self.sql.run(statements, terms, sink)?;
        self.sql.commit(count - 1)?;
        if let Some(last) = unended {
            let sealed = self.lock().map_err(RunError::Storage)?.sealed_pages();
            last.end(sealed.unwrap_or(pages), sink)?;
        }
        Ok(())
    }

    /// Makes the record of a transaction that SQLite has committed into the overlay.
    fn record(
        &mut self,
        base: Position,
        mut pages: TransactionBuilder,
        pages_after: u32,
        stamp: &Stamp,
        answer: &[u8],
    ) -> Result<Transaction, ExecuteError> {
        self.fill_growth(&mut pages, pages_after);
        let images = (0..pages.image_count()).map(|index| pages.image(index));
        let change = Change::new(images, pages_after);
        self.tip.advance(&self.hashes, &change);
        let next = Position {
            epoch: base.epoch,
            seq: Seq(base.seq.max(stamp.after).0 + 1),
            checksum: self.tip.checksum(),
        };
        let header = TransactionHeader {
            database: self.shared.id,
            base,
            next,
            request: stamp.request,
            proposed_at_ms: stamp.proposed_at_ms,
            pages_after,
        };
        let bytes = pages.byte_count();
        let transaction = match pages.finish(header, answer) {
            Ok(transaction) => transaction,
            Err(_) => {
                self.lock()?.invalidate();
                self.tip = Ahead::after(&self.hashes, &self.changes);
                return Err(ExecuteError::TooLarge {
                    bytes,
                    max: PAGES_BYTES_MAX,
                });
            }
        };
        self.changes.push_back(change);
        self.lock()?.push(transaction.clone());
        Ok(transaction)
    }

    /// Every page by which the database grows must be in the record, or copies that once had more pages
    /// would differ from those that never had. SQLite writes them all; this makes sure.
    fn fill_growth(&self, pages: &mut TransactionBuilder, pages_after: u32) {
        if pages_after <= self.tip.page_count() {
            return;
        }
        let grown = (self.tip.page_count() + 1..=pages_after).map(PageNo);
        let missing: Vec<PageNo> = {
            let given: std::collections::HashSet<PageNo> = (0..pages.image_count())
                .map(|index| pages.image(index).0)
                .collect();
            grown
                .filter(|page| *page != LOCK_PAGE && !given.contains(page))
                .collect()
        };
        if missing.is_empty() {
            return;
        }
        for page in missing {
            pages.push(page, &[0; PAGE_SIZE]);
        }
        pages.compact(pages_after);
    }

    /// Flushes all transactions up to `up_to` as one merged WAL transaction: readers see them now.
    pub fn acknowledge(&mut self, up_to: Seq) -> Result<(), EngineError> {
        self.check_poison()?;
        let wal = self.lock()?;
        let count = wal.count_up_to(up_to);
        let Some(last) = count
            .checked_sub(1)
            .and_then(|last| wal.pending().get(last))
        else {
            return Ok(());
        };
        let (next, pages_after) = (last.header().next, last.header().pages_after);
        drop(wal);
        self.journal_before(&next)?;
        self.inject_at(Some(next), pages_after, |wal| wal.flush(count))?;
        for change in self.changes.drain(..count) {
            self.hashes.advance(&change);
        }
        self.settle_tip();
        debug_assert_eq!(self.hashes.checksum(), next.checksum, "hashes went astray");
        Ok(())
    }

    /// Forgets differences of the tip that are none any more.
    ///
    /// Note: an entry must not go one by one when the base arrives at its value. The page may go through
    /// other values among the transactions still pending before it comes back to this one.
    fn settle_tip(&mut self) {
        if self.changes.is_empty() {
            self.tip.settle_all();
        } else if self.tip.changed_count() > self.tip_pages_next_sweep {
            self.tip = Ahead::after(&self.hashes, &self.changes);
            self.tip_pages_next_sweep = TIP_PAGES_SWEPT.max(2 * self.tip.changed_count());
        }
    }

    /// Drops all transactions that await acknowledgement.
    pub fn discard(&mut self) -> Result<(), EngineError> {
        self.check_poison()?;
        self.lock()?.discard();
        self.changes.clear();
        self.tip = Ahead::of(&self.hashes);
        debug_assert_eq!(
            Some(self.tip.checksum()),
            self.acknowledged.map(|at| at.checksum)
        );
        Ok(())
    }

    /// For followers and replicas: checks the chain and every checksum, then injects all transactions
    /// as one WAL transaction. Whatever fails, nothing was applied.
    pub fn apply(&mut self, transactions: &[Transaction]) -> Result<Position, ApplyError> {
        self.check_poison()?;
        let database = self.shared.id;
        let current = self
            .acknowledged
            .ok_or(ApplyError::Storage(EngineError::Unidentified { database }))?;
        let count = self.lock()?.pending().len();
        if count > 0 {
            return Err(ApplyError::Pending { database, count });
        }
        let kept =
            transactions.len() - usize::from(!transactions.is_empty() && loses_transaction());
        let transactions = &transactions[..kept];
        let Some(last) = transactions.last() else {
            return Ok(current);
        };
        let changes = match self.verify(transactions, current) {
            Ok(changes) => changes,
            Err(error) => {
                self.tip = Ahead::of(&self.hashes);
                return Err(error);
            }
        };
        let next = last.header().next;
        self.journal_before(&next)?;
        self.inject_at(Some(next), last.header().pages_after, |wal| {
            wal.inject(transactions)
        })?;
        for change in &changes {
            self.hashes.advance(change);
        }
        self.tip.settle_all();
        debug_assert_eq!(self.hashes.checksum(), next.checksum, "hashes went astray");
        Ok(next)
    }

    /// Follows `transactions` with the tip's hashes and checks what they promise.
    fn verify(
        &mut self,
        transactions: &[Transaction],
        mut current: Position,
    ) -> Result<Vec<Change>, ApplyError> {
        let database = self.shared.id;
        let mut changes = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let header = transaction.header();
            if header.database != database {
                return Err(ApplyError::Foreign {
                    got: header.database,
                    expected: database,
                });
            }
            if header.base != current {
                return Err(ApplyError::Base {
                    database,
                    base: header.base,
                    current,
                });
            }
            let change = Change::of(transaction);
            self.tip.advance(&self.hashes, &change);
            let computed = self.tip.checksum();
            if computed != header.next.checksum {
                return Err(ApplyError::Checksum {
                    database,
                    next: header.next,
                    computed,
                });
            }
            current = header.next;
            changes.push(change);
        }
        Ok(changes)
    }

    /// Only while unidentified: injects page images unconditionally, and returns the position once the
    /// content matches it. Start with the first transaction after [`Owner::durable`], in order.
    ///
    /// Page images are idempotent: on whatever state between the durable one and the end of the log the
    /// files are, each transaction that the state already holds is written over with what comes later
    /// anyway, and from the state's own transaction on the content is what the log says. Once
    /// identified this does nothing: go on with [`Owner::apply`].
    pub fn replay(&mut self, transaction: &Transaction) -> Result<Option<Position>, EngineError> {
        self.check_poison()?;
        if self.acknowledged.is_some() || transaction.header().database != self.shared.id {
            return Ok(self.acknowledged);
        }
        let TransactionHeader {
            next, pages_after, ..
        } = *transaction.header();
        let change = Change::of(transaction);
        self.tip.advance(&self.hashes, &change);
        let fits = self.tip.checksum() == next.checksum && !self.is_marked;
        let position = fits.then_some(next);
        self.journal_before(&next)?;
        let transactions = std::slice::from_ref(transaction);
        self.inject_at(position, pages_after, |wal| wal.inject(transactions))?;
        self.hashes.advance(&change);
        self.tip.settle_all();
        self.set_up()?;
        Ok(self.acknowledged)
    }

    fn journal_before(&mut self, next: &Position) -> Result<(), EngineError> {
        fail_point!("engine-before-journal");
        if let Err(error) = self.journal.append(next) {
            return Err(self.poison(error));
        }
        fail_point!("engine-before-inject");
        Ok(())
    }

    /// Changes the WAL file with `write` and tells readers which position the new snapshot is.
    fn inject_at(
        &mut self,
        position: Option<Position>,
        pages_after: u32,
        write: impl FnOnce(&mut Overlay) -> Result<crate::ffi::WalKey, Code>,
    ) -> Result<(), EngineError> {
        let injecting = self.shared.inject();
        let written = write(&mut *self.lock()?);
        let key = match written {
            Ok(key) => key,
            Err(code) => {
                drop(injecting);
                let doing = "write to the WAL";
                let message = code.name().to_owned();
                return Err(self.poison(EngineError::Sqlite {
                    doing,
                    message,
                    code: code.0,
                }));
            }
        };
        self.shared.record(key, position, pages_after);
        drop(injecting);
        self.acknowledged = position;
        self.wal_frames = key.frames();
        fail_point!("engine-after-inject");
        Ok(())
    }

    /// Copies acknowledged pages from the WAL to the database file and syncs it. Transactions that
    /// await acknowledgement are not in the WAL and stay where they are.
    pub fn checkpoint(&mut self, mode: CheckpointMode) -> Result<CheckpointReport, EngineError> {
        self.check_poison()?;
        fail_point!("engine-before-checkpoint");
        let mode = match mode {
            CheckpointMode::Passive => libsql_ffi::SQLITE_CHECKPOINT_PASSIVE,
            CheckpointMode::Restart => libsql_ffi::SQLITE_CHECKPOINT_RESTART,
            CheckpointMode::Truncate => libsql_ffi::SQLITE_CHECKPOINT_TRUNCATE,
        };
        // A truncating checkpoint gives the WAL a new generation, visible before it is recorded.
        let injecting = self.shared.inject();
        let done = self.sql.connection().checkpoint(mode);
        let key = match self.lock()?.inner() {
            Ok(inner) => inner.key(),
            Err(_) => return Err(self.no_wal()),
        };
        self.shared
            .record(key, self.acknowledged, self.hashes.page_count());
        drop(injecting);
        let (busy, counts) = match done {
            Ok(done) => done,
            Err(code) => {
                let error = engine_error(self.sql.connection(), code, "checkpoint");
                return Err(self.poison(error));
            }
        };
        fail_point!("engine-after-checkpoint");
        self.wal_frames = key.frames();
        let frames = u32::try_from(counts.frames).ok();
        let backfilled = u32::try_from(counts.backfilled).ok();
        let complete = frames.is_some() && frames == backfilled;
        let durable = self.acknowledged.filter(|_| complete);
        if let Some(durable) = durable
            && let Err(error) = self.journal.rewrite(durable)
        {
            return Err(self.poison(error));
        }
        fail_point!("engine-after-rewrite");
        Ok(CheckpointReport {
            wal_frames: frames.unwrap_or(0),
            backfilled: backfilled.unwrap_or(0),
            busy,
            durable,
        })
    }

    /// Frames in the WAL file's current generation.
    pub fn wal_frames(&self) -> u32 {
        self.wal_frames
    }

    /// Bytes of transactions that await acknowledgement.
    pub fn overlay_bytes(&self) -> usize {
        self.wal.lock().map_or(0, |wal| wal.bytes())
    }

    /// The last position known to be durable in the database file: the log may be purged up to here.
    /// While unidentified: where a replay has to start.
    pub fn durable(&self) -> Position {
        self.journal.durable()
    }

    /// The hash of every page of the acknowledged state, page 1 first, as read at open and kept up to
    /// date since; of an unidentified state too. For finding the pages in which two copies differ.
    pub fn page_hashes(&self) -> &[u64] {
        self.hashes.as_slice()
    }

    /// Reads a page as the files hold it, without what awaits acknowledgement; of an unidentified state
    /// too.
    pub fn page(&mut self, page: PageNo, into: &mut [u8; PAGE_SIZE]) -> Result<(), EngineError> {
        let mut wal = self.lock()?;
        let inner = wal.inner().map_err(|_| self.no_wal())?;
        let read = inner.begin_read().and_then(|_| {
            let read = inner.read_page(page, into);
            inner.end_read();
            read
        });
        read.map_err(|code| EngineError::Sqlite {
            doing: "read a page",
            message: code.name().to_owned(),
            code: code.0,
        })
    }

    /// Why it refuses everything, once a write or sync has failed.
    pub fn failure(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// Closes the connection. Transactions that await acknowledgement are dropped.
    pub fn close(self) {}

    /// Makes the settings that need a readable schema, once the content is known to be good.
    fn set_up(&mut self) -> Result<(), EngineError> {
        if self.is_set_up || self.acknowledged.is_none() {
            return Ok(());
        }
        self.sql.set_cache(self.shared.options.cache_kib)?;
        self.is_set_up = true;
        Ok(())
    }

    fn execute_error(&mut self, error: RunError, control: &Control) -> ExecuteError {
        let too_large = self
            .wal
            .lock()
            .ok()
            .and_then(|mut wal| wal.take_too_large());
        if let Some(bytes) = too_large {
            return ExecuteError::TooLarge {
                bytes,
                max: PAGES_BYTES_MAX,
            };
        }
        match error {
            RunError::Sql(error) => error.into(),
            RunError::Answer(limit) => limit.into(),
            RunError::Budget => ExecuteError::Budget {
                steps_max: control.steps_max.unwrap_or_default(),
            },
            RunError::Deadline => ExecuteError::Deadline,
            RunError::Storage(error) => error.into(),
            RunError::NotReadOnly { statement } => EngineError::Sqlite {
                doing: "write",
                message: format!("statement {statement} found the database read-only"),
                code: Code::READONLY,
            }
            .into(),
        }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Overlay>, EngineError> {
        // A poisoned lock: a panic inside a callback.
        self.wal.lock().map_err(|_| EngineError::Poisoned {
            database: self.shared.id,
            reason: "a panic inside the WAL".to_owned(),
        })
    }

    fn check_poison(&self) -> Result<(), EngineError> {
        match &self.poison {
            None => Ok(()),
            Some(reason) => Err(EngineError::Poisoned {
                database: self.shared.id,
                reason: reason.clone(),
            }),
        }
    }

    fn poison(&mut self, error: EngineError) -> EngineError {
        tracing::error!(database = %self.shared.id, %error, "database closed to writes");
        self.poison.get_or_insert_with(|| {
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        });
        error
    }

    fn no_wal(&self) -> EngineError {
        EngineError::Poisoned {
            database: self.shared.id,
            reason: "the connection has no WAL".to_owned(),
        }
    }
}

/// Never, but where a test wants to see that it is noticed: a transaction is lost on its way.
fn loses_transaction() -> bool {
    fail_point!("sabotage::transaction", |_| true);
    false
}

#[cfg(test)]
mod tests;
