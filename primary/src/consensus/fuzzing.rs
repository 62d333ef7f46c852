//! See [`crate::fuzzing`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use raft_log::codeq::{Decode, Encode};
use tidemark_protocol::transaction::TransactionBuilder;
use tidemark_protocol::{
    DatabaseId, Epoch, Incarnation, NodeId, PAGE_SIZE, PageNo, Position, Seq, StateChecksum,
    Transaction, TransactionHeader,
};

use super::applied::Applied;
use super::cell::{
    CellEntry, CellPayload, CellSnapshot, CellVote, CommittedLeaderId, LogId, Membership,
    SnapshotMeta, StoredMembership,
};
use super::records::{LogIdentity, StoredPayload, StoredVote};
use super::snapshot::{Content, Receipt};
use super::wire::{Answer, Request};
use super::{Command, Member, parts};

/// What one voter asks of another.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        let written = request.encode().expect("what was read can be written");
        let again = Request::decode(&written).expect("what was written can be read");
        assert_eq!(again.encode().expect("it was written before"), written);
    }
}

/// What it is answered.
pub fn answer(bytes: &[u8]) {
    if let Ok(answer) = Answer::decode(bytes) {
        let written = answer.encode().expect("what was read can be written");
        let again = Answer::decode(&written).expect("what was written can be read");
        assert_eq!(again, answer);
    }
}

/// The payload of an entry of the log, in files and messages.
pub fn entry(bytes: &[u8]) {
    record::<StoredPayload>(bytes);
}

/// A vote in the log.
pub fn vote(bytes: &[u8]) {
    record::<StoredVote>(bytes);
}

/// Whose log it is.
pub fn identity(bytes: &[u8]) {
    record::<LogIdentity>(bytes);
}

/// The file `applied`.
pub fn applied(bytes: &[u8]) {
    if let Ok(applied) = Applied::decode(bytes) {
        let written = applied.encode().expect("what was read can be written");
        let again = Applied::decode(&written).expect("what was written can be read");
        assert_eq!(again, applied);
    }
}

fn record<T: Encode + Decode + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(record) = T::decode(bytes) else {
        return;
    };
    let mut written = Vec::new();
    let length = record
        .encode(&mut written)
        .expect("what was read can be written");
    assert_eq!(length, written.len(), "it says how much it wrote");
    assert_eq!(T::decode(&written[..]).expect("it can be read"), record);
}

/// What the encoders write, each with the name of its decoder here.
pub fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let mut samples = Vec::new();
    for request in requests() {
        samples.push(("request", request.encode().expect("a request").to_vec()));
    }
    for answer in answers() {
        samples.push(("answer", answer.encode().expect("an answer").to_vec()));
    }
    for payload in payloads() {
        samples.push(("entry", written(&StoredPayload(payload))));
    }
    samples.push(("vote", written(&StoredVote(CellVote::new_committed(2, 3)))));
    samples.push(("identity", written(&LogIdentity { node: NodeId(5) })));
    let applied = Applied {
        last: Some(at(3, 99)),
        membership: membership(),
        manifest: Bytes::from_static(b"manifest"),
    };
    samples.push(("applied", applied.encode().expect("a note")));
    samples
}

fn written(record: &impl Encode) -> Vec<u8> {
    let mut written = Vec::new();
    record.encode(&mut written).expect("into memory");
    written
}

fn at(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn membership() -> StoredMembership {
    let member = |id: u64| Member {
        address: format!("http://node-{id}:7443"),
        incarnation: Incarnation(u128::from(id)),
    };
    let members: BTreeMap<_, _> = (1..4).map(|id| (id, member(id))).collect();
    let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 2, 3])];
    let membership = Membership::new(configs, members).expect("it has all its voters");
    StoredMembership::new(Some(at(1, 0)), membership)
}

fn transaction() -> Transaction {
    let position = |seq| Position {
        epoch: Epoch::FIRST,
        seq: Seq(seq),
        checksum: StateChecksum(seq),
    };
    let header = TransactionHeader {
        database: DatabaseId::from_bytes([7; 16]),
        base: position(3),
        next: position(4),
        request: None,
        proposed_at_ms: 5,
        pages_after: 2,
    };
    let mut builder = TransactionBuilder::new();
    builder.push(PageNo(2), &[7; PAGE_SIZE]);
    builder.finish(header, b"[]").expect("a record")
}

fn payloads() -> Vec<CellPayload> {
    let mut payloads = vec![
        EntryPayload::Blank,
        EntryPayload::Membership(membership().membership().clone()),
        EntryPayload::Normal(Command::Transaction(transaction()).into()),
    ];
    // A part alone is read whatever its piece is.
    let parts = parts::split(Command::Transaction(transaction()), 4000, 9);
    payloads.extend(parts.into_iter().map(EntryPayload::Normal));
    payloads
}

fn requests() -> Vec<Request> {
    let vote = CellVote::new_committed(3, 1);
    let entries = (8..).zip(payloads()).map(|(index, payload)| CellEntry {
        log_id: at(3, index),
        payload,
    });
    let asked = VoteRequest {
        vote: CellVote::new(4, 2),
        last_log_id: Some(at(3, 9)),
        leadership_transfer: true,
    };
    let meta = SnapshotMeta {
        last_log_id: Some(at(3, 99)),
        last_membership: membership(),
    };
    let snapshot = Content {
        manifest: Bytes::from_static(b"manifest"),
        source: "http://one".to_owned(),
    };
    vec![
        Request::Append(AppendEntriesRequest {
            vote,
            prev_log_id: Some(at(3, 7)),
            entries: entries.collect(),
            leader_commit: None,
        }),
        Request::Vote(asked.clone()),
        Request::PreVote(asked),
        Request::Snapshot {
            vote,
            snapshot: CellSnapshot { meta, snapshot },
        },
        Request::Transfer(TransferLeaderRequest::new(vote, 2, None)),
    ]
}

fn answers() -> Vec<Answer> {
    let vote = CellVote::new(4, 2);
    vec![
        Answer::Append(AppendEntriesResponse::Success),
        Answer::Append(AppendEntriesResponse::PartialSuccess(Some(at(3, 7)))),
        Answer::Append(AppendEntriesResponse::Conflict),
        Answer::Append(AppendEntriesResponse::HigherVote(vote)),
        Answer::Vote(VoteResponse {
            vote,
            vote_granted: true,
            last_log_id: None,
        }),
        Answer::Snapshot(Receipt::Installed { vote }),
        Answer::Snapshot(Receipt::Installing),
        Answer::Transfer { accepted: true },
    ]
}
