//! The positions journal: which states the database files may hold.
//!
//! The file `positions` lists the position that was durable at the last complete checkpoint, then one
//! position per injection since. A database is identified at open by hashing its pages and looking the
//! checksum up here; so an entry is a candidate, never a claim, and may be written lazily:
//!
//! * appended **before** the injection that leads to it, with one write and no sync. After a crash of
//!   the process the operating system still has it. After a power loss the tail may be missing, as may
//!   frames of the WAL: then the content is looked up in vain, and the log is replayed from the first
//!   entry on;
//! * rewritten (temporary file, sync, rename, sync of the directory) **after** a complete checkpoint,
//!   when the database file is synced, to hold only the position that is then durable. A crash between
//!   the two leaves the old list, whose last entry is that same position: nothing is lost but the
//!   knowledge that the log could be shortened.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `TMPO` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | zero |
//! | 8 | 16 | database |
//! | 24 + 24 n | 4 | epoch of entry n |
//! | + 4 | 8 | seq |
//! | + 12 | 8 | state checksum |
//! | + 20 | 4 | CRC-32 of the 20 bytes before |
//!
//! Little-endian. A torn or damaged entry ends the list; what follows it is cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tidemark_protocol::{DatabaseId, Epoch, Position, Seq, StateChecksum};

use crate::error::{EngineError, OpenError};
use crate::files::{self, POSITIONS, at};
use crate::inspect::Finding;

const MAGIC: [u8; 4] = *b"TMPO";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 24;

/// The open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    path: PathBuf,
    id: DatabaseId,
    file: File,
    durable: Position,
    last: Position,
}

/// A journal as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) journal: Journal,
    /// All entries, oldest first; never empty.
    pub(crate) entries: Vec<Position>,
}

impl Journal {
    /// Starts a journal whose only entry is `durable`, in place of any other.
    pub(crate) fn create(
        directory: &Path,
        id: DatabaseId,
        durable: Position,
    ) -> Result<Self, EngineError> {
        files::replace(directory, POSITIONS, &encode(id, &durable))?;
        let path = directory.join(POSITIONS);
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(at("open", &path))?;
        Ok(Self {
            directory: directory.to_owned(),
            path,
            id,
            file,
            durable,
            last: durable,
        })
    }

    /// Opens the journal and cuts off a damaged tail. `None`: there is none that can be read.
    pub(crate) fn open(directory: &Path, id: DatabaseId) -> Result<Option<Found>, OpenError> {
        let path = directory.join(POSITIONS);
        let opened = OpenOptions::new().read(true).append(true).open(&path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(at("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at("read", &path))?;
        if let Some(other) = owner_of(&bytes).filter(|owner| *owner != id) {
            let reason = format!("its journal is of database {other}, expected {id}");
            return Err(OpenError::NotADatabase { path, reason });
        }
        let entries = decode(id, &bytes);
        let (Some(&durable), Some(&last)) = (entries.first(), entries.last()) else {
            return Ok(None);
        };
        let valid = HEADER_BYTES + entries.len() * ENTRY_BYTES;
        if valid < bytes.len() {
            file.set_len(valid as u64)
                .map_err(at("cut the damaged tail of", &path))?;
        }
        let directory = directory.to_owned();
        Ok(Some(Found {
            journal: Self {
                directory,
                path,
                id,
                file,
                durable,
                last,
            },
            entries,
        }))
    }

    /// The position that is durable in the database file.
    pub(crate) fn durable(&self) -> Position {
        self.durable
    }

    /// Notes the position that the next injection leads to.
    pub(crate) fn append(&mut self, position: &Position) -> Result<(), EngineError> {
        if self.last == *position {
            return Ok(());
        }
        self.file
            .write_all(&encode_entry(position))
            .map_err(at("append to", &self.path))?;
        self.last = *position;
        Ok(())
    }

    /// Makes every later append fail.
    #[cfg(test)]
    pub(crate) fn sabotage(&mut self) {
        self.file = File::open(&self.path).expect("the journal is there");
    }

    /// Notes that the database file holds `durable` and is synced: all older entries go.
    pub(crate) fn rewrite(&mut self, durable: Position) -> Result<(), EngineError> {
        if self.durable == durable && self.last == durable {
            return Ok(());
        }
        *self = Self::create(&self.directory, self.id, durable)?;
        Ok(())
    }
}

/// The entries of a journal, without opening it. None if it cannot be read.
pub(crate) fn read(directory: &Path, id: DatabaseId) -> Vec<Position> {
    let bytes = std::fs::read(directory.join(POSITIONS));
    bytes.map_or_else(|_| Vec::new(), |bytes| decode(id, &bytes))
}

/// Most findings that are told of one journal: where nothing fits, each of its entries would be one.
const FINDINGS_MAX: usize = 20;

/// A journal as it lies there, damage and all.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The entries that are whole, oldest first.
    pub(crate) entries: Vec<Position>,
    /// What is wrong: where, what is there, what should be, and whether a crash leaves such.
    wrong: Vec<(usize, String, String, bool)>,
}

/// Looks at the bytes of a journal of this database.
pub(crate) fn survey(id: DatabaseId, bytes: &[u8]) -> Survey {
    let mut survey = Survey {
        entries: Vec::new(),
        wrong: Vec::new(),
    };
    let header = encode(id, &crate::genesis::position());
    let header = &header[..HEADER_BYTES];
    if bytes.get(..HEADER_BYTES) != Some(header) {
        let found = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
        let wrong = (0, format!("{found:02x?}"), format!("{header:02x?}"), false);
        survey.wrong.push(wrong);
    }
    let entries = bytes.get(HEADER_BYTES..).unwrap_or_default();
    for (index, entry) in entries.chunks(ENTRY_BYTES).enumerate() {
        let offset = HEADER_BYTES + index * ENTRY_BYTES;
        let rest = &entries[index * ENTRY_BYTES..];
        if let Some(position) = decode_entry(entry) {
            survey.entries.push(position);
        } else if entry.len() < ENTRY_BYTES || rest.iter().all(|byte| *byte == 0) {
            let found = format!("{} bytes", rest.len());
            let expected = format!("an entry of {ENTRY_BYTES} bytes");
            survey.wrong.push((offset, found, expected, true));
            break;
        } else {
            let found = format!("entry {index} with CRC {:02x?}", &entry[20..]);
            let crc = crc32fast::hash(&entry[..20]).to_le_bytes();
            survey
                .wrong
                .push((offset, found, format!("CRC {crc:02x?}"), false));
        }
    }
    survey
}

impl Survey {
    /// What is wrong with the file at this path.
    pub(crate) fn findings(&self, path: &Path) -> impl Iterator<Item = Finding> {
        self.wrong
            .iter()
            .take(FINDINGS_MAX)
            .map(move |(offset, found, expected, torn)| {
                let finding = Finding::damage(path, *offset as u64, found, expected);
                if *torn { finding.unfinished() } else { finding }
            })
    }
}

fn encode(id: DatabaseId, durable: &Position) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + ENTRY_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&id.to_bytes());
    bytes.extend_from_slice(&encode_entry(durable));
    bytes
}

fn encode_entry(position: &Position) -> [u8; ENTRY_BYTES] {
    let Position {
        epoch,
        seq,
        checksum,
    } = position;
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&epoch.0.to_le_bytes());
    entry[4..12].copy_from_slice(&seq.0.to_le_bytes());
    entry[12..20].copy_from_slice(&checksum.0.to_le_bytes());
    let crc = crc32fast::hash(&entry[..20]);
    entry[20..].copy_from_slice(&crc.to_le_bytes());
    entry
}

/// The database a journal belongs to, if the bytes are one of a version we know.
fn owner_of(bytes: &[u8]) -> Option<DatabaseId> {
    let header = encode(DatabaseId::CATALOGUE, &crate::genesis::position());
    let is_ours = bytes.get(..8)? == &header[..8];
    let id = bytes.get(8..HEADER_BYTES)?.try_into().ok()?;
    is_ours.then(|| DatabaseId::from_bytes(id))
}

/// The valid entries; none if the header is not ours.
fn decode(id: DatabaseId, bytes: &[u8]) -> Vec<Position> {
    let header = encode(id, &crate::genesis::position());
    let Some(entries) = bytes.strip_prefix(&header[..HEADER_BYTES]) else {
        return Vec::new();
    };
    entries
        .chunks_exact(ENTRY_BYTES)
        .map_while(decode_entry)
        .collect()
}

fn decode_entry(entry: &[u8]) -> Option<Position> {
    let word = |from: usize| {
        entry
            .get(from..from + 4)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
    };
    let double = |from: usize| {
        entry
            .get(from..from + 8)?
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
    };
    let valid = crc32fast::hash(entry.get(..20)?) == word(20)?;
    let position = Position {
        epoch: Epoch(word(0)?),
        seq: Seq(double(4)?),
        checksum: StateChecksum(double(12)?),
    };
    valid.then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        let checksum = StateChecksum(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Position {
            epoch: Epoch(3),
            seq: Seq(seq),
            checksum,
        }
    }

    fn id() -> DatabaseId {
        DatabaseId::from_bytes([7; 16])
    }

    fn reopened(directory: &Path) -> Vec<Position> {
        Journal::open(directory, id())
            .expect("readable")
            .expect("present")
            .entries
    }

    #[test]
    fn entries_are_found_again_in_order_and_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::create(directory.path(), id(), at(5)).expect("created");
        for seq in [6, 7, 7, 9] {
            journal.append(&at(seq)).expect("appended");
        }
        assert_eq!(reopened(directory.path()), [at(5), at(6), at(7), at(9)]);
        journal.rewrite(at(9)).expect("rewritten");
        journal.append(&at(10)).expect("appended");
        assert_eq!(reopened(directory.path()), [at(9), at(10)]);
    }

    /// The journal of version 1: written the same today, and read for ever.
    #[test]
    fn golden_journal_of_version_1_is_read_and_written_the_same() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/positions-1.bin");
        let golden = std::fs::read(golden).expect("the golden file");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(POSITIONS);
        let mut journal = Journal::create(directory.path(), id(), at(5)).expect("created");
        for seq in [6, 0x0102_0304_0506] {
            journal.append(&at(seq)).expect("appended");
        }
        let written = std::fs::read(&path).expect("written");
        assert!(written == golden, "the journal is written differently");
        std::fs::write(&path, golden).expect("written");
        let read = reopened(directory.path());
        assert_eq!(read, [at(5), at(6), at(0x0102_0304_0506)]);
    }

    /// Whatever byte is lost or changed, what remains is a prefix of the truth.
    #[test]
    fn damage_ends_the_list_and_is_cut_off() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(POSITIONS);
        let mut journal = Journal::create(directory.path(), id(), at(1)).expect("created");
        let all: Vec<Position> = (1..6).map(at).collect();
        for position in &all[1..] {
            journal.append(position).expect("appended");
        }
        let bytes = std::fs::read(&path).expect("readable");
        for length in HEADER_BYTES + ENTRY_BYTES..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("written");
            let entries = reopened(directory.path());
            assert_eq!(entries, all[..(length - HEADER_BYTES) / ENTRY_BYTES]);
            let left = std::fs::metadata(&path).expect("there").len();
            assert_eq!(left % 24, 0, "the torn tail is gone");
        }
        for offset in HEADER_BYTES + ENTRY_BYTES..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[offset] ^= 1;
            std::fs::write(&path, damaged).expect("written");
            let entries = reopened(directory.path());
            assert_eq!(entries, all[..(offset - HEADER_BYTES) / ENTRY_BYTES]);
        }
    }
}
