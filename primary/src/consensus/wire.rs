//! What voters of a cell say to each other, as bytes.
//!
//! One request, one answer. Lengths are bounded before anything is allocated; that bytes arrive whole and
//! from a voter of this cell is the transport's part. Byte tables in `docs/formats.md`, under "Log".

use std::io::{self, Read, Write};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use raft_log::codeq::{Decode, Encode};

use super::cell::{Cell, CellEntry, CellVote, LogId};
use super::records::{StoredLogId, StoredPayload, StoredVote, damaged, take};

/// Version of everything in this file.
const VERSION: u8 = 1;

const KIND_APPEND: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_PRE_VOTE: u8 = 3;

const APPENDED: u8 = 0;
const APPENDED_PART: u8 = 1;
const CONFLICT: u8 = 2;
const HIGHER_VOTE: u8 = 3;

/// Entries of one message that are accepted. More than a leader sends.
const ENTRIES_MAX: u32 = 64 << 10;

/// What one voter asks of another.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Leader to follower: entries, or a sign of life.
    Append(AppendEntriesRequest<Cell>),
    /// Candidate to voter.
    Vote(VoteRequest<Cell>),
    /// Would you, if I stood?
    PreVote(VoteRequest<Cell>),
}

/// What it is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// To [`Request::Append`].
    Append(AppendEntriesResponse<Cell>),
    /// To [`Request::Vote`] and [`Request::PreVote`].
    Vote(VoteResponse<Cell>),
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
                w.write_all(&[VERSION, KIND_APPEND])?;
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
        }
        Ok(w.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut r = bytes;
        let request = match get_kind(&mut r)? {
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
                w.write_all(&[VERSION, KIND_APPEND])?;
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
                w.write_all(&[VERSION, KIND_VOTE])?;
                put_vote(&mut w, vote)?;
                w.write_all(&[u8::from(*vote_granted)])?;
                put_log_id(&mut w, last_log_id.as_ref())?;
            }
        }
        Ok(w.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut r = bytes;
        let answer = match get_kind(&mut r)? {
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
    w.write_all(&[VERSION, kind])?;
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

fn get_flag(r: &mut impl Read) -> io::Result<bool> {
    match take::<1>(r)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [got] => Err(damaged(format!("a flag is {got}"))),
    }
}

fn get_kind(r: &mut impl Read) -> io::Result<u8> {
    let [version, kind] = take(r)?;
    if version != VERSION {
        return Err(damaged(format!(
            "message has version {version}, this build reads {VERSION}"
        )));
    }
    Ok(kind)
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
    use openraft::EntryPayload;

    use super::*;
    use crate::consensus::Command;
    use crate::consensus::cell::CommittedLeaderId;

    fn at(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term), index)
    }

    #[test]
    fn requests_survive_a_round_trip_and_no_cut() {
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
                    payload: EntryPayload::Normal(command),
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
        ];
        for request in requests {
            let bytes = request.encode().expect("encodes");
            let decoded = Request::decode(&bytes).expect("decodes");
            assert_eq!(format!("{decoded:?}"), format!("{request:?}"));
            for cut in 0..bytes.len() {
                assert!(Request::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(Request::decode(&longer).is_err());
        }
    }

    #[test]
    fn answers_survive_a_round_trip_and_no_cut() {
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
        ];
        for answer in answers {
            let bytes = answer.encode().expect("encodes");
            assert_eq!(Answer::decode(&bytes).expect("decodes"), answer);
            for cut in 0..bytes.len() {
                assert!(Answer::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }
}
