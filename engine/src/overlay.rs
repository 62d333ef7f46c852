//! The owner's WAL: committed transactions stay in memory until they are acknowledged.
//!
//! ```text
//! pages SQLite writes -> current -> sealed -> pending -> (acknowledged) -> libSQL's own WAL
//!                        spills,    COMMIT    the owner      flush: one merged WAL transaction
//!                        savepoints           made a record
//! ```
//!
//! The owner's connection sees all of it, newest first; every other connection sees the last stage
//! only. Nothing uncommitted ever reaches the file, so SQLite's bug with unchecksummed frames after a
//! spill and `ROLLBACK TO` cannot happen here.
//!
//! Invariants:
//!
//! * `latest` maps a page to the newest image of it in `pending`; a page that is not in it is newest in
//!   libSQL's WAL or in the file;
//! * `written` maps a page to its newest image in `current`; it is what an undo has to report;
//! * images of `current` below `fixed` may be needed again by `ROLLBACK TO` and are never replaced.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;

use tidemark_protocol::transaction::{ANSWER_BYTES_MAX, TRANSACTION_BYTES_MAX};
use tidemark_protocol::{PAGE_SIZE, PageNo, Seq, Transaction, TransactionBuilder};

use crate::ffi::{CheckpointCall, Code, InnerWal, PageList, VirtualWal, WalKey};

/// Frame numbers with this bit are ours.
const OVERLAY: u32 = 1 << 31;
/// With this one too: an image of the transaction in hand, else a page number.
const CURRENT: u32 = 1 << 30;
/// Largest page number that fits beside the bits.
const PAGE_MAX: u32 = CURRENT - 1;

/// Bytes a transaction may have while it runs. Twice the record: one that spills between savepoints has several
/// images of a page, until [`Overlay::release_savepoints`] drops the older ones.
const CURRENT_BYTES_MAX: usize = 2 * TRANSACTION_BYTES_MAX;
/// Bytes of pages in a record, leaving room for the recorded answer.
pub(crate) const PAGES_BYTES_MAX: usize = TRANSACTION_BYTES_MAX - ANSWER_BYTES_MAX;

/// Hidden images that are worth dropping, at least.
const HIDDEN_MIN: usize = if cfg!(test) { 4 } else { 1024 };

/// A page's newest image among the pending transactions.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Number of the transaction since the overlay was made.
    serial: u64,
    /// Which of its pages.
    index: usize,
}

/// The owner's WAL.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    inner: Option<InnerWal>,
    /// Transactions that await acknowledgement, oldest first.
    pending: VecDeque<Transaction>,
    /// Serial number of the first of them.
    first_serial: u64,
    latest: HashMap<PageNo, Place>,
    /// Bytes of `pending`.
    bytes: usize,
    /// Pages of the transaction in hand.
    current: Option<TransactionBuilder>,
    written: HashMap<PageNo, usize>,
    /// Per image of `current`: the image of the same page that it hides.
    hidden: Vec<Option<usize>>,
    fixed: usize,
    /// A committed transaction that has no record yet, and its number of pages afterwards.
    sealed: Option<(TransactionBuilder, u32)>,
    /// The connection's page cache holds pages that are no longer true.
    stale: bool,
    /// Bytes at which a transaction was refused.
    too_large: Option<usize>,
}

impl Overlay {
    /// The committed transaction that waits for its record.
    pub(crate) fn take_sealed(&mut self) -> Option<(TransactionBuilder, u32)> {
        self.sealed.take()
    }

    /// Pages of the database after that.
    pub(crate) fn sealed_pages(&self) -> Option<u32> {
        self.sealed.as_ref().map(|(_, pages_after)| *pages_after)
    }

    /// Whether the last failure was a transaction that grew too large, and how large.
    pub(crate) fn take_too_large(&mut self) -> Option<usize> {
        self.too_large.take()
    }

    /// Bytes that await acknowledgement.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Transactions that await acknowledgement, oldest first.
    pub(crate) fn pending(&self) -> &VecDeque<Transaction> {
        &self.pending
    }

    /// Makes the page cache start anew with the next transaction.
    pub(crate) fn invalidate(&mut self) {
        self.stale = true;
    }

    /// Takes the record of what was sealed.
    pub(crate) fn push(&mut self, transaction: Transaction) {
        let serial = self.first_serial + self.pending.len() as u64;
        for (index, (page, _)) in transaction.pages().enumerate() {
            self.latest.insert(page, Place { serial, index });
        }
        self.bytes += transaction.encoded().len();
        self.pending.push_back(transaction);
    }

    /// How many pending transactions are at `up_to` or before.
    pub(crate) fn count_up_to(&self, up_to: Seq) -> usize {
        self.pending
            .partition_point(|transaction| transaction.header().next.seq <= up_to)
    }

    /// No statement runs, and with that none of the savepoints lives that SQLite sets for statements: older
    /// images of a page are needed no more. A file of many statements would pile them up.
    pub(crate) fn release_savepoints(&mut self) {
        self.fixed = 0;
        let Some(current) = &mut self.current else {
            return;
        };
        let hidden = current.image_count() - self.written.len();
        if hidden < HIDDEN_MIN.max(self.written.len() / 4) {
            return;
        }
        let newest: HashSet<usize> = self.written.values().copied().collect();
        current.retain(|index| newest.contains(&index));
        for index in 0..current.image_count() {
            let (page, _) = current.image(index);
            self.written.insert(page, index);
        }
        self.hidden.clear();
        self.hidden.resize(current.image_count(), None);
    }

    /// Drops everything that awaits acknowledgement.
    pub(crate) fn discard(&mut self) {
        self.first_serial += self.pending.len() as u64;
        self.pending.clear();
        self.latest.clear();
        self.bytes = 0;
        self.sealed = None;
        self.stale = true;
    }

    /// Writes the oldest `count` pending transactions to libSQL's WAL as one and forgets them.
    pub(crate) fn flush(&mut self, count: usize) -> Result<WalKey, Code> {
        let flushed: Vec<Transaction> = self.pending.iter().take(count).cloned().collect();
        let key = self.write(&flushed)?;
        self.pending.drain(..count);
        self.first_serial += count as u64;
        let first_serial = self.first_serial;
        self.latest.retain(|_, place| place.serial >= first_serial);
        self.bytes -= flushed
            .iter()
            .map(|transaction| transaction.encoded().len())
            .sum::<usize>();
        Ok(key)
    }

    /// Writes transactions of another node to libSQL's WAL as one.
    pub(crate) fn inject(&mut self, transactions: &[Transaction]) -> Result<WalKey, Code> {
        let key = self.write(transactions)?;
        self.stale = true;
        Ok(key)
    }

    /// One WAL transaction out of several: of each page the last image, none beyond the final size.
    fn write(&mut self, transactions: &[Transaction]) -> Result<WalKey, Code> {
        let Some(last) = transactions.last() else {
            return Err(Code(Code::MISUSE));
        };
        let pages_after = last.header().pages_after;
        let pages: Vec<(PageNo, &[u8; PAGE_SIZE])> = if transactions.len() == 1 {
            last.pages().collect()
        } else {
            let mut newest = HashMap::new();
            for transaction in transactions {
                newest.extend(transaction.pages());
            }
            let mut pages: Vec<_> = newest
                .into_iter()
                .filter(|(page, _)| page.0 <= pages_after)
                .collect();
            pages.sort_unstable_by_key(|(page, _)| *page);
            pages
        };
        let inner = self.inner.as_mut().ok_or(Code(Code::MISUSE))?;
        // Whether the content changed is of no interest: nobody else writes.
        inner.begin_read()?;
        let written = inner.begin_write().and_then(|()| {
            let written = write_frames(inner, &pages, pages_after);
            inner.end_write();
            written
        });
        inner.end_read();
        written.map(|()| inner.key())
    }

    fn refuse(&mut self, bytes: usize) -> Code {
        self.too_large = Some(bytes);
        Code(Code::FULL)
    }

    fn forget_current(&mut self) {
        self.current = None;
        self.written.clear();
        self.hidden.clear();
        self.fixed = 0;
    }
}

/// Writes the pages as one transaction.
fn write_frames(
    inner: &mut InnerWal,
    pages: &[(PageNo, &[u8; PAGE_SIZE])],
    pages_after: u32,
) -> Result<(), Code> {
    // For a test that wants to see that it is noticed: what was verified is not what is written. The pages stay as
    // they are, in frames of their own; where no frame comes, readers stay at the state that they have, and say so.
    fail::fail_point!("sabotage::frames", |_| {
        let mut images = vec![[0; PAGE_SIZE]; pages.len()];
        for ((page, _), image) in pages.iter().zip(&mut images) {
            inner.read_page(*page, image)?;
        }
        let numbers = pages.iter().map(|(page, _)| *page);
        let same: Vec<_> = numbers.zip(&images).collect();
        inner.write_commit(&same, pages_after)
    });
    inner.write_commit(pages, pages_after)
}

impl VirtualWal for Overlay {
    fn inner_slot(&mut self) -> &mut Option<InnerWal> {
        &mut self.inner
    }

    fn begin_read(&mut self) -> Result<bool, Code> {
        let changed = self.inner()?.begin_read()?;
        Ok(mem::take(&mut self.stale) || changed)
    }

    fn find_frame(&mut self, page: PageNo) -> Result<u32, Code> {
        if let Some(index) = self.written.get(&page) {
            let index = u32::try_from(*index).expect("bounded by CURRENT_BYTES_MAX");
            return Ok(OVERLAY | CURRENT | index);
        }
        if self.latest.contains_key(&page) {
            return Ok(OVERLAY | page.0);
        }
        self.inner()?.find_frame(page)
    }

    fn read_frame(&mut self, frame: u32, into: &mut [u8]) -> Result<(), Code> {
        if frame & OVERLAY == 0 {
            return self.inner()?.read_frame(frame, into);
        }
        let image = if frame & CURRENT != 0 {
            let index = (frame & !(OVERLAY | CURRENT)) as usize;
            self.current
                .as_ref()
                .filter(|current| index < current.image_count())
                .map(|current| {
                    let (_, image) = current.image(index);
                    image
                })
        } else {
            let place = self.latest.get(&PageNo(frame & !OVERLAY));
            place.and_then(|place| {
                let nth = usize::try_from(place.serial - self.first_serial).ok()?;
                let (_, image) = self.pending.get(nth)?.page(place.index);
                Some(image)
            })
        };
        // SQLite asks with what `find_frame` just answered, so a miss is a bug of ours.
        let image = image.ok_or(Code(Code::INTERNAL))?;
        let length = into.len().min(PAGE_SIZE);
        into[..length].copy_from_slice(&image[..length]);
        Ok(())
    }

    fn pages(&mut self) -> u32 {
        match self.pending.back() {
            Some(tip) => tip.header().pages_after,
            None => self.inner().map_or(0, InnerWal::pages),
        }
    }

    fn begin_write(&mut self) -> Result<(), Code> {
        self.inner()?.begin_write()
    }

    fn frames(&mut self, pages: PageList<'_>, pages_after: u32, commit: bool) -> Result<(), Code> {
        let mut current = self.current.take().unwrap_or_default();
        for (page, image) in pages {
            if page.0 > PAGE_MAX || current.byte_count() > CURRENT_BYTES_MAX {
                let bytes = current.byte_count();
                self.current = Some(current);
                return Err(self.refuse(bytes));
            }
            if commit {
                // The last images: nothing reads or undoes them one by one any more.
                current.push(page, image);
                continue;
            }
            match self.written.get(&page) {
                Some(index) if *index >= self.fixed => current.replace(*index, image),
                hidden => {
                    self.hidden.push(hidden.copied());
                    self.written.insert(page, current.image_count());
                    current.push(page, image);
                }
            }
        }
        if !commit {
            self.current = Some(current);
            return Ok(());
        }
        current.compact(pages_after);
        if current.byte_count() > PAGES_BYTES_MAX {
            // `written` stays: SQLite rolls back now and must hear of every page that it spilled.
            return Err(self.refuse(current.byte_count()));
        }
        self.forget_current();
        self.sealed = Some((current, pages_after));
        Ok(())
    }

    fn undo(&mut self) -> Vec<PageNo> {
        let pages = self.written.keys().copied().collect();
        self.forget_current();
        pages
    }

    fn savepoint(&mut self) -> u32 {
        self.fixed = self
            .current
            .as_ref()
            .map_or(0, TransactionBuilder::image_count);
        u32::try_from(self.fixed).expect("bounded by CURRENT_BYTES_MAX")
    }

    fn savepoint_undo(&mut self, mark: u32) -> Result<(), Code> {
        let mark = mark as usize;
        if let Some(current) = self.current.as_mut() {
            while self.hidden.len() > mark {
                let (page, _) = current.image(self.hidden.len() - 1);
                match self.hidden.pop().flatten() {
                    Some(older) => self.written.insert(page, older),
                    None => self.written.remove(&page),
                };
            }
            current.truncate(mark);
        }
        self.fixed = self.fixed.min(mark);
        Ok(())
    }

    fn checkpoint(&mut self, call: CheckpointCall) -> Result<(), Code> {
        call.run(self.inner()?)
    }
}

#[cfg(test)]
mod tests;
