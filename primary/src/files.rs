//! Replacing a small file so that a crash leaves the old or the new one, whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes beside, fsyncs, renames over, fsyncs the directory.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().expect("a file in a directory");
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}
