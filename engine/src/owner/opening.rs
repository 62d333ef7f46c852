//! What the files hold when they are opened: the hashes of their pages, and the position of their content.

use tidemark_protocol::{PAGE_SIZE, PageNo, Position};

use crate::error::OpenError;
use crate::ffi::{Code, InnerWal, VirtualWal, WalKey};
use crate::genesis;
use crate::hash::{PageHashes, page_hash};
use crate::journal::{Found, Journal};
use crate::overlay::Overlay;
use crate::shared::Shared;

/// What comes of hashing all pages.
pub(super) enum Hashed {
    All(PageHashes, WalKey),
    /// The last commit says that there are so many, of which most can be nowhere.
    Absent {
        pages: u32,
        present: u32,
    },
}

/// Hashes every page of the files' current content.
pub(super) fn hash_all(wal: &mut Overlay) -> Result<Hashed, Code> {
    let inner = wal.inner()?;
    inner.begin_read()?;
    let hashed = hash_snapshot(inner);
    inner.end_read();
    hashed
}

fn hash_snapshot(inner: &mut InnerWal) -> Result<Hashed, Code> {
    let (pages, key) = (inner.snapshot_pages()?, inner.key());
    // Nobody ever writes the lock page, all others are in the one or the other. A damaged commit may name any
    // number, and to hash four billion pages that are not there takes hours.
    let written = inner.file_pages()?.saturating_add(key.frames());
    let present = written.saturating_add(1);
    if pages > present {
        return Ok(Hashed::Absent { pages, present });
    }
    let mut hashes = PageHashes::default();
    let mut image = [0; PAGE_SIZE];
    for page in (1..=pages).map(PageNo) {
        inner.read_page(page, &mut image)?;
        hashes.push(page_hash(page, &image));
    }
    Ok(Hashed::All(hashes, key))
}

/// Finds the position of the content, if it is a known one.
pub(super) fn identify(
    shared: &Shared,
    hashes: &PageHashes,
) -> Result<(Journal, Option<Position>), OpenError> {
    let checksum = hashes.checksum();
    let (journal, entries) = match Journal::open(&shared.path, shared.id)? {
        Some(Found { journal, entries }) => (journal, entries),
        // A new database, or a lost journal: then the whole log is needed.
        None => {
            let genesis = genesis::position();
            (
                Journal::create(&shared.path, shared.id, genesis)?,
                vec![genesis],
            )
        }
    };
    // A database can return to an earlier content: it is at the later position then, too.
    let position = entries
        .into_iter()
        .rev()
        .find(|entry| entry.checksum == checksum);
    if position.is_none() {
        tracing::warn!(
            database = %shared.id, %checksum, durable = %journal.durable(),
            "content is at no known position"
        );
    }
    Ok((journal, position))
}
