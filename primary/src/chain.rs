//! Where the chain of each database stood at the last persist: where the fence begins after a restart.
//!
//! The log suffix that is repeated after a restart holds, besides what was applied, transactions that
//! the fence had refused. Judged from the position of the files, which may be later, one of those could
//! pass for a transaction that the files already contain. Judged from the position at which the suffix
//! begins, each meets the verdict it met the first time.
//!
//! File `chain`, little-endian: magic, count, then uuid, epoch, seq and checksum of each database, then
//! the CRC-32 of all that. Replaced whole, before consensus notes that the log may be purged; after a
//! crash in between it is ahead of the log's beginning, and what it already covers is passed over.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use bytes::{Buf, BufMut};
use tidemark_protocol::{DatabaseId, Epoch, Position, Seq, StateChecksum};

const FILE: &str = "chain";
const MAGIC: &[u8; 8] = b"TMCHN\0\0\x01";
const ENTRY_BYTES: usize = 16 + 4 + 8 + 8;

/// Position after the last transaction handed on, per database.
pub(crate) type Chain = HashMap<DatabaseId, Position>;

/// Reads what [`save`] left in a node's directory. Nothing: no persist yet.
pub(crate) fn load(directory: &Path) -> io::Result<Chain> {
    let path = directory.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => decode(&bytes).ok_or_else(|| {
            let text = format!(
                "{} does not hold the positions of databases",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Chain::new()),
        Err(error) => Err(error),
    }
}

/// Makes it durable.
pub(crate) fn save(directory: &Path, chain: &Chain) -> io::Result<()> {
    crate::files::replace(&directory.join(FILE), &encode(chain))
}

fn encode(chain: &Chain) -> Vec<u8> {
    let mut to = Vec::with_capacity(16 + chain.len() * ENTRY_BYTES);
    to.put_slice(MAGIC);
    to.put_u32_le(u32::try_from(chain.len()).expect("fewer databases than that"));
    for (database, position) in chain {
        to.put_slice(&database.to_bytes());
        to.put_u32_le(position.epoch.0);
        to.put_u64_le(position.seq.0);
        to.put_u64_le(position.checksum.0);
    }
    let crc = crc32fast::hash(&to);
    to.put_u32_le(crc);
    to
}

fn decode(bytes: &[u8]) -> Option<Chain> {
    let (mut from, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc.get_u32_le() != crc32fast::hash(from) {
        return None;
    }
    from = from.strip_prefix(MAGIC)?;
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
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn chain_read_back_is_the_same_and_a_damaged_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), Chain::new());
        let chain: Chain = (1..5)
            .map(|n| {
                let position = Position {
                    epoch: Epoch(u32::from(n)),
                    seq: Seq(u64::from(n) << 40),
                    checksum: StateChecksum(!u64::from(n)),
                };
                (DatabaseId::from_bytes([n; 16]), position)
            })
            .collect();
        save(directory.path(), &chain).unwrap();
        assert_eq!(load(directory.path()).unwrap(), chain);
        let path = directory.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for offset in 0..good.len() {
            let mut bad = good.clone();
            bad[offset] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(load(directory.path()).is_err(), "byte {offset}");
            std::fs::write(&path, &good[..offset]).unwrap();
            assert!(load(directory.path()).is_err(), "cut at {offset}");
        }
    }
}
