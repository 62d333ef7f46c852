//! Which directories this process has open: two owners of the same files would corrupt them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static OPEN: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// A directory marked as open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenDirectory(PathBuf);

impl OpenDirectory {
    /// Marks `canonical` as open. `None` if it is already.
    pub(crate) fn claim(canonical: &Path) -> Option<Self> {
        let fresh = open().get_or_insert_default().insert(canonical.to_owned());
        fresh.then(|| Self(canonical.to_owned()))
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        if let Some(paths) = open().as_mut() {
            paths.remove(&self.0);
        }
    }
}

/// Whether this process has the database in `directory` open: whether an [`crate::Owner`], a
/// [`crate::Database`] or a [`crate::Snapshot`] of it is still alive.
pub fn is_open(directory: &Path) -> bool {
    let Ok(canonical) = directory.canonicalize() else {
        return false;
    };
    open()
        .as_ref()
        .is_some_and(|paths| paths.contains(&canonical))
}

fn open() -> MutexGuard<'static, Option<HashSet<PathBuf>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}
