//! The files of a database directory, and the one way to replace one of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::EngineError;

/// The database file.
pub(crate) const MAIN: &str = "main.db";
/// SQLite's WAL beside it.
pub(crate) const WAL: &str = "main.db-wal";
/// SQLite's shared WAL index, if the database is open to other processes.
pub(crate) const SHM: &str = "main.db-shm";
/// The positions journal.
pub(crate) const POSITIONS: &str = "positions";
/// Says, if it is there, that the files beside it are not to be believed, and why.
pub(crate) const DAMAGED: &str = "damaged";
/// A database file under construction.
pub(crate) const MAIN_NEW: &str = "main.db.new";

/// Gives an I/O error its context.
pub(crate) fn at<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> EngineError + 'a {
    move |source| EngineError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Puts a file in place, whole or not at all, and durably: temporary file, sync, rename, sync of the
/// directory.
pub(crate) fn replace(directory: &Path, name: &str, content: &[u8]) -> Result<(), EngineError> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)
        .map_err(at("create", &temporary))?;
    file.write_all(content).map_err(at("write", &temporary))?;
    file.sync_all().map_err(at("sync", &temporary))?;
    rename(directory, &temporary, name)
}

/// Gives a synced file its final name, durably.
pub(crate) fn rename(directory: &Path, from: &Path, name: &str) -> Result<(), EngineError> {
    let target = directory.join(name);
    fs::rename(from, &target).map_err(at("rename to", &target))?;
    sync_directory(directory)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), EngineError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(at("sync", directory))
}

/// Removes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes SQLite's side files: they belong to the database file they lie beside, and to no other.
pub(crate) fn remove_side_files(directory: &Path) -> Result<(), EngineError> {
    for name in [WAL, SHM] {
        remove(&directory.join(name))?;
    }
    sync_directory(directory)
}

/// Marks the database in `directory`, which nobody has open, as one that is at no position, whatever is there, until
/// a whole copy takes its place. What is there stays until then, under other names: it may be the best that is left. A
/// crash on the way leaves the mark at least.
pub fn mark_damaged(directory: &Path, reason: &str) -> Result<(), EngineError> {
    replace(directory, DAMAGED, reason.as_bytes())?;
    for name in [MAIN, WAL, POSITIONS] {
        let from = directory.join(name);
        match fs::rename(&from, set_aside(directory, name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(at("set aside", &from))?,
        }
    }
    remove_side_files(directory)
}

/// Takes the mark away, and what was set aside with it: a whole copy is in its place.
pub(crate) fn unmark(directory: &Path) -> Result<(), EngineError> {
    for name in [MAIN, WAL, POSITIONS] {
        remove(&set_aside(directory, name))?;
    }
    remove(&directory.join(DAMAGED))?;
    sync_directory(directory)
}

fn set_aside(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.{DAMAGED}"))
}

/// Whether the database in `directory` is marked.
pub fn is_marked(directory: &Path) -> bool {
    directory.join(DAMAGED).exists()
}

/// The directory's database file.
pub(crate) fn main_path(directory: &Path) -> PathBuf {
    directory.join(MAIN)
}
