//! One resynchronisation of one database: hashes out, the pages that differ in, a fresh file.
//!
//! The new file grows beside the old one, in page order: pages that the source sends, and between them
//! the old ones, which the source left out because their hashes were right. Interrupted anywhere, it is
//! dropped and the old file stays as it was; the engine verifies the whole before it takes its place.

use std::path::Path;
use std::sync::Arc;

use tidemark_engine::{Rebuild, RebuildError, page_hash};
use tidemark_protocol::stream::Pages;
use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Position};
use tokio::sync::OwnedSemaphorePermit;

use crate::old_pages::{OldPages, OldPagesError};

/// SQLite leaves this page alone (its lock bytes lie there): no image, no hash.
const LOCK_PAGE: u32 = (1 << 30) / 4096 + 1;
/// Most pages of an image that is accepted, 256 GiB: each costs eight bytes of memory meanwhile.
const PAGES_MAX: u32 = 1 << 26;

/// Why a resynchronisation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResyncError {
    /// The source sent a part of an image that does not belong here.
    #[error("image of database {database}: unexpected {part}")]
    Unexpected {
        /// Which database.
        database: DatabaseId,
        /// Which part.
        part: &'static str,
    },
    /// Pages of an image must ascend.
    #[error("image of database {database} has page {page} where {next} or later is due")]
    Order {
        /// Which database.
        database: DatabaseId,
        /// The page sent.
        page: u32,
        /// The earliest page possible.
        next: u32,
    },
    /// The source left out a page whose hash was not sent to it.
    #[error("image of database {database} leaves out page {page}, which is not here")]
    Missing {
        /// Which database.
        database: DatabaseId,
        /// The page.
        page: u32,
    },
    /// A page of the old file reads differently now.
    #[error("page {page} of database {database} changed while it was resynchronised")]
    Changed {
        /// Which database.
        database: DatabaseId,
        /// The page.
        page: u32,
    },
    /// An old page cannot be read.
    #[error("database {database} cannot be read")]
    Old {
        /// Which database.
        database: DatabaseId,
        /// Why.
        #[source]
        source: OldPagesError,
    },
    /// The new file failed.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

impl ResyncError {
    /// Whether the source broke the protocol, as against our files.
    pub(crate) fn is_of_source(&self) -> bool {
        matches!(
            self,
            Self::Unexpected { .. } | Self::Order { .. } | Self::Missing { .. }
        )
    }
}

/// One resynchronisation, from the hashes to the complete file.
#[derive(Debug)]
pub(crate) struct Resync {
    database: DatabaseId,
    old: OldPages,
    /// Of the old pages, as the source got them.
    hashes: Arc<Vec<u64>>,
    image: Option<Image>,
    /// Pages that came and pages that were kept.
    received: u64,
    kept: u64,
    /// One of the places for databases that resynchronise at once.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Image {
    rebuild: Rebuild,
    position: Position,
    page_count: u32,
    /// All pages before this one are in the new file.
    next: u32,
}

/// A complete new file, to be verified and installed.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) rebuild: Rebuild,
    pub(crate) position: Position,
    pub(crate) received: u64,
    pub(crate) kept: u64,
}

impl Resync {
    /// Starts by hashing the old pages.
    pub(crate) fn begin(
        database: DatabaseId,
        mut old: OldPages,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, ResyncError> {
        let hashes = old
            .hashes()
            .map_err(|source| ResyncError::Old { database, source })?;
        Ok(Self {
            database,
            old,
            hashes: Arc::new(hashes),
            image: None,
            received: 0,
            kept: 0,
            _place: place,
        })
    }

    /// What the source is to be told.
    pub(crate) fn hashes(&self) -> Arc<Vec<u64>> {
        Arc::clone(&self.hashes)
    }

    /// The image begins.
    pub(crate) fn image(
        &mut self,
        directory: &Path,
        position: Position,
        page_count: u32,
    ) -> Result<(), ResyncError> {
        if self.image.is_some() || page_count == 0 || page_count > PAGES_MAX {
            return Err(self.unexpected("begin"));
        }
        let rebuild = Rebuild::begin(directory, self.database, position, page_count)?;
        self.image = Some(Image {
            rebuild,
            position,
            page_count,
            next: 1,
        });
        Ok(())
    }

    /// Whether the image has begun. Parts that come before that are of an earlier one that was given up.
    pub(crate) fn has_begun(&self) -> bool {
        self.image.is_some()
    }

    /// Pages of the image.
    pub(crate) fn pages(&mut self, pages: &Pages) -> Result<(), ResyncError> {
        for (PageNo(page), bytes) in pages.iter() {
            let Some(image) = &self.image else {
                return Err(self.unexpected("pages"));
            };
            if page < image.next || page > image.page_count {
                return Err(ResyncError::Order {
                    database: self.database,
                    page,
                    next: image.next,
                });
            }
            self.keep_before(page)?;
            let Some(image) = &mut self.image else {
                return Err(self.unexpected("pages"));
            };
            image.rebuild.write(PageNo(page), bytes)?;
            image.next = page + 1;
            self.received += 1;
            fail::fail_point!("replica::image_page");
        }
        Ok(())
    }

    /// The image is complete. Lets go of the old pages.
    pub(crate) fn finish(mut self) -> Result<Complete, ResyncError> {
        let Some(image) = &self.image else {
            return Err(self.unexpected("end"));
        };
        self.keep_before(image.page_count + 1)?;
        let Some(image) = self.image else {
            return Err(ResyncError::Unexpected {
                database: self.database,
                part: "end",
            });
        };
        Ok(Complete {
            rebuild: image.rebuild,
            position: image.position,
            received: self.received,
            kept: self.kept,
        })
    }

    /// Copies the old pages from `next` up to but without `end`.
    fn keep_before(&mut self, end: u32) -> Result<(), ResyncError> {
        let database = self.database;
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let mut bytes = [0; PAGE_SIZE];
        for page in image.next..end {
            let number = PageNo(page);
            if page == LOCK_PAGE {
                continue;
            }
            let Some(hash) = self.hashes.get(page as usize - 1) else {
                return Err(ResyncError::Missing { database, page });
            };
            self.old
                .page(number, &mut bytes)
                .map_err(|source| ResyncError::Old { database, source })?;
            if page_hash(number, &bytes) != *hash {
                return Err(ResyncError::Changed { database, page });
            }
            image.rebuild.write(number, &bytes)?;
            self.kept += 1;
        }
        image.next = end;
        Ok(())
    }

    fn unexpected(&self, part: &'static str) -> ResyncError {
        ResyncError::Unexpected {
            database: self.database,
            part,
        }
    }
}
