//! A peer's image on its way into a new file: pages that came, and between them those that are here
//! already.
//!
//! The new file grows in page order beside the old one. What the peer left out, because its hash was
//! right, is copied from the old file and hashed again. Nothing of the old file changes; dropped anywhere,
//! the new one is gone.

use std::path::Path;
use std::sync::Arc;

use tidemark_engine::{EngineError, Prepared, Rebuild, RebuildError, Snapshot, page_hash};
use tidemark_protocol::stream::Pages;
use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Position};

use super::InstallError;
use crate::pipeline::Line;

/// SQLite leaves this page alone (its lock bytes lie there): no image, no hash.
const LOCK_PAGE: u32 = (1 << 30) / 4096 + 1;
/// Most pages of an image that is accepted, 256 GiB: each costs eight bytes of memory meanwhile.
const PAGES_MAX: u32 = 1 << 26;

/// The copy that is here: its pages, and their hashes as the peer got them.
#[derive(Debug, Default)]
pub(super) struct Old {
    pages: OldPages,
    pub(super) hashes: Vec<u64>,
}

/// Where old pages come from. None of them is trusted: each is named by the hash of its bytes as they lie
/// there, and hashed again when it is copied.
#[derive(Debug, Default)]
enum OldPages {
    #[default]
    None,
    /// A committed state.
    Snapshot(Box<Snapshot>),
    /// Files at no known position, which only their owner reads.
    Owner(Arc<Line>),
}

/// A new file in the making.
#[derive(Debug)]
pub(super) struct Assembly {
    database: DatabaseId,
    old: Old,
    rebuild: Rebuild,
    page_count: u32,
    /// All pages before this one are in the new file.
    next: u32,
    fetched: u64,
    kept: u64,
}

/// A peer's state in a file of its own, verified and durable.
#[derive(Debug)]
pub(crate) struct Image {
    pub(super) prepared: Prepared,
    /// Pages that came from the peer.
    pub(super) fetched: u64,
    /// Pages that were here.
    pub(super) kept: u64,
}

impl Image {
    /// The state.
    pub(super) fn position(&self) -> Position {
        self.prepared.position()
    }
}

impl Old {
    /// Of an open database. Blocks: reads every page.
    pub(super) fn of(line: &Arc<Line>) -> Self {
        match Self::of_snapshot(line) {
            Ok(old) => old,
            Err(EngineError::Unidentified { .. }) => Self {
                pages: OldPages::Owner(Arc::clone(line)),
                hashes: line.page_hashes().unwrap_or_default(),
            },
            Err(error) => {
                tracing::warn!(database = %line.id(), %error, "an old copy is of no use");
                Self::default()
            }
        }
    }

    fn of_snapshot(line: &Line) -> Result<Self, EngineError> {
        let mut snapshot = line.database().snapshot()?;
        let hashes = snapshot.hashes()?;
        Ok(Self {
            pages: OldPages::Snapshot(Box::new(snapshot)),
            hashes,
        })
    }

    /// The page and the hash that was sent of it. `None` if it is not here.
    fn page(
        &mut self,
        page: PageNo,
        into: &mut [u8; PAGE_SIZE],
    ) -> Option<Result<u64, EngineError>> {
        let hash = *self.hashes.get(page.0 as usize - 1)?;
        let read = match &mut self.pages {
            OldPages::None => return None,
            OldPages::Snapshot(snapshot) => snapshot.page(page, into),
            OldPages::Owner(line) => line.page(page).map(|image| *into = *image),
        };
        Some(read.map(|()| hash))
    }
}

impl Assembly {
    /// Begins the file in the database's directory.
    pub(super) fn begin(
        database: DatabaseId,
        directory: &Path,
        old: Old,
        position: Position,
        page_count: u32,
    ) -> Result<Self, InstallError> {
        if page_count > PAGES_MAX {
            return Err(InstallError::Pages {
                database,
                got: page_count,
                max: PAGES_MAX,
            });
        }
        let rebuild = Rebuild::begin(directory, database, position, page_count)
            .map_err(|source| InstallError::Rebuild { database, source })?;
        Ok(Self {
            database,
            old,
            rebuild,
            page_count,
            next: 1,
            fetched: 0,
            kept: 0,
        })
    }

    /// Pages that differ.
    pub(super) fn pages(&mut self, pages: &Pages) -> Result<(), InstallError> {
        for (PageNo(page), bytes) in pages.iter() {
            if page < self.next || page > self.page_count {
                return Err(InstallError::Order {
                    database: self.database,
                    page,
                    next: self.next,
                });
            }
            self.keep_before(page)?;
            let written = self.rebuild.write(PageNo(page), bytes);
            written.map_err(|source| self.rebuild_failed(source))?;
            self.next = page + 1;
            self.fetched += 1;
            fail::fail_point!("primary::image_page");
        }
        Ok(())
    }

    /// All that differ are there. Lets go of the old file.
    pub(super) fn finish(mut self) -> Result<Image, InstallError> {
        self.keep_before(self.page_count + 1)?;
        let Self {
            database,
            old,
            rebuild,
            fetched,
            kept,
            ..
        } = self;
        drop(old);
        let prepared = rebuild
            .prepare()
            .map_err(|source| InstallError::Rebuild { database, source })?;
        Ok(Image {
            prepared,
            fetched,
            kept,
        })
    }

    /// Copies the old pages up to but without `end`.
    fn keep_before(&mut self, end: u32) -> Result<(), InstallError> {
        let database = self.database;
        let mut bytes = [0; PAGE_SIZE];
        for page in self.next..end {
            let number = PageNo(page);
            if page == LOCK_PAGE {
                continue;
            }
            let hash = self.old.page(number, &mut bytes);
            let hash = hash.ok_or(InstallError::Missing { database, page })?;
            let hash = hash.map_err(|source| InstallError::Old { database, source })?;
            if page_hash(number, &bytes) != hash {
                return Err(InstallError::Changed { database, page });
            }
            let written = self.rebuild.write(number, &bytes);
            written.map_err(|source| self.rebuild_failed(source))?;
            self.kept += 1;
        }
        self.next = self.next.max(end);
        Ok(())
    }

    fn rebuild_failed(&self, source: RebuildError) -> InstallError {
        InstallError::Rebuild {
            database: self.database,
            source,
        }
    }
}
