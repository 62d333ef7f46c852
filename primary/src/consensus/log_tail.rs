//! Makes the end of the log sound and durable before anybody relies on it.
//!
//! # What was never synced
//!
//! When the power fails, any part of what was written since the last fsync may be missing: the file has grown, and in the
//! place of what did not reach the disk it shows zeros, by whole sectors, with later parts behind them. Up to which byte
//! the log was synced is known at least ([`super::synced`]). So first of all the tail is cut off from the first record on
//! that is not whole, if it begins there or behind: nobody was told of any of that, be it an entry or a vote. A record in
//! front of that byte that is not whole, or a log that ends before it, has lost what others were told of: it is refused,
//! and so is a log that is not there at all. Where nothing tells how far it was synced, raft-log decides: it cuts off a
//! record at the very end, and zeros, and refuses damage with more behind it.
//!
//! # What may not have been synced
//!
//! Whatever the log holds when it is opened counts as flushed: a voter tells the leader that it has it, and a
//! leader counts itself. But what the process before wrote last may be in the operating system's memory
//! alone, because it was killed before its fsync, or because its fsync failed. After a failed one the kernel
//! takes the pages for clean: it still shows them to readers, and the next fsync succeeds without having
//! written them. So the last segment is written over with its own bytes, which makes every page dirty again,
//! and then synced.
//!
//! The last is enough: raft-log writes to a segment only after it has synced the one before. If the last is
//! empty, because of a crash between the two or because nothing of it reached the disk, the one before it has not been
//! synced for certain, and is the last. raft-log removes the empty one.
//!
//! In place: a crash on the way leaves the same bytes, and a full disk is no obstacle. Costs reading and
//! writing one segment per start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use raft_log::RaftLogRecord;
use raft_log::chunked_wal::Config;
use raft_log::codeq::Decode;

use super::records::{Records, damaged};

/// Bytes read and written at a time.
const STEP_BYTES: usize = 1 << 20;

/// What is known of a log before it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Up to which offset it was synced, at least. `None`: nothing tells.
    pub(super) synced: Option<u64>,
    /// Whether something tells of entries that were in it.
    pub(super) is_used: bool,
}

/// Makes what the segments in `directory` hold durable, but for what was never synced and is torn. Blocks.
pub(super) fn settle(directory: &Path, known: Known) -> io::Result<()> {
    let mut is_empty = true;
    for segment in segments(directory)?.iter().rev() {
        if let Some(synced) = known.synced {
            cut_torn(segment, synced)?;
        }
        if rewrite(segment)? > 0 {
            is_empty = false;
            break;
        }
    }
    if is_empty && (known.is_used || known.synced.is_some()) {
        return Err(damaged("there is nothing in it, and there was"));
    }
    File::open(directory)?.sync_all()
}

/// The segments, oldest first: their names are offsets of fixed width.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if Config::parse_chunk_file_name(&name.to_string_lossy()).is_ok() {
            segments.push(entry.path());
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// The offset at which a segment begins.
pub(super) fn begins(segment: &Path) -> u64 {
    let name = segment.file_name().unwrap_or_default().to_string_lossy();
    Config::parse_chunk_file_name(&name).unwrap_or(0)
}

/// Cuts off what a failure of the power left of writes that were never synced. Refuses to lose any that were.
fn cut_torn(segment: &Path, synced: u64) -> io::Result<()> {
    let bytes = std::fs::read(segment)?;
    let (sound, stopped) = sound(&bytes);
    let (path, got) = (segment.display(), bytes.len());
    if begins(segment) + (sound as u64) < synced {
        let found = stopped.map_or_else(|| "it ends".to_owned(), |error| error.to_string());
        return Err(damaged(format!(
            "byte {sound} of {path}: {found}, where the log was synced up to byte {synced} of all segments"
        )));
    }
    if stopped.is_none() {
        return Ok(());
    }
    tracing::warn!(segment = %path, bytes = got, sound, "the end of the log is torn and cut off");
    let file = OpenOptions::new().write(true).open(segment)?;
    file.set_len(sound as u64)?;
    file.sync_all()
}

/// How many bytes are whole records, and why what follows is none.
fn sound(bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut rest = bytes;
    loop {
        let from = bytes.len() - rest.len();
        if rest.is_empty() {
            return (from, None);
        }
        if let Err(error) = RaftLogRecord::<Records>::decode(&mut rest) {
            return (from, Some(error));
        }
    }
}

/// Writes the file over with its own bytes and syncs it. Returns their number.
fn rewrite(segment: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(segment)?;
    let mut buffer = vec![0; STEP_BYTES];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            break;
        }
        file.write_all_at(&buffer[..read], offset)?;
        offset += read as u64;
    }
    file.sync_data()?;
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use raft_log::RaftLogAction;
    use raft_log::codeq::Encode;

    use super::*;
    use crate::consensus::Command;
    use crate::consensus::records::{StoredLogId, StoredPayload};
    use crate::consensus::tests::transaction;

    fn name(offset: u64) -> String {
        Config::chunk_file_name(raft_log::ChunkId(offset))
    }

    #[test]
    fn segments_keep_their_bytes_and_other_files_are_left_alone() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let bytes: Vec<u8> = (0..251).cycle().take(STEP_BYTES + 4321).collect();
        let files = [
            (name(0), bytes.clone()),
            (name(77), bytes),
            (name(99), Vec::new()),
            ("LOCK".to_owned(), b"lock".to_vec()),
        ];
        for (name, content) in &files {
            std::fs::write(directory.path().join(name), content).expect("written");
        }
        settle(directory.path(), Known::default()).expect("settled");
        for (name, content) in files {
            let found = std::fs::read(directory.path().join(&name)).expect("still there");
            assert!(found == content, "{name} changed");
        }
    }

    /// What a disk writes whole or not at all.
    const SECTOR_BYTES: usize = 512;

    fn id(index: u64) -> StoredLogId {
        StoredLogId { term: 1, index }
    }

    /// Entries as they lie in a segment, of a page each.
    fn entries(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for index in 0..count {
            let command = Command::Transaction(transaction(index, 1));
            let payload = StoredPayload(EntryPayload::Normal(command.into()));
            let append = RaftLogAction::Append(id(index), payload);
            let record = RaftLogRecord::<Records>::Action(append);
            record.encode(&mut bytes).expect("encodes");
        }
        bytes
    }

    /// Settles segments that hold these bytes; returns what they hold then, or the refusal.
    fn settled(
        segments: &[(u64, &[u8])],
        synced: Option<u64>,
        is_used: bool,
    ) -> Result<Vec<Vec<u8>>, String> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = |begins: u64| directory.path().join(name(begins));
        for (begins, bytes) in segments {
            std::fs::write(path(*begins), bytes).expect("written");
        }
        let known = Known { synced, is_used };
        let result = settle(directory.path(), known).map_err(|error| error.to_string());
        let left = segments.iter().map(|(begins, bytes)| {
            let left = std::fs::read(path(*begins)).expect("still there");
            assert!(result.is_ok() || left == *bytes, "refused and changed");
            left
        });
        let left = left.collect();
        result.map(|()| left)
    }

    /// Where the segment begins.
    const BEGINS: u64 = 5000;

    #[test]
    fn what_is_torn_behind_the_last_sync_is_cut_off_and_what_was_synced_is_refused() {
        let (synced, all) = (entries(2), entries(4));
        assert!(all.starts_with(&synced));
        let mark = Some(BEGINS + synced.len() as u64);
        let sound = |bytes: &[u8]| settled(&[(BEGINS, bytes)], mark, true);
        assert_eq!(sound(&all), Ok(vec![all.clone()]), "nothing is wrong");
        for lost in 0..all.len() / SECTOR_BYTES {
            let mut torn = all.clone();
            torn[lost * SECTOR_BYTES..(lost + 1) * SECTOR_BYTES].fill(0);
            if lost * SECTOR_BYTES < synced.len() {
                let refused = sound(&torn).expect_err("it was synced");
                assert!(refused.contains(&name(BEGINS)), "sector {lost}: {refused}");
                continue;
            }
            let left = sound(&torn).expect("never synced").remove(0);
            assert!(left.len() >= synced.len() && left.len() < (lost + 1) * SECTOR_BYTES);
            assert!(all.starts_with(&left), "sector {lost}");
            let unknown = settled(&[(BEGINS, &torn)], None, true);
            assert_eq!(unknown, Ok(vec![torn]), "nobody knows what was synced");
        }
    }

    /// A length that changed may point behind the end of the file, as that of a record does that was being written.
    #[test]
    fn no_bit_of_what_was_synced_may_change_and_no_byte_of_it_be_missing() {
        let synced = entries(2);
        let mark = Some(BEGINS + synced.len() as u64);
        // The whole of the header and of the end of the last entry, and a sample of its page.
        let last = synced.len() / 2..synced.len();
        let bytes = last.filter(|at| at % (synced.len() / 2) < 200 || at % 97 == 0);
        for at in bytes {
            for bit in 0..8 {
                let mut rotten = synced.clone();
                rotten[at] ^= 1 << bit;
                let settled = settled(&[(BEGINS, &rotten)], mark, true);
                assert!(settled.is_err(), "bit {bit} of byte {at}");
            }
        }
        for cut in [0, 1, synced.len() / 2, synced.len() - 1] {
            let settled = settled(&[(BEGINS, &synced[..cut])], mark, true);
            assert!(settled.is_err(), "cut at {cut}");
        }
        let settled = settled(&[(0, &synced)], mark, true);
        assert!(settled.is_err(), "the last segment is missing");
    }

    #[test]
    fn a_new_segment_of_which_nothing_was_synced_gives_way_to_the_one_before() {
        let (before, mut torn) = (entries(2), entries(2));
        torn[..SECTOR_BYTES].fill(0);
        let begins = before.len() as u64;
        for synced in [begins, begins / 2] {
            let segments: [(u64, &[u8]); 2] = [(0, &before), (begins, &torn)];
            let left = settled(&segments, Some(synced), true);
            assert_eq!(left, Ok(vec![before.clone(), Vec::new()]));
        }
        let segments: [(u64, &[u8]); 2] = [(0, &before[..before.len() - 1]), (begins, &[])];
        let left = settled(&segments, Some(begins / 2), true).expect("the second was never synced");
        assert_eq!(left[0], before[..before.len() / 2]);
        assert!(settled(&segments, Some(begins), true).is_err());
    }

    #[test]
    fn a_new_log_has_nothing_to_settle_and_one_that_was_there_is_missed() {
        assert_eq!(settled(&[], None, false), Ok(Vec::new()));
        assert!(settled(&[], None, true).is_err());
        assert!(settled(&[], Some(9), false).is_err());
        assert!(settled(&[(0, &[])], None, true).is_err());
        let directory = tempfile::tempdir().expect("temporary directory");
        assert!(settle(&directory.path().join("absent"), Known::default()).is_err());
    }
}
