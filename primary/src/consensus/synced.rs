//! How far the log was synced, at least: what tells writes that the power took from rot.
//!
//! After each fsync of the log the offset of its end is written to a small file beside it, over the one before and without
//! a sync of its own. An offset counts the bytes of all segments since the first, as the names of segments do: the log
//! only ever grows, whatever was written to it. So after a failure of the power the file may be behind, by as long as the
//! system keeps what is not synced, or tell nothing; what it tells is true. From that offset on a damaged record was
//! perhaps never synced, and is cut off with all that follows ([`super::log_tail`]); before it, it was, and the log is
//! refused.
//!
//! Bytes in `docs/formats.md`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::records::damaged;

const MAGIC: &[u8; 8] = b"TMSYN\0\0\x02";
/// Version 1 told of an entry, which says nothing of a vote behind it.
const MAGIC_1: &[u8; 8] = b"TMSYN\0\0\x01";
/// Magic, offset, CRC: within a sector, so that it is never torn.
const BYTES: usize = 8 + 8 + 4;
const BYTES_1: usize = 28;

/// The file.
#[derive(Debug)]
pub(super) struct Synced(File);

impl Synced {
    /// What the file beside the log's directory tells. `None`: nothing. [`io::ErrorKind::InvalidData`]: it is damaged.
    pub(super) fn read(log: &Path) -> io::Result<Option<u64>> {
        match std::fs::read(path(log)) {
            Ok(bytes) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has it tell that the log is synced up to this offset, durably.
    pub(super) fn begin(log: &Path, end: u64) -> io::Result<Self> {
        let path = path(log);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        file.write_all_at(&encode(end), 0)?;
        file.set_len(BYTES as u64)?;
        file.sync_all()?;
        let directory = path.parent().expect("a log lies in a directory");
        File::open(directory)?.sync_all()?;
        Ok(Self(file))
    }

    /// Tells that it is synced up to this offset.
    pub(super) fn note(&self, end: u64) {
        // It stays behind then, which is no harm; that the disk fails others will find out.
        let _ = self.0.write_all_at(&encode(end), 0);
    }
}

pub(super) fn path(log: &Path) -> PathBuf {
    log.with_extension("synced")
}

fn encode(end: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&end.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> io::Result<Option<u64>> {
    if bytes.is_empty() || bytes.len() == BYTES_1 && bytes.starts_with(MAGIC_1) {
        return Ok(None);
    }
    let end = bytes.get(8..16).and_then(|end| end.try_into().ok());
    let end = end.map(u64::from_le_bytes);
    match end.filter(|end| bytes == encode(*end)) {
        Some(end) => Ok(Some(end)),
        None => Err(damaged("not an offset and its CRC")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_last_is_read_and_damage_is_noticed() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let log = directory.path().join("log");
        assert_eq!(Synced::read(&log).expect("no file"), None);
        let version_1 = [&MAGIC_1[..], &[7; 20]].concat();
        std::fs::write(path(&log), version_1).expect("written");
        assert_eq!(Synced::read(&log).expect("read"), None);
        let synced = Synced::begin(&log, 9).expect("begun");
        assert_eq!(Synced::read(&log).expect("read"), Some(9));
        synced.note(300);
        assert_eq!(Synced::read(&log).expect("read"), Some(300));
        let good = std::fs::read(path(&log)).expect("there");
        assert_eq!(good.len(), BYTES);
        for at in 0..BYTES {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "bit {bit} of byte {at}");
            }
            assert!(at == 0 || decode(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
