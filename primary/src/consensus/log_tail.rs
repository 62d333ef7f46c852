//! Makes the end of the log sound and durable before anybody relies on it.
//!
//! # What was never synced
//!
//! When the power fails, any part of what was written since the last fsync may be missing: the file has grown, and in the
//! place of what did not reach the disk it shows zeros, by whole sectors, with later parts behind them. raft-log cuts off
//! a record at the very end, and zeros; a record that is damaged with more behind it it takes for rot, and refuses the
//! log. So first of all such a tail is cut off: from the first record of the last segment on that does not match its CRC,
//! if the records before it reach as far as the log is known to have been synced ([`super::synced`]). Whatever was synced
//! stays, so nothing goes that anybody was told of. Damage before that is left to be refused.
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
//! empty, because of a crash between the two, the one before it has not been synced for certain.
//!
//! In place: a crash on the way leaves the same bytes, and a full disk is no obstacle. Costs reading and
//! writing one segment per start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use raft_log::chunked_wal::Config;
use raft_log::codeq::Decode;
use raft_log::{RaftLogAction, RaftLogRecord};

use super::records::{Records, StoredLogId};

/// Bytes read and written at a time.
const STEP_BYTES: usize = 1 << 20;

/// Makes what the segments in `directory` hold durable, but for what was torn behind `synced`. Blocks.
pub(super) fn settle(directory: &Path, synced: Option<StoredLogId>) -> io::Result<()> {
    for segment in segments(directory)?.iter().rev() {
        cut_torn(segment, synced)?;
        if rewrite(segment)? > 0 {
            break;
        }
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

/// Cuts off what a failure of the power left of writes that were never synced.
fn cut_torn(segment: &Path, synced: Option<StoredLogId>) -> io::Result<()> {
    let Some(synced) = synced else {
        return Ok(());
    };
    let bytes = std::fs::read(segment)?;
    let Some(sound) = torn_from(&bytes, synced) else {
        return Ok(());
    };
    let (got, segment_path) = (bytes.len(), segment.display());
    tracing::warn!(segment = %segment_path, bytes = got, sound, "the end of the log is torn and cut off");
    let file = OpenOptions::new().write(true).open(segment)?;
    file.set_len(sound as u64)?;
    file.sync_all()
}

/// Where the first damaged record begins, if nothing from it on is known to have been synced.
fn torn_from(bytes: &[u8], synced: StoredLogId) -> Option<usize> {
    let reaches = |last: &StoredLogId| *last >= synced;
    let mut reached = false;
    let mut rest = bytes;
    loop {
        let from = bytes.len() - rest.len();
        if rest.is_empty() {
            return None;
        }
        match RaftLogRecord::<Records>::decode(&mut rest) {
            Ok(RaftLogRecord::Action(RaftLogAction::Append(last, _))) => reached |= reaches(&last),
            Ok(RaftLogRecord::Checkpoint(state)) => reached |= state.last().is_some_and(reaches),
            Ok(RaftLogRecord::Action(_)) => {}
            // raft-log's own: a record that ends with the file.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
            Err(_) => return reached.then_some(from),
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
    use raft_log::codeq::Encode;

    use super::*;
    use crate::consensus::Command;
    use crate::consensus::records::StoredPayload;
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
        settle(directory.path(), None).expect("settled");
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

    #[test]
    fn what_is_torn_behind_the_last_sync_is_cut_off_and_what_was_synced_is_not() {
        let (synced, all) = (entries(2), entries(4));
        assert!(all.starts_with(&synced));
        assert_eq!(torn_from(&all, id(1)), None, "nothing is wrong with it");
        let mut cut = 0;
        for lost in 0..all.len() / SECTOR_BYTES {
            let mut torn = all.clone();
            torn[lost * SECTOR_BYTES..(lost + 1) * SECTOR_BYTES].fill(0);
            let found = torn_from(&torn, id(1));
            if lost * SECTOR_BYTES < synced.len() {
                assert_eq!(found, None, "sector {lost} was synced");
                continue;
            }
            let Some(from) = found else {
                // A length that is lost may point beyond the end, which raft-log sees to.
                continue;
            };
            assert!(from >= synced.len() && from < (lost + 1) * SECTOR_BYTES);
            cut += 1;

            let directory = tempfile::tempdir().expect("temporary directory");
            let segment = directory.path().join(name(0));
            std::fs::write(&segment, &torn).expect("written");
            settle(directory.path(), None).expect("settled");
            let left = std::fs::read(&segment).expect("still there");
            assert!(left == torn, "nobody knows what was synced");
            settle(directory.path(), Some(id(1))).expect("settled");
            let left = std::fs::read(&segment).expect("still there");
            assert!(left == all[..from], "sector {lost}");
        }
        assert!(cut > 0, "some sector lies within a record");
    }

    #[test]
    fn a_new_log_has_nothing_to_settle_and_a_missing_one_is_an_error() {
        let directory = tempfile::tempdir().expect("temporary directory");
        settle(directory.path(), None).expect("nothing to do");
        assert!(settle(&directory.path().join("absent"), None).is_err());
    }
}
