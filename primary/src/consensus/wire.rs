//! What voters of a cell say to each other, as bytes.
//!
//! One request, one answer, each under a CRC of its own: what was damaged on the way is refused here, before any of it
//! is believed. Lengths are bounded before anything is allocated; that bytes come from a voter of this cell is the
//! transport's part. Byte tables in `docs/formats.md`, under "Log".

use std::io::{self, Read, Write};

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use raft_log::codeq::{Decode, Encode};

use super::applied::MANIFEST_BYTES_MAX;
use super::cell::{Cell, CellEntry, CellSnapshot, CellVote, LogId, SnapshotMeta, StoredMembership};
use super::records::{
    ADDRESS_BYTES_MAX, StoredLogId, StoredPayload, StoredVote, damaged, get_membership,
    put_membership, take,
};
use super::snapshot::{Content, Receipt};

/// Version of everything in this file. Version 1 had no CRC.
const VERSION: u8 = 2;
/// Version, kind, CRC.
const HEAD_BYTES: usize = 2 + CRC_BYTES;
const CRC_BYTES: usize = 4;

const KIND_APPEND: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_PRE_VOTE: u8 = 3;
const KIND_SNAPSHOT: u8 = 4;
const KIND_TRANSFER: u8 = 5;

const APPENDED: u8 = 0;
const APPENDED_PART: u8 = 1;
const CONFLICT: u8 = 2;
const HIGHER_VOTE: u8 = 3;

const INSTALLED: u8 = 0;
const INSTALLING: u8 = 1;
const NOT_INSTALLED: u8 = 2;

/// Entries of one message that are accepted. More than a leader sends.
const ENTRIES_MAX: u32 = 64 << 10;

/// A message did not arrive as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("message has CRC {got:08x}, its bytes have {expected:08x}")]
pub(super) struct DamagedMessage {
    /// What it says.
    pub(super) got: u32,
    /// What its bytes come to.
    pub(super) expected: u32,
}

/// What one voter asks of another.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Leader to follower: entries, or a sign of life.
    Append(AppendEntriesRequest<Cell>),
    /// Candidate to voter.
    Vote(VoteRequest<Cell>),
    /// Would you, if I stood?
    PreVote(VoteRequest<Cell>),
    /// Leader to follower, whom its log no longer reaches: take over this state, or, how far are you with it?
    Snapshot {
        /// The leader's.
        vote: CellVote,
        /// What it says, and where the databases are to be had.
        snapshot: CellSnapshot,
    },
    /// Leader to voter: one of you is to lead after me, as soon as it has my last entry.
    Transfer(TransferLeaderRequest<Cell>),
}

/// What it is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// To [`Request::Append`].
    Append(AppendEntriesResponse<Cell>),
    /// To [`Request::Vote`] and [`Request::PreVote`].
    Vote(VoteResponse<Cell>),
    /// To [`Request::Snapshot`].
    Snapshot(Receipt),
    /// To [`Request::Transfer`].
    Transfer {
        /// Not if the voter knows of a newer leader, or lacks entries.
        accepted: bool,
    },
}

impl Request {
    pub(super) fn encode(&self) -> io::Result<Bytes> {
        let mut w = Vec::new();
        match self {
            Self::Append(append) => {
                let AppendEntriesRequest {
                    vote,
                    prev_log_id,
                    entries,
                    leader_commit,
                } = append;
                w.write_all(&head(KIND_APPEND))?;
                put_vote(&mut w, vote)?;
                put_log_id(&mut w, prev_log_id.as_ref())?;
                put_log_id(&mut w, leader_commit.as_ref())?;
                let count = u32::try_from(entries.len()).map_err(damaged)?;
                w.write_all(&count.to_le_bytes())?;
                for CellEntry { log_id, payload } in entries {
                    StoredLogId::from(log_id).encode(&mut w)?;
                    StoredPayload(payload.clone()).encode(&mut w)?;
                }
            }
            Self::Vote(vote) => put_vote_request(&mut w, KIND_VOTE, vote)?,
            Self::PreVote(vote) => put_vote_request(&mut w, KIND_PRE_VOTE, vote)?,
            Self::Snapshot { vote, snapshot } => {
                let SnapshotMeta {
                    last_log_id,
                    last_membership,
                } = &snapshot.meta;
                let Content { manifest, source } = &snapshot.snapshot;
                w.write_all(&head(KIND_SNAPSHOT))?;
                put_vote(&mut w, vote)?;
                put_log_id(&mut w, last_log_id.as_ref())?;
                put_log_id(&mut w, last_membership.log_id().as_ref())?;
                put_membership(&mut w, last_membership.membership())?;
                put_bytes(&mut w, source.as_bytes(), ADDRESS_BYTES_MAX)?;
                put_bytes(&mut w, manifest, MANIFEST_BYTES_MAX)?;
            }
            Self::Transfer(transfer) => {
                w.write_all(&head(KIND_TRANSFER))?;
                put_vote(&mut w, transfer.from_leader())?;
                w.write_all(&transfer.to_node_id().to_le_bytes())?;
                put_log_id(&mut w, transfer.last_log_id())?;
            }
        }
        Ok(sealed(w))
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let (kind, mut r) = opened(bytes)?;
        let request = match kind {
            KIND_APPEND => {
                let vote = get_vote(&mut r)?;
                let prev_log_id = get_log_id(&mut r)?;
                let leader_commit = get_log_id(&mut r)?;
                let count = u32::from_le_bytes(take(&mut r)?);
                if count > ENTRIES_MAX {
                    return Err(damaged(format!("{count} entries, at most {ENTRIES_MAX}")));
                }
                let mut entries = Vec::new();
                for _ in 0..count {
                    let log_id = StoredLogId::decode(&mut r)?.into();
                    let StoredPayload(payload) = StoredPayload::decode(&mut r)?;
                    entries.push(CellEntry { log_id, payload });
                }
                Self::Append(AppendEntriesRequest {
                    vote,
                    prev_log_id,
                    entries,
                    leader_commit,
                })
            }
            KIND_VOTE => Self::Vote(get_vote_request(&mut r)?),
            KIND_PRE_VOTE => Self::PreVote(get_vote_request(&mut r)?),
            KIND_SNAPSHOT => {
                let vote = get_vote(&mut r)?;
                let last_log_id = get_log_id(&mut r)?;
                let membership_at = get_log_id(&mut r)?;
                let membership = get_membership(&mut r)?;
                let source = get_bytes(&mut r, ADDRESS_BYTES_MAX)?.to_vec();
                let source = String::from_utf8(source).map_err(damaged)?;
                let manifest = Bytes::copy_from_slice(get_bytes(&mut r, MANIFEST_BYTES_MAX)?);
                let snapshot = CellSnapshot {
                    meta: SnapshotMeta {
                        last_log_id,
                        last_membership: StoredMembership::new(membership_at, membership),
                    },
                    snapshot: Content { manifest, source },
                };
                Self::Snapshot { vote, snapshot }
            }
            KIND_TRANSFER => {
                let from = get_vote(&mut r)?;
                let to = u64::from_le_bytes(take(&mut r)?);
                let last_log_id = get_log_id(&mut r)?;
                Self::Transfer(TransferLeaderRequest::new(from, to, last_log_id))
            }
            got => return Err(damaged(format!("request of kind {got} is not known"))),
        };
        all_read(r)?;
        Ok(request)
    }
}

impl Answer {
    pub(super) fn encode(&self) -> io::Result<Bytes> {
        let mut w = Vec::new();
        match self {
            Self::Append(append) => {
                w.write_all(&head(KIND_APPEND))?;
                match append {
                    AppendEntriesResponse::Success => w.write_all(&[APPENDED])?,
                    AppendEntriesResponse::PartialSuccess(upto) => {
                        w.write_all(&[APPENDED_PART])?;
                        put_log_id(&mut w, upto.as_ref())?;
                    }
                    AppendEntriesResponse::Conflict => w.write_all(&[CONFLICT])?,
                    AppendEntriesResponse::HigherVote(vote) => {
                        w.write_all(&[HIGHER_VOTE])?;
                        put_vote(&mut w, vote)?;
                    }
                }
            }
            Self::Vote(VoteResponse {
                vote,
                vote_granted,
                last_log_id,
            }) => {
                w.write_all(&head(KIND_VOTE))?;
                put_vote(&mut w, vote)?;
                w.write_all(&[u8::from(*vote_granted)])?;
                put_log_id(&mut w, last_log_id.as_ref())?;
            }
            Self::Snapshot(receipt) => {
                w.write_all(&head(KIND_SNAPSHOT))?;
                match receipt {
                    Receipt::Installed { vote } => {
                        w.write_all(&[INSTALLED])?;
                        put_vote(&mut w, vote)?;
                    }
                    Receipt::Installing => w.write_all(&[INSTALLING])?,
                    Receipt::Failed => w.write_all(&[NOT_INSTALLED])?,
                }
            }
            Self::Transfer { accepted } => {
                w.write_all(&head(KIND_TRANSFER))?;
                w.write_all(&[u8::from(*accepted)])?;
            }
        }
        Ok(sealed(w))
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let (kind, mut r) = opened(bytes)?;
        let answer = match kind {
            KIND_APPEND => Self::Append(match take::<1>(&mut r)? {
                [APPENDED] => AppendEntriesResponse::Success,
                [APPENDED_PART] => AppendEntriesResponse::PartialSuccess(get_log_id(&mut r)?),
                [CONFLICT] => AppendEntriesResponse::Conflict,
                [HIGHER_VOTE] => AppendEntriesResponse::HigherVote(get_vote(&mut r)?),
                [got] => return Err(damaged(format!("append answered with {got}"))),
            }),
            KIND_VOTE => Self::Vote(VoteResponse {
                vote: get_vote(&mut r)?,
                vote_granted: get_flag(&mut r)?,
                last_log_id: get_log_id(&mut r)?,
            }),
            KIND_SNAPSHOT => Self::Snapshot(match take::<1>(&mut r)? {
                [INSTALLED] => Receipt::Installed {
                    vote: get_vote(&mut r)?,
                },
                [INSTALLING] => Receipt::Installing,
                [NOT_INSTALLED] => Receipt::Failed,
                [got] => return Err(damaged(format!("snapshot answered with {got}"))),
            }),
            KIND_TRANSFER => Self::Transfer {
                accepted: get_flag(&mut r)?,
            },
            got => return Err(damaged(format!("answer of kind {got} is not known"))),
        };
        all_read(r)?;
        Ok(answer)
    }
}

fn put_vote_request(w: &mut impl Write, kind: u8, request: &VoteRequest<Cell>) -> io::Result<()> {
    let VoteRequest {
        vote,
        last_log_id,
        leadership_transfer,
    } = request;
    w.write_all(&head(kind))?;
    put_vote(w, vote)?;
    put_log_id(w, last_log_id.as_ref())?;
    w.write_all(&[u8::from(*leadership_transfer)])
}

fn get_vote_request(r: &mut impl Read) -> io::Result<VoteRequest<Cell>> {
    let vote = get_vote(r)?;
    let last_log_id = get_log_id(r)?;
    Ok(VoteRequest {
        vote,
        last_log_id,
        leadership_transfer: get_flag(r)?,
    })
}

fn put_vote(w: &mut impl Write, vote: &CellVote) -> io::Result<()> {
    StoredVote(*vote).encode(w).map(drop)
}

fn get_vote(r: &mut impl Read) -> io::Result<CellVote> {
    StoredVote::decode(r).map(|StoredVote(vote)| vote)
}

/// Writes a log id that may be missing: a flag, then zeros or the id.
pub(super) fn put_log_id(w: &mut impl Write, log_id: Option<&LogId>) -> io::Result<()> {
    w.write_all(&[u8::from(log_id.is_some())])?;
    let stored = log_id.map_or(StoredLogId { term: 0, index: 0 }, StoredLogId::from);
    stored.encode(w).map(drop)
}

/// Reads back [`put_log_id`].
pub(super) fn get_log_id(r: &mut impl Read) -> io::Result<Option<LogId>> {
    let present = get_flag(r)?;
    let stored = StoredLogId::decode(r)?;
    Ok(present.then(|| stored.into()))
}

fn put_bytes(w: &mut impl Write, bytes: &[u8], max: usize) -> io::Result<()> {
    let length = u32::try_from(bytes.len())
        .ok()
        .filter(|_| bytes.len() <= max);
    let length = length.ok_or_else(|| {
        let got = bytes.len();
        damaged(format!("{got} bytes to send, at most {max}"))
    })?;
    w.write_all(&length.to_le_bytes())?;
    w.write_all(bytes)
}

fn get_bytes<'a>(r: &mut &'a [u8], max: usize) -> io::Result<&'a [u8]> {
    let length = u32::from_le_bytes(take(r)?) as usize;
    if length > max {
        return Err(damaged(format!("{length} bytes sent, at most {max}")));
    }
    let (bytes, rest) = r
        .split_at_checked(length)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    *r = rest;
    Ok(bytes)
}

fn get_flag(r: &mut impl Read) -> io::Result<bool> {
    match take::<1>(r)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [got] => Err(damaged(format!("a flag is {got}"))),
    }
}

/// What a message begins with, the place of its CRC included.
fn head(kind: u8) -> [u8; HEAD_BYTES] {
    [VERSION, kind, 0, 0, 0, 0]
}

/// The message, complete but for its CRC, with it.
fn sealed(mut message: Vec<u8>) -> Bytes {
    let crc = crc(&message);
    message[2..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    message.into()
}

/// The kind and the content of a message that arrived as it was sent.
fn opened(message: &[u8]) -> io::Result<(u8, &[u8])> {
    let mut r = message;
    let [version, kind] = take(&mut r)?;
    if version != VERSION {
        return Err(damaged(format!(
            "message has version {version}, this build reads {VERSION}"
        )));
    }
    let got = u32::from_le_bytes(take(&mut r)?);
    let expected = crc(message);
    if got != expected {
        return Err(damaged(DamagedMessage { got, expected }));
    }
    Ok((kind, r))
}

/// Of a whole message without the CRC itself.
fn crc(message: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&message[..2]);
    hasher.update(&message[HEAD_BYTES..]);
    hasher.finalize()
}

fn all_read(rest: &[u8]) -> io::Result<()> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(damaged(format!(
        "{} bytes after the end of a message",
        rest.len()
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::EntryPayload;
    use tidemark_protocol::Incarnation;

    use super::*;
    use crate::consensus::cell::{CommittedLeaderId, Membership};
    use crate::consensus::{Command, Member};

    fn at(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term), index)
    }

    fn snapshot() -> Request {
        let member = Member {
            address: "http://one".to_owned(),
            incarnation: Incarnation(0x1e),
        };
        let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)]));
        let meta = SnapshotMeta {
            last_log_id: Some(at(3, 99)),
            last_membership: StoredMembership::new(Some(at(1, 0)), membership.expect("valid")),
        };
        let content = Content {
            manifest: Bytes::from_static(b"chain"),
            source: "http://two".to_owned(),
        };
        Request::Snapshot {
            vote: CellVote::new_committed(4, 2),
            snapshot: CellSnapshot {
                meta,
                snapshot: content,
            },
        }
    }

    fn flipped(bytes: &[u8], at: usize, bit: u32) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << bit;
        bytes
    }

    /// Whether this is the refusal of a damaged message, with what it says and what it has.
    fn names_both(refused: &io::Error) -> bool {
        let inner = refused.get_ref();
        let damage = inner.and_then(|inner| inner.downcast_ref::<DamagedMessage>());
        damage.is_some_and(|DamagedMessage { got, expected }| {
            let text = refused.to_string();
            got != expected
                && text.contains(&format!("{got:08x}"))
                && text.contains(&format!("{expected:08x}"))
        })
    }

    #[test]
    fn golden_bytes_of_a_snapshot() {
        let bytes = snapshot().encode().expect("encodes");
        let mut expected = vec![2, 4, 0x98, 0x4c, 0xe6, 0x84];
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend([1, 3, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // one set of one voter
        expected.extend([1, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // one node
        expected.extend([0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(*b"\x0a\0http://one");
        expected.extend(*b"\x0a\0\0\0http://two");
        expected.extend(*b"\x05\0\0\0chain");
        assert_eq!(bytes, expected);
        let installed = Answer::Snapshot(Receipt::Installed {
            vote: CellVote::new(5, 3),
        });
        let bytes = installed.encode().expect("encodes");
        assert_eq!(
            bytes,
            [
                2, 4, 0xaa, 0x30, 0x50, 0xe1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0
            ][..]
        );
    }

    #[test]
    fn requests_survive_a_round_trip_and_no_cut_or_flipped_bit() {
        let command = Command::Transaction(crate::consensus::tests::transaction(5, 1));
        let append = AppendEntriesRequest {
            vote: CellVote::new_committed(3, 1),
            prev_log_id: Some(at(2, 9)),
            entries: vec![
                CellEntry {
                    log_id: at(3, 10),
                    payload: EntryPayload::Blank,
                },
                CellEntry {
                    log_id: at(3, 11),
                    payload: EntryPayload::Normal(command.into()),
                },
            ],
            leader_commit: None,
        };
        let vote = VoteRequest {
            vote: CellVote::new(4, 2),
            last_log_id: Some(at(3, 11)),
            leadership_transfer: true,
        };
        let requests = [
            Request::Append(append),
            Request::Vote(vote.clone()),
            Request::PreVote(vote),
            snapshot(),
        ];
        for request in requests {
            let bytes = request.encode().expect("encodes");
            let decoded = Request::decode(&bytes).expect("decodes");
            assert_eq!(format!("{decoded:?}"), format!("{request:?}"));
            for cut in 0..bytes.len() {
                assert!(Request::decode(&bytes[..cut]).is_err(), "cut at {cut}");
                for bit in 0..8 {
                    let damaged = flipped(&bytes, cut, bit);
                    let refused = Request::decode(&damaged).expect_err("damaged");
                    assert!(cut == 0 || names_both(&refused), "byte {cut}: {refused}");
                }
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(Request::decode(&longer).is_err());
        }
    }

    #[test]
    fn answers_survive_a_round_trip_and_no_cut_or_flipped_bit() {
        let vote = CellVote::new(4, 2);
        let answers = [
            Answer::Append(AppendEntriesResponse::Success),
            Answer::Append(AppendEntriesResponse::PartialSuccess(Some(at(1, 2)))),
            Answer::Append(AppendEntriesResponse::PartialSuccess(None)),
            Answer::Append(AppendEntriesResponse::Conflict),
            Answer::Append(AppendEntriesResponse::HigherVote(vote)),
            Answer::Vote(VoteResponse {
                vote,
                vote_granted: true,
                last_log_id: Some(at(3, 4)),
            }),
            Answer::Snapshot(Receipt::Installed { vote }),
            Answer::Snapshot(Receipt::Installing),
            Answer::Snapshot(Receipt::Failed),
        ];
        for answer in answers {
            let bytes = answer.encode().expect("encodes");
            assert_eq!(Answer::decode(&bytes).expect("decodes"), answer);
            for cut in 0..bytes.len() {
                assert!(Answer::decode(&bytes[..cut]).is_err(), "cut at {cut}");
                for bit in 0..8 {
                    let damaged = flipped(&bytes, cut, bit);
                    let refused = Answer::decode(&damaged).expect_err("damaged");
                    assert!(cut == 0 || names_both(&refused), "byte {cut}: {refused}");
                }
            }
        }
    }
}
