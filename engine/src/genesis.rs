//! The empty database: one constant page, the same on every node for ever.
//!
//! A new database is not made by SQLite, whose first page depends on its version and settings, but
//! from these bytes, so that all copies start from the same position without asking anybody. Every
//! later page arrives through the WAL. The bytes are part of the storage format and never change.

use tidemark_protocol::{Epoch, PAGE_SIZE, PageNo, Position, Seq, StateChecksum};

use crate::hash::page_hash;

/// SQLite 3.47.0, which wrote none of this but is named as the last writer.
const SQLITE_VERSION: u32 = 3_047_000;

/// The page size as the file format has it, less its low byte, which is zero.
const PAGE_SIZE_HIGH: u8 = 0x10;
const _: () = assert!((PAGE_SIZE_HIGH as usize) << 8 == PAGE_SIZE);

/// Page 1 of the empty database: WAL mode, UTF-8, an empty schema.
pub(crate) const PAGE: [u8; PAGE_SIZE] = page();

const fn page() -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    let magic = b"SQLite format 3\0";
    let mut i = 0;
    while i < magic.len() {
        page[i] = magic[i];
        i += 1;
    }
    page[16] = PAGE_SIZE_HIGH; // page size, big-endian
    page[18] = 2; // written through a WAL
    page[19] = 2; // read through a WAL
    page[21] = 64; // payload fractions, fixed by the format
    page[22] = 32;
    page[23] = 32;
    page[27] = 1; // change counter
    page[31] = 1; // pages
    page[47] = 4; // schema format
    page[59] = 1; // UTF-8
    page[95] = 1; // the page count above is valid for this change counter
    let version = SQLITE_VERSION.to_be_bytes();
    let mut i = 0;
    while i < 4 {
        page[96 + i] = version[i];
        i += 1;
    }
    page[100] = 13; // a leaf of a table B-tree, without cells
    page[105] = PAGE_SIZE_HIGH; // where its cells would start
    page
}

/// The position of the empty database.
pub fn position() -> Position {
    Position {
        epoch: Epoch::FIRST,
        seq: Seq::ZERO,
        checksum: StateChecksum(page_hash(PageNo(1), &PAGE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The genesis page is on every disk of every cluster: a change would be another database.
    #[test]
    fn genesis_position_never_changes() {
        assert_eq!(position().to_string(), "1.0:4fecde8dc979e161");
    }
}
