//! The file that says up to where the databases are durable without the log.
//!
//! Written after every persist and before the log is purged, by replacing it whole. On start, the log is
//! applied from there on. Also carries what raft needs to know at that point: the membership, and the
//! manifest for a peer that is too far behind. Byte table in `docs/formats.md`, under "Log".

use std::io::{self, Write};
use std::path::Path;

use super::cell::{LogId, StoredMembership};
use super::records::{damaged, get_membership, no_flags, put_membership, take};
use super::wire::{get_log_id, put_log_id};
use crate::files;
use bytes::Bytes;

const MAGIC: [u8; 4] = *b"TMAP";
const VERSION: u16 = 1;
/// Bytes before those that the CRC covers.
const HEADER_BYTES: usize = 12;
/// Largest file, manifest and all.
const BYTES_MAX: usize = 64 << 20;
/// Largest manifest: what is around it needs far less than the rest.
pub(super) const MANIFEST_BYTES_MAX: usize = BYTES_MAX - (1 << 20);

/// What is durable without the log.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Applied {
    /// Last entry whose effects are. None: nothing is.
    pub(super) last: Option<LogId>,
    /// Membership as of `last`.
    pub(super) membership: StoredMembership,
    /// The machine's own words about that state.
    pub(super) manifest: Bytes,
}

impl Applied {
    /// Reads the file. No file is the state of a new node.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => Self::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file; it is durable when this returns.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        files::replace(path, &self.encode()?)
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let Self {
            last,
            membership,
            manifest,
        } = self;
        let mut bytes = vec![0; HEADER_BYTES];
        put_log_id(&mut bytes, last.as_ref())?;
        put_log_id(&mut bytes, membership.log_id().as_ref())?;
        put_membership(&mut bytes, membership.membership())?;
        let length = u32::try_from(manifest.len()).map_err(damaged)?;
        bytes.write_all(&length.to_le_bytes())?;
        bytes.write_all(manifest)?;
        if bytes.len() > BYTES_MAX {
            let got = bytes.len();
            return Err(damaged(format!(
                "{got} bytes to write, at most {BYTES_MAX}"
            )));
        }
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let crc = crc32fast::hash(&bytes[HEADER_BYTES..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        if bytes.len() > BYTES_MAX {
            let got = bytes.len();
            return Err(damaged(format!("{got} bytes, at most {BYTES_MAX}")));
        }
        let mut r = bytes;
        let magic: [u8; 4] = take(&mut r)?;
        if magic != MAGIC {
            return Err(damaged(format!(
                "starts with {magic:02x?}, not {MAGIC:02x?}"
            )));
        }
        let version = u16::from_le_bytes(take(&mut r)?);
        if version != VERSION {
            return Err(damaged(format!(
                "has version {version}, this build reads {VERSION}"
            )));
        }
        no_flags(&mut r)?;
        let crc = u32::from_le_bytes(take(&mut r)?);
        let expected = crc32fast::hash(r);
        if crc != expected {
            return Err(damaged(format!(
                "has CRC {crc:08x}, its bytes give {expected:08x}"
            )));
        }
        let last = get_log_id(&mut r)?;
        let membership_at = get_log_id(&mut r)?;
        let membership = StoredMembership::new(membership_at, get_membership(&mut r)?);
        let length = u32::from_le_bytes(take(&mut r)?) as usize;
        if length != r.len() {
            let got = r.len();
            return Err(damaged(format!(
                "manifest of {got} bytes, expected {length}"
            )));
        }
        Ok(Self {
            last,
            membership,
            manifest: Bytes::copy_from_slice(r),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use tidemark_protocol::Incarnation;

    use super::*;
    use crate::consensus::Member;
    use crate::consensus::cell::{CommittedLeaderId, Membership};

    fn sample() -> Applied {
        let at = |term, index| LogId::new(CommittedLeaderId::new(term), index);
        let membership = Membership::new(
            vec![BTreeSet::from([1])],
            BTreeMap::from([(
                1,
                Member {
                    address: "https://one:7443".to_owned(),
                    incarnation: Incarnation(0x1e),
                },
            )]),
        );
        Applied {
            last: Some(at(3, 99)),
            membership: StoredMembership::new(Some(at(1, 0)), membership.expect("valid")),
            manifest: Bytes::from_static(b"manifest"),
        }
    }

    #[test]
    fn file_survives_a_round_trip() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("applied");
        assert_eq!(Applied::read(&path).expect("no file"), Applied::default());
        sample().write(&path).expect("writes");
        assert_eq!(Applied::read(&path).expect("reads"), sample());
        Applied::default().write(&path).expect("writes");
        assert_eq!(Applied::read(&path).expect("reads"), Applied::default());
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let bytes = sample().encode().expect("encodes");
        for cut in 0..bytes.len() {
            assert!(Applied::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(Applied::decode(&bytes).is_err(), "damaged at {at}");
        }
    }
}
