//! A fresh database file beside the old one, from pages of any source, for a copy that cannot be
//! repaired by replaying the log.
//!
//! Nothing of the old database changes before the new content is complete, verified against the target
//! position and synced. Then, in this order: the old WAL goes (it belongs to the old file), the new file
//! takes its place, the journal is started anew. A crash in between leaves the old file without its WAL,
//! or the new file with the old journal: in both cases the next open finds an unidentified content, or a
//! state that the old journal knows, and never a wrong one; the rebuild is done again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Position, StateChecksum};

use crate::error::RebuildError;
use crate::files::{self, MAIN, MAIN_NEW, at};
use crate::hash::page_hash;
use crate::journal::Journal;
use crate::registry::OpenDirectory;

/// A database file under construction beside the old one. Dropped without [`Rebuild::install`] it
/// leaves the old files as they were.
#[derive(Debug)]
pub struct Rebuild {
    directory: PathBuf,
    path: PathBuf,
    id: DatabaseId,
    target: Position,
    page_count: u32,
    file: File,
    /// XOR of the hashes of the pages in the file, per last written image.
    checksum: StateChecksum,
    /// The hash of each page written; zero for one that is missing.
    hashes: Vec<u64>,
    is_prepared: bool,
}

impl Rebuild {
    /// Starts a file of `page_count` pages that is to hold the state `target`.
    pub fn begin(
        directory: &Path,
        id: DatabaseId,
        target: Position,
        page_count: u32,
    ) -> Result<Self, RebuildError> {
        std::fs::create_dir_all(directory).map_err(at("create", directory))?;
        let directory = std::fs::canonicalize(directory).map_err(at("resolve", directory))?;
        let path = directory.join(MAIN_NEW);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(at("create", &path))?;
        let bytes = u64::from(page_count) * PAGE_SIZE as u64;
        file.set_len(bytes).map_err(at("size", &path))?;
        Ok(Self {
            directory,
            path,
            id,
            target,
            page_count,
            file,
            checksum: StateChecksum::default(),
            hashes: vec![0; page_count as usize],
            is_prepared: false,
        })
    }

    /// Writes a page, in any order; a page written again replaces the first image.
    pub fn write(&mut self, page: PageNo, image: &[u8; PAGE_SIZE]) -> Result<(), RebuildError> {
        let index = (page.0 as usize).wrapping_sub(1);
        let page_count = self.page_count;
        let hash = self.hashes.get_mut(index).ok_or(RebuildError::Page {
            page: page.0,
            page_count,
        })?;
        let offset = index as u64 * PAGE_SIZE as u64;
        self.file
            .write_all_at(image, offset)
            .map_err(at("write", &self.path))?;
        let new = page_hash(page, image);
        self.checksum.0 ^= *hash ^ new;
        *hash = new;
        Ok(())
    }

    /// Hash of each page written so far, page 1 first; zero for one that is missing.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Verifies the content and makes it durable beside the old, which may still be open.
    pub fn prepare(mut self) -> Result<Prepared, RebuildError> {
        let computed = self.checksum;
        if computed != self.target.checksum {
            return Err(RebuildError::Checksum {
                computed,
                target: self.target,
            });
        }
        self.file.sync_all().map_err(at("sync", &self.path))?;
        self.is_prepared = true;
        Ok(Prepared {
            directory: std::mem::take(&mut self.directory),
            path: std::mem::take(&mut self.path),
            id: self.id,
            target: self.target,
            is_installed: false,
        })
    }

    /// Verifies the content and puts it in place of the old. The database must be closed.
    pub fn install(self) -> Result<(), RebuildError> {
        self.prepare()?.install()
    }
}

impl Drop for Rebuild {
    fn drop(&mut self) {
        if !self.is_prepared {
            discard(&self.path);
        }
    }
}

/// A verified, durable database file that waits to take the place of the old one. It costs no open file.
/// Dropped without [`Prepared::install`] it leaves the old files as they were.
#[derive(Debug)]
pub struct Prepared {
    directory: PathBuf,
    path: PathBuf,
    id: DatabaseId,
    target: Position,
    is_installed: bool,
}

impl Prepared {
    /// The state it holds.
    pub fn position(&self) -> Position {
        self.target
    }

    /// Puts it in place of the old. The database must be closed.
    pub fn install(mut self) -> Result<(), RebuildError> {
        let _claim = OpenDirectory::claim(&self.directory).ok_or_else(|| RebuildError::Open {
            directory: self.directory.clone(),
        })?;
        files::remove_side_files(&self.directory)?;
        if let Some(parent) = self.directory.parent() {
            // A directory that is new must outlive a crash as its file does.
            files::sync_directory(parent)?;
        }
        files::rename(&self.directory, &self.path, MAIN)?;
        self.is_installed = true;
        Journal::create(&self.directory, self.id, self.target)?;
        files::unmark(&self.directory)?;
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.is_installed {
            discard(&self.path);
        }
    }
}

fn discard(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // The next open removes it.
            tracing::warn!(path = %path.display(), %error, "left an unfinished rebuild");
        }
        _ => {}
    }
}
