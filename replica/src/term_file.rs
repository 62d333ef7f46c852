//! The newest term this node has seen, on disk: `data/term`, the number in decimal and a newline.
//!
//! A source of an older term is a deposed primary that may ship what was never committed, so the term
//! is durable before anything that came under it is applied. Written as a whole: temporary file, fsync,
//! rename, fsync of the directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemark_protocol::Term;

const FILE: &str = "term";
const TEMPORARY: &str = "term.new";

/// The newest term seen. Only grows.
#[derive(Debug)]
pub(crate) struct TermFile {
    directory: PathBuf,
    /// What is on disk.
    newest: AtomicU64,
    /// Held while the file is written.
    writing: Mutex<()>,
}

impl TermFile {
    /// Reads the file in `directory`; none means that no term was seen yet.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        let newest = match fs::read_to_string(directory.join(FILE)) {
            Ok(text) => text.trim_end().parse().map_err(|_| {
                let reason = format!("file '{FILE}' holds '{}', not a term", text.trim_end());
                io::Error::new(io::ErrorKind::InvalidData, reason)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self {
            directory,
            newest: AtomicU64::new(newest),
            writing: Mutex::new(()),
        })
    }

    /// The newest term seen.
    pub(crate) fn newest(&self) -> Term {
        Term(self.newest.load(Ordering::Acquire))
    }

    /// Makes `term` durable, unless a newer one is. Blocks.
    pub(crate) fn raise(&self, term: Term) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if term <= self.newest() {
            return Ok(());
        }
        let temporary = self.directory.join(TEMPORARY);
        let mut file = File::create(&temporary)?;
        writeln!(file, "{}", term.0)?;
        file.sync_all()?;
        fail::fail_point!("replica::before_term");
        fs::rename(&temporary, self.directory.join(FILE))?;
        File::open(&self.directory)?.sync_all()?;
        self.newest.store(term.0, Ordering::Release);
        Ok(())
    }
}

/// Looks at the file in the directory of a replica that does not run.
pub fn inspect(directory: &std::path::Path) -> Vec<tidemark_engine::Finding> {
    let path = directory.join(FILE);
    match TermFile::open(directory.to_owned()) {
        Ok(_) => Vec::new(),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let finding = tidemark_engine::Finding::damage(&path, 0, error.to_string(), "a number");
            vec![finding]
        }
        Err(error) => vec![tidemark_engine::Finding::unread(&path, &error)],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn term_only_grows_and_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let open = || TermFile::open(directory.path().to_owned());
        assert_eq!(open().unwrap().newest(), Term(0));
        let terms = open().unwrap();
        terms.raise(Term(7)).unwrap();
        terms.raise(Term(3)).unwrap();
        assert_eq!(terms.newest(), Term(7));
        assert_eq!(open().unwrap().newest(), Term(7));
    }

    #[test]
    fn damaged_file_is_an_error_not_term_zero() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "x7").unwrap();
        let error = TermFile::open(directory.path().to_owned()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
