//! What lies in the log, looked at while no process has it open, and without changing it.
//!
//! Every record of every segment is decoded, CRC and all, and followed as the log follows it at a start: segments
//! without a gap between them, entries one after the other, terms and votes that never go back. A start stops at the
//! first record that does not fit; this goes on behind it.
//!
//! What was synced must be there: as far as `log.synced` tells, as `applied` tells that there is a log, and from the first
//! entry on that was not purged. What lies behind, and is torn, the next start cuts off. Where `log.synced` tells nothing, a
//! length that changed is told from a record that was being written when the process was killed: behind that comes nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::EntryPayload;
use raft_log::codeq::Decode;
use raft_log::{RaftLogAction, RaftLogRecord, WALRecord};
use tidemark_engine::Finding;
use tidemark_protocol::NodeId;

use super::applied::Applied;
use super::cell::Membership;
use super::log_tail::{begins, segments};
use super::records::{Records, StoredLogId, StoredVote};
use super::synced::{self, Synced};

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
    /// What the machine said of the state that `applied` says is durable, if any is.
    pub(crate) manifest: Option<Bytes>,
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
    let path = directory.join("applied");
    let applied = match Applied::read(&path) {
        Ok(applied) => Some(applied),
        Err(error) => {
            seen.findings.push(of_ours(&path, &error));
            None
        }
    };
    let followed = follow(&log, applied.as_ref(), &mut seen);
    let Followed {
        state,
        mut membership,
        ..
    } = followed;
    if let Some(got) = state.node.filter(|got| *got != node) {
        let expected = format!("the log of node {node}");
        seen.findings
            .push(Finding::damage(&log, 0, format!("of node {got}"), expected));
    }
    if let Some(applied) = applied {
        seen.manifest = applied.last.map(|_| applied.manifest.clone());
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

/// A file of ours that was not read: because the system did not give it, or because of what is in it.
fn of_ours(path: &Path, error: &io::Error) -> Finding {
    let is_content = matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    );
    if is_content {
        Finding::damage(path, 0, error.to_string(), "a file of ours")
    } else {
        Finding::unread(path, error)
    }
}

/// What came of following the log.
#[derive(Debug, Default)]
struct Followed {
    state: State,
    /// The newest.
    membership: Option<Membership>,
    /// The last entry before the first segment, if that says so.
    before: Option<StoredLogId>,
    /// Whether that is where the log stands: not behind damage, until a state record says it again.
    is_known: bool,
}

fn follow(log: &Path, applied: Option<&Applied>, seen: &mut LogSeen) -> Followed {
    let mut followed = Followed {
        is_known: true,
        ..Followed::default()
    };
    let told = synced(log, seen);
    let mut files = match segments(log) {
        Ok(segments) => segments,
        // A node that was made and never started, or one that lost its log.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            seen.findings.push(Finding::unread(log, &error));
            return followed;
        }
    };
    begun(&mut files, told, seen);
    let mut ends: Option<u64> = None;
    for (number, path) in files.iter().enumerate() {
        let begins = begins(path);
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                seen.findings.push(Finding::unread(path, &error));
                ends = None;
                followed.lost();
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
        let mut walk = Walk {
            path,
            bytes: &bytes,
            begins,
            is_last: number + 1 == files.len(),
            is_first: number == 0,
            synced: told,
            followed: &mut followed,
            seen: &mut *seen,
        };
        walk.all();
    }
    missing(log, &files, ends, told, applied, &followed, seen);
    followed
}

/// Takes off the end what a start removes: segments that were begun, and of whose first record nothing was synced.
fn begun(files: &mut Vec<PathBuf>, synced: Option<u64>, seen: &mut LogSeen) {
    while let Some(path) = files.last() {
        if synced.is_some_and(|synced| begins(path) < synced) {
            return;
        }
        // What cannot be read is told where it is followed.
        let Ok(bytes) = std::fs::read(path) else {
            return;
        };
        let is_begun = match decode(&bytes) {
            Ok(_) => false,
            Err(error) => {
                let is_short = error.kind() == io::ErrorKind::UnexpectedEof;
                synced.is_some() || is_short || bytes.iter().all(|byte| *byte == 0)
            }
        };
        if !is_begun {
            return;
        }
        let found = format!("{} bytes of a segment that was begun", bytes.len());
        let finding = Finding::damage(path, 0, found, "no such segment").unfinished();
        seen.findings.push(finding);
        files.pop();
    }
}

/// Tells what was synced and is not there, though all that is there may fit.
fn missing(
    log: &Path,
    files: &[PathBuf],
    ends: Option<u64>,
    synced: Option<u64>,
    applied: Option<&Applied>,
    followed: &Followed,
    seen: &mut LogSeen,
) {
    let (Some(first), Some(last)) = (files.first(), files.last()) else {
        let synced = synced.map(|synced| format!("up to byte {synced}, which were synced"));
        let applied = applied.and_then(|applied| applied.last);
        let applied = applied.map(|last| format!("with entry {}, which was applied", last.index));
        if let Some(what) = synced.or(applied) {
            let expected = format!("segments {what}");
            let finding = Finding::damage(log, 0, "no segment", expected);
            seen.findings.push(finding);
        }
        return;
    };
    if let (Some(ends), Some(synced)) = (ends, synced)
        && ends < synced
    {
        let found = format!("the end of the log, at byte {ends} of all segments");
        let expected = format!("records up to byte {synced}, which were synced");
        let offset = ends.saturating_sub(begins(last));
        let finding = Finding::damage(last, offset, found, expected);
        seen.findings.push(finding);
    }
    if followed.is_known && followed.before > followed.state.purged {
        let found = format!("a segment that begins behind entry {:?}", followed.before);
        let purged = followed.state.purged;
        let expected = format!("the one before it: only entries up to {purged:?} were purged");
        let finding = Finding::damage(first, 0, found, expected);
        seen.findings.push(finding);
    }
}

/// How far the log was synced at least, if that is told.
fn synced(log: &Path, seen: &mut LogSeen) -> Option<u64> {
    Synced::read(log).unwrap_or_else(|error| {
        let path = synced::path(log);
        seen.findings.push(of_ours(&path, &error));
        None
    })
}

impl Followed {
    /// What comes next is not known: neither is where the log stands behind it.
    fn lost(&mut self) {
        self.state = State::default();
        self.is_known = false;
    }
}

/// One segment.
struct Walk<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// The offset of its first byte.
    begins: u64,
    is_last: bool,
    is_first: bool,
    /// Up to which offset the log was synced, at least.
    synced: Option<u64>,
    followed: &'a mut Followed,
    seen: &'a mut LogSeen,
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
        let is_unfinished = self.is_last
            && match self.synced {
                Some(synced) => self.begins + at as u64 >= synced,
                None => looks_unfinished(rest, error),
            };
        if is_unfinished {
            let found = format!("{} bytes of a record", rest.len());
            let finding = Finding::damage(self.path, at as u64, found, "its end").unfinished();
            self.seen.findings.push(finding);
            return None;
        }
        let found = format!("no record: {error}");
        self.damage(at, found, "a record whose CRC fits");
        self.followed.lost();
        next_record(rest).map(|next| at + next)
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
                if self.is_first && at == 0 {
                    self.followed.before = state.last;
                }
                let known = &self.followed.state;
                if at == 0 && !self.is_first && self.followed.is_known && state != *known {
                    let (found, expected) = (format!("{state:?}"), format!("{known:?}"));
                    self.damage(at, found, expected);
                }
                self.followed.state = state;
                self.followed.is_known = true;
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
                if self.followed.state.vote.as_ref().is_some_and(goes_back) {
                    let expected = format!("one not before {:?}", self.followed.state.vote);
                    self.damage(at, format!("{vote:?}"), expected);
                }
                self.followed.state.vote = Some(vote.clone());
            }
            RaftLogAction::Append(id, payload) => {
                if let Some(last) = self.followed.state.last
                    && (id.index != last.index + 1 || id.term < last.term)
                {
                    self.damage(
                        at,
                        format!("entry {id:?}"),
                        format!("the one behind {last:?}"),
                    );
                }
                self.followed.state.last = Some(*id);
                if let EntryPayload::Membership(membership) = &payload.0 {
                    self.followed.membership = Some(membership.clone());
                }
            }
            RaftLogAction::Commit(id) => {
                let beyond = self.followed.state.last.is_some_and(|last| *id > last);
                if beyond || Some(*id) < self.followed.state.committed {
                    let State {
                        committed, last, ..
                    } = &self.followed.state;
                    let expected = format!("between {committed:?} and {last:?}");
                    self.damage(at, format!("committed {id:?}"), expected);
                }
                self.followed.state.committed = Some(*id);
            }
            RaftLogAction::TruncateAfter(kept) => {
                if *kept < self.followed.state.committed {
                    let expected = format!("at least {:?}", self.followed.state.committed);
                    self.damage(at, format!("truncated to {kept:?}"), expected);
                }
                self.followed.state.last = self.followed.state.last.min(*kept);
            }
            RaftLogAction::PurgeUpto(id) => {
                self.followed.state.purged = self.followed.state.purged.max(Some(*id));
                self.followed.state.last = self.followed.state.last.max(Some(*id));
            }
        }
    }
}

/// Whether a record that does not fit was being written, as far as it and what follows tell.
fn looks_unfinished(rest: &[u8], error: &io::Error) -> bool {
    let is_short = error.kind() == io::ErrorKind::UnexpectedEof && !fits_to_the_end(rest);
    let is_zero = rest.iter().all(|byte| *byte == 0);
    (is_short || is_zero) && next_record(rest).is_none()
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
