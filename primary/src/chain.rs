//! Where the chain of each database stood at the last persist: where the fence begins after a restart.
//!
//! The log suffix that is repeated after a restart holds, besides what was applied, transactions that
//! the fence had refused. Judged from the position of the files, which may be later, one of those could
//! pass for a transaction that the files already contain. Judged from the position at which the suffix
//! begins, each meets the verdict it met the first time.
//!
//! What is repeated may begin before that, though: after a crash between the file and consensus' note of
//! it, or behind a persist that waited for a transaction in parts. So the chain carries the index of the
//! entry behind which it stood, and what comes up to there is passed over unjudged.
//!
//! File `chain`, little-endian: magic, index, count, then uuid, epoch, seq and checksum of each database,
//! then the CRC-32 of all that. Replaced whole, before consensus notes that the log may be purged. The
//! same bytes are the manifest of raft's snapshot: what a voter has to have that starts from here.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, BufMut};
use tidemark_protocol::{DatabaseId, Epoch, Position, Seq, StateChecksum};

use crate::consensus::LogIndex;

const FILE: &str = "chain";
const MAGIC: &[u8; 8] = b"TMCHN\0\0\x02";
const ENTRY_BYTES: usize = 16 + 4 + 8 + 8;

/// Where each database stands behind an entry of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chain {
    /// The entry. None: no log yet.
    pub(crate) index: Option<LogIndex>,
    /// Position after the last transaction handed on, of each database that has any.
    pub(crate) positions: HashMap<DatabaseId, Position>,
}

/// Bytes that are no chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{bytes} bytes do not hold the positions of databases")]
pub(crate) struct ChainError {
    bytes: usize,
}

/// The file. It never goes back: a persist may end after a peer's later state was taken over.
#[derive(Debug)]
pub(crate) struct ChainFile {
    path: PathBuf,
    /// Behind which entry the file stands. Held while it is replaced.
    saved: Mutex<Option<LogIndex>>,
}

impl ChainFile {
    /// Reads what [`ChainFile::save`] left in a node's directory. Nothing: no persist yet.
    pub(crate) fn load(directory: &Path) -> io::Result<(Self, Chain)> {
        let path = directory.join(FILE);
        let chain = match std::fs::read(&path) {
            Ok(bytes) => Chain::decode(&bytes).map_err(|error| {
                let text = format!("{}: {error}", path.display());
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Chain::default(),
            Err(error) => return Err(error),
        };
        let saved = Mutex::new(chain.index);
        Ok((Self { path, saved }, chain))
    }

    /// Makes `bytes`, the chain behind `index`, durable, unless the file is newer.
    pub(crate) fn save(&self, index: Option<LogIndex>, bytes: &[u8]) -> io::Result<()> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if *saved <= index {
            crate::files::replace(&self.path, bytes)?;
            *saved = index;
        }
        Ok(())
    }
}

impl Chain {
    /// Its bytes, in the file and as a manifest.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { index, positions } = self;
        let mut to = Vec::with_capacity(32 + positions.len() * ENTRY_BYTES);
        to.put_slice(MAGIC);
        // Entries count from 0, so that the place after the last one says all.
        to.put_u64_le(index.map_or(0, |LogIndex(index)| index + 1));
        to.put_u32_le(u32::try_from(positions.len()).expect("fewer databases than that"));
        for (database, position) in positions {
            to.put_slice(&database.to_bytes());
            to.put_u32_le(position.epoch.0);
            to.put_u64_le(position.seq.0);
            to.put_u64_le(position.checksum.0);
        }
        let crc = crc32fast::hash(&to);
        to.put_u32_le(crc);
        to
    }

    /// Reads what [`Chain::encode`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        decode(bytes).ok_or(ChainError { bytes: bytes.len() })
    }
}

fn decode(bytes: &[u8]) -> Option<Chain> {
    let (mut from, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc.get_u32_le() != crc32fast::hash(from) {
        return None;
    }
    from = from.strip_prefix(MAGIC)?;
    let index = from.try_get_u64_le().ok()?.checked_sub(1).map(LogIndex);
    let count = from.try_get_u32_le().ok()? as usize;
    if from.len() != count.checked_mul(ENTRY_BYTES)? {
        return None;
    }
    let entries = (0..count).map(|_| {
        let mut database = [0; 16];
        from.copy_to_slice(&mut database);
        let position = Position {
            epoch: Epoch(from.get_u32_le()),
            seq: Seq(from.get_u64_le()),
            checksum: StateChecksum(from.get_u64_le()),
        };
        (DatabaseId::from_bytes(database), position)
    });
    let positions = entries.collect();
    Some(Chain { index, positions })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn chain(index: Option<LogIndex>) -> Chain {
        let positions = (1..5).map(|n| {
            let position = Position {
                epoch: Epoch(u32::from(n)),
                seq: Seq(u64::from(n) << 40),
                checksum: StateChecksum(!u64::from(n)),
            };
            (DatabaseId::from_bytes([n; 16]), position)
        });
        let positions = positions.collect();
        Chain { index, positions }
    }

    #[test]
    fn chain_never_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = ChainFile::load(directory.path()).unwrap();
        let newer = chain(Some(LogIndex(8)));
        file.save(newer.index, &newer.encode()).unwrap();
        let older = Chain::default();
        file.save(older.index, &older.encode()).unwrap();
        assert_eq!(ChainFile::load(directory.path()).unwrap().1, newer);
    }

    #[test]
    fn chain_read_back_is_the_same_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let load = || ChainFile::load(directory.path());
        let (file, empty) = load().unwrap();
        assert_eq!(empty, Chain::default());
        let chain = chain(Some(LogIndex(0)));
        file.save(chain.index, &chain.encode()).unwrap();
        assert_eq!(load().unwrap().1, chain);
        let path = directory.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for offset in 0..good.len() {
            let mut bad = good.clone();
            bad[offset] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(load().is_err(), "byte {offset}");
            std::fs::write(&path, &good[..offset]).unwrap();
            assert!(load().is_err(), "cut at {offset}");
        }
    }
}
