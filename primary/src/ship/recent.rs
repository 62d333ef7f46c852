//! Recent transactions in memory: the first source for a follower of the stream.
//!
//! Bounded by bytes over all databases; the oldest go first, whichever database they are of. A
//! follower whose position is no longer here gets the pages that differ instead (see
//! [`super::image`]), which for a copy that is far behind is the shorter way as well. So does every follower
//! that has yet to pass a transaction above [`TRANSACTION_SENT_BYTES_MAX`], which is not held at all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemark_protocol::stream::TRANSACTION_SENT_BYTES_MAX;
use tidemark_protocol::{DatabaseId, Position, Transaction};

/// What follows a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// These, in order, and perhaps more.
    Transactions(Vec<Transaction>),
    /// Nothing: it is the newest.
    UpToDate,
    /// Not here: too old, or not of this history.
    Gap,
}

/// Recent transactions of all databases.
#[derive(Debug)]
pub(crate) struct Recent {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    databases: HashMap<DatabaseId, Run>,
    /// The database of each transaction held, oldest first.
    order: VecDeque<DatabaseId>,
    bytes: usize,
}

/// A chain of transactions of one database that ends in its newest position.
#[derive(Debug)]
struct Run {
    transactions: VecDeque<Transaction>,
    newest: Position,
}

impl Recent {
    /// Holds at most `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            inner: Mutex::default(),
        }
    }

    /// Says where a database stands that was just opened: it is known from here on.
    pub(crate) fn begin(&self, database: DatabaseId, newest: Position) {
        let mut inner = self.lock();
        if inner
            .databases
            .get(&database)
            .is_none_or(|run| run.newest != newest)
        {
            inner.forget(database);
            inner.databases.insert(
                database,
                Run {
                    transactions: VecDeque::new(),
                    newest,
                },
            );
        }
    }

    /// Adds a committed transaction, the next of its database.
    pub(crate) fn push(&self, transaction: Transaction) {
        let header = *transaction.header();
        let bytes = transaction.encoded().len();
        if bytes > self.bytes_max.min(TRANSACTION_SENT_BYTES_MAX) {
            // It must not push out what followers of other databases are about to be sent.
            return self.begin(header.database, header.next);
        }
        let mut inner = self.lock();
        let known = inner.databases.get(&header.database);
        if known.is_some_and(|run| run.newest != header.base) {
            // After a restart the log begins before the files do: the run begins with it.
            inner.forget(header.database);
        }
        let run = inner
            .databases
            .entry(header.database)
            .or_insert_with(|| Run {
                transactions: VecDeque::new(),
                newest: header.base,
            });
        run.newest = header.next;
        run.transactions.push_back(transaction);
        inner.order.push_back(header.database);
        inner.bytes += bytes;
        while inner.bytes > self.bytes_max {
            inner.drop_oldest();
        }
    }

    /// What follows `position`, up to `bytes_max` bytes but at least one transaction.
    pub(crate) fn after(
        &self,
        database: DatabaseId,
        position: Position,
        bytes_max: usize,
    ) -> After {
        let inner = self.lock();
        let Some(run) = inner.databases.get(&database) else {
            return After::Gap;
        };
        if run.newest == position {
            return After::UpToDate;
        }
        let key = (position.epoch, position.seq);
        let start = run.transactions.partition_point(|transaction| {
            let base = transaction.header().base;
            (base.epoch, base.seq) < key
        });
        match run.transactions.get(start) {
            Some(first) if first.header().base == position => {}
            _ => return After::Gap,
        }
        let mut bytes = 0;
        let transactions = run.transactions.range(start..).take_while(|transaction| {
            let before = bytes;
            bytes += transaction.encoded().len();
            before == 0 || bytes <= bytes_max
        });
        After::Transactions(transactions.cloned().collect())
    }

    /// Where a database stands, if it is known.
    pub(crate) fn newest(&self, database: DatabaseId) -> Option<Position> {
        self.lock().databases.get(&database).map(|run| run.newest)
    }

    /// Forgets a deleted database.
    pub(crate) fn forget(&self, database: DatabaseId) {
        self.lock().forget(database);
    }

    /// Bytes held.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn drop_oldest(&mut self) {
        let Some(database) = self.order.pop_front() else {
            return;
        };
        let run = self.databases.get_mut(&database);
        if let Some(transaction) = run.and_then(|run| run.transactions.pop_front()) {
            self.bytes -= transaction.encoded().len();
        }
    }

    fn forget(&mut self, database: DatabaseId) {
        if let Some(run) = self.databases.remove(&database) {
            let bytes: usize = run.transactions.iter().map(|t| t.encoded().len()).sum();
            self.bytes -= bytes;
            self.order.retain(|id| *id != database);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_protocol::{
        Epoch, PAGE_SIZE, PageNo, Seq, StateChecksum, TransactionBuilder, TransactionHeader,
    };

    use super::*;

    fn at(seq: u64) -> Position {
        Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
            checksum: StateChecksum(seq * 7),
        }
    }

    fn transaction(database: DatabaseId, base: u64) -> Transaction {
        let mut builder = TransactionBuilder::new();
        builder.push(PageNo(1), &[0; PAGE_SIZE]);
        let header = TransactionHeader {
            database,
            base: at(base),
            next: at(base + 1),
            request: None,
            proposed_at_ms: 0,
            pages_after: 1,
        };
        builder.finish(header, &[]).expect("a valid record")
    }

    #[test]
    fn position_inside_the_run_is_continued_and_outside_is_a_gap() {
        let a = DatabaseId::from_bytes([1; 16]);
        let b = DatabaseId::from_bytes([2; 16]);
        let one = transaction(a, 0).encoded().len();
        let recent = Recent::new(one * 4);
        recent.begin(a, at(0));
        for base in 0..3 {
            recent.push(transaction(a, base));
        }
        assert_eq!(recent.after(a, at(3), 1 << 20), After::UpToDate);
        let After::Transactions(found) = recent.after(a, at(1), 1 << 20) else {
            panic!("a gap")
        };
        assert_eq!(found.len(), 2);
        let After::Transactions(found) = recent.after(a, at(0), one) else {
            panic!("a gap")
        };
        assert_eq!(found.len(), 1, "bounded by bytes");
        let other = Position {
            checksum: StateChecksum(0),
            ..at(1)
        };
        assert_eq!(
            recent.after(a, other, 1 << 20),
            After::Gap,
            "equal seq, other content"
        );
        assert_eq!(recent.after(b, at(0), 1 << 20), After::Gap);

        // Two more of another database push out the two oldest.
        recent.push(transaction(b, 0));
        recent.push(transaction(b, 1));
        assert_eq!(recent.after(a, at(0), 1 << 20), After::Gap);
        let After::Transactions(found) = recent.after(a, at(1), 1 << 20) else {
            panic!("a gap")
        };
        assert_eq!(found.len(), 2);
        assert!(recent.bytes() <= one * 4);

        recent.forget(a);
        assert_eq!(recent.after(a, at(3), 1 << 20), After::Gap);
        assert_eq!(recent.bytes(), one * 2);
    }

    #[test]
    fn a_transaction_beyond_the_bound_is_a_gap_and_pushes_nothing_out() {
        let a = DatabaseId::from_bytes([1; 16]);
        let b = DatabaseId::from_bytes([2; 16]);
        let recent = Recent::new(transaction(a, 0).encoded().len());
        recent.push(transaction(a, 0));
        let mut pages = TransactionBuilder::new();
        for page in 1..=2 {
            pages.push(PageNo(page), &[0; PAGE_SIZE]);
        }
        let header = TransactionHeader {
            pages_after: 2,
            ..*transaction(b, 0).header()
        };
        recent.push(pages.finish(header, &[]).expect("a valid record"));
        assert_eq!(recent.after(b, at(0), 1 << 20), After::Gap);
        assert_eq!(recent.after(b, at(1), 1 << 20), After::UpToDate);
        let kept = recent.after(a, at(0), 1 << 20);
        assert!(matches!(kept, After::Transactions(_)), "{kept:?}");
    }
}
