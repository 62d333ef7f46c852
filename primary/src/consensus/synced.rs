//! How far the log was synced, at least: what tells writes that the power took from rot.
//!
//! After each fsync of the log the id of its last entry is written to a small file beside it, over the one before and
//! without a sync of its own. So after a failure of the power the file may be behind, by as long as the system keeps what
//! is not synced, or tell nothing; what it tells is true. Behind that entry a damaged record was perhaps never synced, and
//! is cut off with all that follows ([`super::log_tail`]); before it, it was, and the log is refused.
//!
//! Bytes in `docs/formats.md`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::records::StoredLogId;

const MAGIC: &[u8; 8] = b"TMSYN\0\0\x01";
/// Magic, term, index, CRC: within a sector, so that it is never torn.
const BYTES: usize = 8 + 8 + 8 + 4;

/// The file.
#[derive(Debug)]
pub(super) struct Synced(File);

impl Synced {
    /// What the file beside the log's directory tells. `None`: nothing.
    pub(super) fn read(log: &Path) -> io::Result<Option<StoredLogId>> {
        match std::fs::read(path(log)) {
            Ok(bytes) => Ok(decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has it tell that the log is synced up to here, durably.
    pub(super) fn begin(log: &Path, last: Option<StoredLogId>) -> io::Result<Self> {
        let path = path(log);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        match last {
            Some(last) => file.write_all_at(&encode(last), 0)?,
            None => file.set_len(0)?,
        }
        file.sync_all()?;
        let directory = path.parent().expect("a log lies in a directory");
        File::open(directory)?.sync_all()?;
        Ok(Self(file))
    }

    /// Tells that it is synced up to here.
    pub(super) fn note(&self, last: StoredLogId) {
        // It stays behind then, which is no harm; that the disk fails others will find out.
        let _ = self.0.write_all_at(&encode(last), 0);
    }
}

fn path(log: &Path) -> PathBuf {
    log.with_extension("synced")
}

fn encode(StoredLogId { term, index }: StoredLogId) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&term.to_le_bytes());
    bytes[16..24].copy_from_slice(&index.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<StoredLogId> {
    let number = |from: usize| {
        let bytes = bytes.get(from..from + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let last = StoredLogId {
        term: number(8)?,
        index: number(16)?,
    };
    (bytes == encode(last)).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_last_is_read_and_damage_tells_nothing() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let log = directory.path().join("log");
        assert_eq!(Synced::read(&log).expect("no file"), None);
        let synced = Synced::begin(&log, None).expect("begun");
        assert_eq!(Synced::read(&log).expect("read"), None);
        for index in [5, 3] {
            // Back, too: a follower's log may lose a tail.
            let last = StoredLogId { term: 2, index };
            synced.note(last);
            assert_eq!(Synced::read(&log).expect("read"), Some(last));
        }
        let good = std::fs::read(path(&log)).expect("there");
        assert_eq!(good.len(), BYTES);
        for at in 0..BYTES {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None, "cut at {at}");
        }
    }
}
