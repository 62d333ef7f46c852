//! Page hashes and the state checksum.
//!
//! The state checksum is the XOR of the hashes of all pages, each seeded with its page number, so that
//! swapped pages do not cancel out. One page has no content by SQLite's file format: the one that holds
//! the lock bytes (at 1 GiB). It is never written and never hashed.

use tidemark_protocol::{PAGE_SIZE, PageNo};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The page SQLite leaves alone because its lock bytes lie there.
pub(crate) const LOCK_PAGE: PageNo = PageNo((1 << 30) / PAGE_SIZE as u32 + 1);

/// The hash of a page: XXH3-64 of the image with the page number as seed. Zero for the lock page.
pub fn page_hash(page: PageNo, image: &[u8; PAGE_SIZE]) -> u64 {
    if page == LOCK_PAGE { 0 } else { xxh3_64_with_seed(image, u64::from(page.0)) }
}
