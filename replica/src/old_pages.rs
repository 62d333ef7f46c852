//! The pages a copy has before it is resynchronised: what need not be sent again.
//!
//! Nothing here is trusted. Every page is named by the hash of its bytes as they lie there, the source
//! compares that with its own, and the page is hashed again when it is copied over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tidemark_engine::{EngineError, Snapshot, page_hash};
use tidemark_protocol::{PAGE_SIZE, PageNo};

/// The engine's name for a database's main file, which is read here only while the engine has it
/// closed because its content is not a state that the engine would answer for.
const MAIN_FILE: &str = "main.db";

/// Where old pages come from.
#[derive(Debug)]
pub(crate) enum OldPages {
    /// Nowhere.
    None,
    /// A committed state of an open database.
    Snapshot(Box<Snapshot>),
    /// A damaged file. Pages that only its WAL holds will be sent again.
    File {
        /// The main file.
        file: File,
        /// Whole pages in it.
        page_count: u32,
    },
}

/// An old page could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OldPagesError {
    /// From a snapshot.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// From a file.
    #[error("read the old {MAIN_FILE}")]
    Io(#[from] io::Error),
}

impl OldPages {
    /// The pages of the closed database in `directory`.
    pub(crate) fn file(directory: &Path) -> Result<Self, OldPagesError> {
        let file = match File::open(directory.join(MAIN_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::None),
            Err(error) => return Err(error.into()),
        };
        let pages = file.metadata()?.len() / PAGE_SIZE as u64;
        Ok(Self::File {
            file,
            page_count: u32::try_from(pages).unwrap_or(u32::MAX),
        })
    }

    /// The hash of each page, page 1 first.
    pub(crate) fn hashes(&mut self) -> Result<Vec<u64>, OldPagesError> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Snapshot(snapshot) => Ok(snapshot.hashes()?),
            Self::File { page_count, .. } => {
                let last = *page_count;
                let mut image = [0; PAGE_SIZE];
                let mut hashes = Vec::with_capacity(last as usize);
                for number in 1..=last {
                    self.page(PageNo(number), &mut image)?;
                    hashes.push(page_hash(PageNo(number), &image));
                }
                Ok(hashes)
            }
        }
    }

    /// Reads one page.
    pub(crate) fn page(
        &mut self,
        page: PageNo,
        into: &mut [u8; PAGE_SIZE],
    ) -> Result<(), OldPagesError> {
        match self {
            Self::None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
            Self::Snapshot(snapshot) => Ok(snapshot.page(page, into)?),
            Self::File { file, .. } => {
                let offset = u64::from(page.0.saturating_sub(1)) * PAGE_SIZE as u64;
                Ok(file.read_exact_at(into, offset)?)
            }
        }
    }
}
