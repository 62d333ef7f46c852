//! Replacing a small file so that a crash leaves the old or the new one, whole; and what a failure of the
//! disk means.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
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

/// Whether `error` comes from a disk that did not only lack room. What was written before is then not to be
/// relied on either, and trying again proves nothing.
///
/// A file that is replaced whole and finds no room leaves the old one as it was.
pub(crate) fn is_broken(error: &(dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let mut of_io = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    of_io.any(|error| {
        !matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("above")]
    struct Above(#[source] io::Error);

    #[test]
    fn a_full_disk_is_not_broken_and_one_with_io_errors_is() {
        let [input_output, no_space, over_quota] = [5, 28, 122].map(io::Error::from_raw_os_error);
        assert!(is_broken(&Above(input_output)));
        assert!(!is_broken(&Above(no_space)));
        assert!(!is_broken(&over_quota));
        assert!(!is_broken(&std::fmt::Error), "no disk in it");
    }
}
