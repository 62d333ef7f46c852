//! The files of a voter, looked at while no process has them open, and without changing them: the log and `applied`,
//! `chain`, and the remembered requests of each database. Databases themselves are the engine's to look at.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use tidemark_engine::Finding;
use tidemark_protocol::{DatabaseId, NodeId, Position};

use crate::chain::Chain;
use crate::consensus::{LogSeen, inspect_log};
use crate::pipeline::Remembered;

/// What was seen of a voter's files.
#[derive(Debug)]
pub struct VoterFiles {
    /// In the order of the files.
    pub findings: Vec<Finding>,
    /// Whole records of the log.
    pub records: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// The other voters of the newest membership in the log, by id: their base URLs.
    pub others: BTreeMap<NodeId, String>,
    /// Where each database stood when the log was last persisted: its files must be there, or further.
    pub durable: HashMap<DatabaseId, Position>,
}

/// Looks at all files of the voter `node` in `directory` but those of databases.
pub fn inspect(directory: &Path, node: NodeId) -> VoterFiles {
    let LogSeen {
        mut findings,
        records,
        bytes,
        others,
        manifest,
    } = inspect_log(directory, node);
    let path = directory.join("chain");
    let durable = sound(&path, &mut findings, Chain::decode);
    if let Some(manifest) = manifest {
        findings.extend(older(&path, durable.as_ref(), &manifest));
    }
    VoterFiles {
        findings,
        records,
        log_bytes: bytes,
        others,
        durable: durable.map_or_else(HashMap::default, |chain| chain.positions),
    }
}

/// The chain is written before `applied`, which holds its bytes of then: it is there, and no older.
fn older(path: &Path, chain: Option<&Chain>, manifest: &[u8]) -> Option<Finding> {
    let least = Chain::decode(manifest).ok()?.index;
    let expected = format!("one of entry {least:?} or later, as `applied` has it");
    match chain {
        Some(chain) if chain.index < least => {
            let found = format!("the chain of entry {:?}", chain.index);
            Some(Finding::damage(path, 0, found, expected))
        }
        None if !path.exists() => Some(Finding::damage(path, 0, "no file", expected)),
        _ => None,
    }
}

/// Looks at the remembered requests in a database's directory.
pub fn inspect_requests(directory: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    sound(&directory.join("requests"), &mut findings, |bytes| {
        Remembered::decode(bytes).ok_or("its parts do not fit")
    });
    findings
}

/// Reads a file that ends with the CRC of the rest. No file: nothing to find fault with.
fn sound<T, E: std::fmt::Display>(
    path: &Path,
    findings: &mut Vec<Finding>,
    decode: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Option<T> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            findings.push(Finding::unread(path, &error));
            return None;
        }
    };
    let error = match decode(&bytes) {
        Ok(decoded) => return Some(decoded),
        Err(error) => error,
    };
    let crc = bytes.split_last_chunk::<4>().map(|(covered, crc)| {
        let found = u32::from_le_bytes(*crc);
        (found, crc32fast::hash(covered))
    });
    findings.push(match crc {
        Some((found, expected)) if found != expected => {
            let offset = bytes.len() as u64 - 4;
            let found = format!("CRC {found:08x} of {} bytes", bytes.len());
            Finding::damage(path, offset, found, format!("CRC {expected:08x}"))
        }
        _ => {
            let found = format!("{} bytes: {error}", bytes.len());
            Finding::damage(path, 0, found, "a file of ours")
        }
    });
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::consensus::LogIndex;

    #[test]
    fn a_chain_that_is_missing_or_older_than_applied_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chain");
        let of = |index| Chain {
            index: Some(LogIndex(index)),
            ..Chain::default()
        };
        let manifest = of(5).encode();
        assert!(older(&path, None, &manifest).is_some(), "missing");
        std::fs::write(&path, "what is told already").unwrap();
        assert_eq!(older(&path, None, &manifest), None);
        assert!(older(&path, Some(&of(4)), &manifest).is_some());
        for index in [5, 6] {
            assert_eq!(older(&path, Some(&of(index)), &manifest), None);
        }
    }
}
