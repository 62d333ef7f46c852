//! Makes the end of the log durable before anybody relies on it.
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

/// Bytes read and written at a time.
const STEP_BYTES: usize = 1 << 20;

/// Makes what the segments in `directory` hold durable. Blocks.
pub(super) fn settle(directory: &Path) -> io::Result<()> {
    for segment in segments(directory)?.iter().rev() {
        if rewrite(segment)? > 0 {
            break;
        }
    }
    File::open(directory)?.sync_all()
}

/// The segments, oldest first: their names are offsets of fixed width.
fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
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
    use super::*;

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
        settle(directory.path()).expect("settled");
        for (name, content) in files {
            let found = std::fs::read(directory.path().join(&name)).expect("still there");
            assert!(found == content, "{name} changed");
        }
    }

    #[test]
    fn a_new_log_has_nothing_to_settle_and_a_missing_one_is_an_error() {
        let directory = tempfile::tempdir().expect("temporary directory");
        settle(directory.path()).expect("nothing to do");
        assert!(settle(&directory.path().join("absent")).is_err());
    }
}
