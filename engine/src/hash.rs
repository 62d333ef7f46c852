//! Page hashes and the state checksum.
//!
//! The state checksum is the XOR of the hashes of all pages, each seeded with its page number so that
//! swapped pages do not cancel out. A page that does not exist counts as zero. One page has no content
//! by SQLite's file format: the one that holds the lock bytes (at 1 GiB). It is never written and
//! counts as zero too.

use std::collections::HashMap;

use tidemark_protocol::{PAGE_SIZE, PageNo, StateChecksum, Transaction};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The page SQLite leaves alone because its lock bytes lie there.
pub(crate) const LOCK_PAGE: PageNo = PageNo(262_145);
const _: () = assert!((LOCK_PAGE.0 as usize - 1) * PAGE_SIZE == 1 << 30);

/// The hash of a page: XXH3-64 of the image with the page number as seed. Zero for the lock page.
pub fn page_hash(page: PageNo, image: &[u8; PAGE_SIZE]) -> u64 {
    if page == LOCK_PAGE {
        0
    } else {
        xxh3_64_with_seed(image, u64::from(page.0))
    }
}

/// The hashes of all pages of one state. Eight bytes per page of 4096.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageHashes(Vec<u64>);

impl PageHashes {
    /// Adds the hash of the page after the last.
    pub(crate) fn push(&mut self, hash: u64) {
        self.0.push(hash);
    }

    /// By page number, page 1 first.
    pub(crate) fn as_slice(&self) -> &[u64] {
        &self.0
    }

    /// Number of pages.
    pub(crate) fn page_count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("page numbers are 32 bits wide")
    }

    /// The state checksum they give.
    pub(crate) fn checksum(&self) -> StateChecksum {
        StateChecksum(self.0.iter().fold(0, |sum, hash| sum ^ hash))
    }

    fn get(&self, page: PageNo) -> u64 {
        self.0.get(index(page)).copied().unwrap_or(0)
    }

    fn resize(&mut self, page_count: u32) {
        self.0.resize(page_count as usize, 0);
    }

    fn set(&mut self, page: PageNo, hash: u64) {
        if let Some(slot) = self.0.get_mut(index(page)) {
            *slot = hash;
        }
    }

    /// Follows one transaction.
    pub(crate) fn advance(&mut self, change: &Change) {
        self.resize(change.pages_after);
        for (page, hash) in &change.pages {
            self.set(*page, *hash);
        }
    }
}

/// What one transaction does to the hashes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pages: Vec<(PageNo, u64)>,
    pages_after: u32,
}

impl Change {
    /// Hashes the given pages.
    pub(crate) fn new<'a>(
        pages: impl Iterator<Item = (PageNo, &'a [u8; PAGE_SIZE])>,
        pages_after: u32,
    ) -> Self {
        let pages = pages
            .map(|(page, image)| (page, page_hash(page, image)))
            .collect();
        Self { pages, pages_after }
    }

    /// Hashes a transaction's pages.
    pub(crate) fn of(transaction: &Transaction) -> Self {
        Self::new(transaction.pages(), transaction.header().pages_after)
    }
}

/// A state some transactions ahead of a [`PageHashes`], kept as the difference.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    changed: HashMap<PageNo, u64>,
    page_count: u32,
    checksum: StateChecksum,
}

impl Ahead {
    /// No transaction ahead.
    pub(crate) fn of(base: &PageHashes) -> Self {
        let (page_count, checksum) = (base.page_count(), base.checksum());
        Self {
            changed: HashMap::new(),
            page_count,
            checksum,
        }
    }

    /// Number of pages.
    pub(crate) fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The state checksum.
    pub(crate) fn checksum(&self) -> StateChecksum {
        self.checksum
    }

    fn get(&self, base: &PageHashes, page: PageNo) -> u64 {
        self.changed
            .get(&page)
            .copied()
            .unwrap_or_else(|| base.get(page))
    }

    /// Follows one more transaction.
    pub(crate) fn advance(&mut self, base: &PageHashes, change: &Change) {
        // Pages cut off count as zero from now on, also if the database grows again later.
        for page in (change.pages_after + 1..=self.page_count).map(PageNo) {
            self.checksum.0 ^= self.get(base, page);
            self.changed.insert(page, 0);
        }
        self.page_count = change.pages_after;
        for (page, hash) in &change.pages {
            self.checksum.0 ^= self.get(base, *page) ^ hash;
            self.changed.insert(*page, *hash);
        }
    }

    /// The state `changes` ahead of `base`.
    pub(crate) fn after<'a>(
        base: &PageHashes,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Self {
        let mut ahead = Self::of(base);
        for change in changes {
            ahead.advance(base, change);
        }
        ahead
    }

    /// Pages that differ from the base, or once did.
    pub(crate) fn changed_count(&self) -> usize {
        self.changed.len()
    }

    /// Tells that `base` has caught up.
    pub(crate) fn settle_all(&mut self) {
        self.changed.clear();
    }
}

fn index(page: PageNo) -> usize {
    // Page 0 does not exist and must not alias page 1.
    (page.0 as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(pages: &[(u32, u8)], pages_after: u32) -> Change {
        let images: Vec<(PageNo, [u8; PAGE_SIZE])> = pages
            .iter()
            .map(|&(page, fill)| (PageNo(page), [fill; PAGE_SIZE]))
            .collect();
        Change::new(
            images.iter().map(|(page, image)| (*page, image)),
            pages_after,
        )
    }

    #[test]
    fn swapped_pages_do_not_cancel_out() {
        let mut one = PageHashes::default();
        one.advance(&change(&[(1, 1), (2, 2)], 2));
        let mut other = PageHashes::default();
        other.advance(&change(&[(1, 2), (2, 1)], 2));
        assert_ne!(one.checksum(), other.checksum());
    }

    #[test]
    fn the_lock_page_counts_as_nothing() {
        assert_eq!(page_hash(LOCK_PAGE, &[7; PAGE_SIZE]), 0);
        assert_ne!(page_hash(PageNo(1), &[7; PAGE_SIZE]), 0);
    }

    /// A page goes A, B, A while the first of the three is acknowledged; and pages that were cut off
    /// come back. The difference kept for the tip must always give what the whole would.
    #[test]
    fn the_tip_agrees_with_the_whole_at_every_step() {
        let changes = [
            change(&[(1, 1), (2, 2), (3, 3), (4, 4)], 4),
            change(&[(2, 9)], 4),
            change(&[(1, 5)], 2), // shrinks
            change(&[(2, 2)], 2),
            change(&[(3, 6), (4, 4)], 4), // grows again
            change(&[(2, 9), (3, 3)], 4),
        ];
        for acknowledged in 0..=changes.len() {
            let mut base = PageHashes::default();
            changes[..acknowledged]
                .iter()
                .for_each(|change| base.advance(change));
            let mut ahead = Ahead::of(&PageHashes::default());
            // The tip ran ahead first, acknowledgements followed.
            let mut moving = PageHashes::default();
            for (index, change) in changes.iter().enumerate() {
                ahead.advance(&moving, change);
                if index < acknowledged {
                    moving.advance(change);
                }
            }
            let mut whole = base.clone();
            changes[acknowledged..]
                .iter()
                .for_each(|change| whole.advance(change));
            assert_eq!(
                ahead.checksum(),
                whole.checksum(),
                "{acknowledged} acknowledged"
            );
            let again = Ahead::after(&base, &changes[acknowledged..]);
            assert_eq!(again.checksum(), whole.checksum());
            assert_eq!(again.page_count(), whole.page_count());
        }
    }
}
