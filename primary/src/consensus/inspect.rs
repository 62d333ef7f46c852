//! What lies in the log, looked at while no process has it open, and without changing it.
//!
//! Every record of every segment is decoded, CRC and all, and followed as the log follows it at a start: segments
//! without a gap between them, entries one after the other, terms and votes that never go back. A start stops at the
//! first record that does not fit; this goes on behind it, so that a length that changed is told from a record that was
//! being written when the process was killed: behind that comes nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use raft_log::chunked_wal::Config;
use raft_log::codeq::Decode;
use raft_log::{RaftLogAction, RaftLogRecord, WALRecord};
use tidemark_engine::Finding;
use tidemark_protocol::NodeId;

use super::applied::Applied;
use super::cell::Membership;
use super::log_tail;
use super::records::{Records, StoredLogId, StoredVote};
use super::synced::Synced;

/// How far behind a record that does not fit the next is looked for: further than any record is long.
const LOOK_AHEAD: usize = 8 << 20;
/// Most places at which that is tried.
const TRIES_MAX: usize = 4096;

/// What was seen of a log and of `applied` beside it.
#[derive(Debug, Default)]
pub(crate) struct LogSeen {
    /// In the order of the files.
    pub(crate) findings: Vec<Finding>,
    /// Records that are whole.
    pub(crate) records: u64,
    /// Bytes of all segments.
    pub(crate) bytes: u64,
    /// Voters of the newest membership here, without this node: id and base URL.
    pub(crate) others: BTreeMap<NodeId, String>,
}

/// Where a log stands behind a record.
#[derive(Clone, PartialEq, Debug, Default)]
struct State {
    vote: Option<StoredVote>,
    last: Option<StoredLogId>,
    committed: Option<StoredLogId>,
    purged: Option<StoredLogId>,
    node: Option<NodeId>,
}

/// Looks at the log in a node's directory.
pub(crate) fn inspect_log(directory: &Path, node: NodeId) -> LogSeen {
    let mut seen = LogSeen::default();
    let log = directory.join("log");
    let mut membership = None;
    let state = match log_tail::segments(&log) {
        Ok(segments) => {
            let synced = synced(&log, &mut seen);
            follow(&segments, synced, &mut seen, &mut membership)
        }
        // A node that was made and never started.
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
        Err(error) => {
            seen.findings.push(Finding::unread(&log, &error));
            State::default()
        }
    };
    if let Some(got) = state.node.filter(|got| *got != node) {
        let expected = format!("the log of node {node}");
        seen.findings
            .push(Finding::damage(&log, 0, format!("of node {got}"), expected));
    }
    let path = directory.join("applied");
    match Applied::read(&path) {
        Ok(applied) => {
            let purged = state.purged.map(|purged| purged.index);
            let durable = applied.last.map(|last| last.index);
            if purged > durable {
                let found = format!("durable up to entry {durable:?}");
                let expected = format!("at least {purged:?}, up to which the log is cut");
                seen.findings
                    .push(Finding::damage(&path, 0, found, expected));
            }
            let older = applied.membership.membership().clone();
            membership = membership.or(Some(older));
        }
        Err(error) => seen.findings.push(Finding::damage(
            &path,
            0,
            error.to_string(),
            "a file of ours",
        )),
    }
    if let Some(membership) = membership {
        let voters: Vec<u64> = membership.voter_ids().collect();
        let others = membership
            .nodes()
            .filter(|(id, _)| **id != node.0 && voters.contains(id));
        seen.others = others
            .map(|(id, member)| (NodeId(*id), member.address.clone()))
            .collect();
    }
    seen
}

/// How far the log was synced at least, if that is told.
fn synced(log: &Path, seen: &mut LogSeen) -> Option<StoredLogId> {
    let path = log.with_extension("synced");
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    match Synced::read(log) {
        Ok(None) if bytes > 0 => {
            let found = format!("{bytes} bytes");
            let finding = Finding::damage(&path, 0, found, "an entry and its CRC");
            seen.findings.push(finding);
            None
        }
        Ok(synced) => synced,
        Err(error) => {
            seen.findings.push(Finding::unread(&path, &error));
            None
        }
    }
}

fn follow(
    segments: &[PathBuf],
    synced: Option<StoredLogId>,
    seen: &mut LogSeen,
    membership: &mut Option<Membership>,
) -> State {
    let mut state = State::default();
    let mut ends: Option<u64> = None;
    for (number, path) in segments.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let begins = Config::parse_chunk_file_name(&name).unwrap_or(0);
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                seen.findings.push(Finding::unread(path, &error));
                ends = None;
                continue;
            }
        };
        if let Some(ends) = ends
            && ends != begins
        {
            let found = format!("a segment that begins at {begins}");
            seen.findings.push(Finding::damage(
                path,
                0,
                found,
                format!("one that begins at {ends}"),
            ));
        }
        ends = Some(begins + bytes.len() as u64);
        seen.bytes += bytes.len() as u64;
        let is_last = number + 1 == segments.len();
        let mut walk = Walk {
            path,
            bytes: &bytes,
            is_last,
            is_first: number == 0,
            synced,
            state: &mut state,
            seen: &mut *seen,
            membership: &mut *membership,
        };
        walk.all();
    }
    state
}

/// One segment.
struct Walk<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    is_last: bool,
    is_first: bool,
    /// How far the log was synced, at least.
    synced: Option<StoredLogId>,
    state: &'a mut State,
    seen: &'a mut LogSeen,
    membership: &'a mut Option<Membership>,
}

impl Walk<'_> {
    fn all(&mut self) {
        let mut at = 0;
        while at < self.bytes.len() {
            match decode(&self.bytes[at..]) {
                Ok((record, length)) => {
                    self.record(&record, at);
                    at += length;
                }
                Err(error) => match self.stopped(at, &error) {
                    Some(next) => at = next,
                    None => return,
                },
            }
        }
    }

    fn damage(&mut self, at: usize, found: impl Into<String>, expected: impl Into<String>) {
        let finding = Finding::damage(self.path, at as u64, found, expected);
        self.seen.findings.push(finding);
    }

    /// No record is at `at`. Returns where the next one is.
    fn stopped(&mut self, at: usize, error: &io::Error) -> Option<usize> {
        let rest = &self.bytes[at..];
        let next = next_record(rest);
        let incomplete = error.kind() == io::ErrorKind::UnexpectedEof && !fits_to_the_end(rest);
        let zeros = rest.iter().all(|byte| *byte == 0);
        let all_synced = self.synced <= self.state.last;
        if self.is_last && next.is_none() && (incomplete || zeros) && all_synced {
            let found = format!("{} bytes of a record", rest.len());
            let finding = Finding::damage(self.path, at as u64, found, "its end").unfinished();
            self.seen.findings.push(finding);
            return None;
        }
        let found = format!("no record: {error}");
        self.damage(at, found, "a record whose CRC fits");
        // What it held is not known: neither is where the log stands behind it.
        *self.state = State::default();
        self.is_first = true;
        next.map(|next| at + next)
    }

    fn record(&mut self, record: &RaftLogRecord<Records>, at: usize) {
        self.seen.records += 1;
        match record {
            WALRecord::Checkpoint(found) => {
                let state = State {
                    vote: found.vote().cloned(),
                    last: found.last().copied(),
                    committed: found.committed().copied(),
                    purged: found.purged().copied(),
                    node: found.user_data.as_ref().map(|identity| identity.node),
                };
                if at == 0 && !self.is_first && state != *self.state {
                    let (found, expected) = (format!("{state:?}"), format!("{:?}", self.state));
                    self.damage(at, found, expected);
                }
                *self.state = state;
            }
            WALRecord::Action(action) => self.action(action, at),
        }
    }

    fn action(&mut self, action: &RaftLogAction<Records>, at: usize) {
        match action {
            RaftLogAction::SaveVote(vote) => {
                let goes_back = |known: &StoredVote| {
                    !matches!(
                        vote.partial_cmp(known),
                        Some(Ordering::Equal | Ordering::Greater)
                    )
                };
                if self.state.vote.as_ref().is_some_and(goes_back) {
                    let expected = format!("one not before {:?}", self.state.vote);
                    self.damage(at, format!("{vote:?}"), expected);
                }
                self.state.vote = Some(vote.clone());
            }
            RaftLogAction::Append(id, payload) => {
                if let Some(last) = self.state.last
                    && (id.index != last.index + 1 || id.term < last.term)
                {
                    self.damage(
                        at,
                        format!("entry {id:?}"),
                        format!("the one behind {last:?}"),
                    );
                }
                self.state.last = Some(*id);
                if let EntryPayload::Membership(membership) = &payload.0 {
                    *self.membership = Some(membership.clone());
                }
            }
            RaftLogAction::Commit(id) => {
                let beyond = self.state.last.is_some_and(|last| *id > last);
                if beyond || Some(*id) < self.state.committed {
                    let State {
                        committed, last, ..
                    } = &*self.state;
                    let expected = format!("between {committed:?} and {last:?}");
                    self.damage(at, format!("committed {id:?}"), expected);
                }
                self.state.committed = Some(*id);
            }
            RaftLogAction::TruncateAfter(kept) => {
                if *kept < self.state.committed {
                    let expected = format!("at least {:?}", self.state.committed);
                    self.damage(at, format!("truncated to {kept:?}"), expected);
                }
                self.state.last = self.state.last.min(*kept);
            }
            RaftLogAction::PurgeUpto(id) => {
                self.state.purged = self.state.purged.max(Some(*id));
                self.state.last = self.state.last.max(Some(*id));
            }
        }
    }
}

/// The record that begins here, and its length.
fn decode(bytes: &[u8]) -> io::Result<(RaftLogRecord<Records>, usize)> {
    let mut rest = bytes;
    let record = RaftLogRecord::<Records>::decode(&mut rest)?;
    Ok((record, bytes.len() - rest.len()))
}

/// Where the next whole record begins, behind the first byte.
fn next_record(bytes: &[u8]) -> Option<usize> {
    let near = &bytes[..bytes.len().min(LOOK_AHEAD)];
    let starts = near.windows(4).enumerate().skip(1);
    // Types are few: most places are out of the question.
    let mut likely = starts.filter(|(_, kind)| kind[..3] == [0; 3] && (1..=5).contains(&kind[3]));
    likely
        .by_ref()
        .take(TRIES_MAX)
        .map(|(at, _)| at)
        .find(|at| decode(&bytes[*at..]).is_ok())
}

/// Whether the rest of a file is one record, but for what says how long it is: then it was written to its end. Of a
/// short one any bit may say that, of a longer one its type, or the length of an entry.
fn fits_to_the_end(rest: &[u8]) -> bool {
    const SHORT: usize = 512;
    const LENGTH_AT: usize = 4 + 16 + 1;
    let Some((covered, crc)) = rest.split_last_chunk::<8>() else {
        return false;
    };
    let crc = u64::from_be_bytes(*crc);
    let mut bytes = covered.to_vec();
    let mut fits_with = |at: usize, piece: &[u8]| {
        let Some(place) = bytes.get_mut(at..at + piece.len()) else {
            return false;
        };
        let before = place.to_vec();
        place.copy_from_slice(piece);
        let fits = u64::from(crc32fast::hash(&bytes)) == crc;
        bytes[at..at + piece.len()].copy_from_slice(&before);
        fits
    };
    let length = covered.len().checked_sub(LENGTH_AT + 4);
    let length = length.and_then(|length| u32::try_from(length).ok());
    let of_length = length.is_some_and(|length| fits_with(LENGTH_AT, &length.to_le_bytes()));
    let of_type = (0..=5_u32).any(|kind| fits_with(0, &kind.to_be_bytes()));
    let bits = if covered.len() <= SHORT {
        covered.len() * 8
    } else {
        0
    };
    let of_bit = (0..bits).any(|bit| fits_with(bit / 8, &[covered[bit / 8] ^ (1 << (bit % 8))]));
    of_length || of_type || of_bit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cut_short_does_not_fit_and_a_whole_one_with_another_length_does() {
        let mut record = vec![0, 0, 0, 1];
        record.extend([0; 16]);
        record.push(16);
        record.extend(700_u32.to_le_bytes());
        record.extend([7; 700]);
        let crc = u64::from(crc32fast::hash(&record));
        record.extend(crc.to_be_bytes());
        for cut in 1..record.len() {
            assert!(!fits_to_the_end(&record[..cut]), "cut at {cut}");
        }
        for at in [3, 21, 22, 23, 24] {
            let mut bad = record.clone();
            bad[at] ^= 2;
            assert!(fits_to_the_end(&bad), "byte {at}");
        }
        let mut bad = record.clone();
        bad[400] ^= 1;
        assert!(!fits_to_the_end(&bad), "what says nothing of its length");
    }
}
