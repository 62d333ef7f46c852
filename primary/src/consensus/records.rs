//! The bytes of the log: votes, log ids, payloads and memberships, as they lie in raft-log's records.
//!
//! Our own codec: neither openraft's nor any other crate's derived format is stable across versions. The
//! byte tables are in `docs/formats.md`, under "Log". raft-log adds the record type and a CRC around each of
//! these, and stores an entry's log id beside its payload, which is why the payload omits it.
//!
//! Trap: a record cut short must fail with `UnexpectedEof`, a damaged one with anything else. raft-log cuts
//! the former off the end of the log and refuses to open on the latter.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use bytes::Bytes;
use openraft::EntryPayload;
use raft_log::codeq::{Decode, Encode};
use tidemark_protocol::{Incarnation, NodeId};

use super::Member;
use super::cell::{CellPayload, CellVote, CommittedLeaderId, LogId, Membership};
use super::command::KIND_FIRST;
use super::log_store::OnFlushed;
use super::proposal::Proposal;

/// Version of everything in this file. Written once per log, in [`LogIdentity`].
const VERSION: u16 = 1;
const IDENTITY_MAGIC: [u8; 4] = *b"TMLG";

const KIND_BLANK: u8 = 0;
const KIND_MEMBERSHIP: u8 = 1;

/// Largest payload that is written or accepted, in bytes. Far more than any entry has since large commands
/// travel in parts.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 64 << 20;
/// Largest cell with learners and both halves of a membership change, in nodes.
const MEMBERS_MAX: usize = 64;
/// Voter sets of a membership: one, or two while it changes.
const CONFIGS_MAX: usize = 4;
pub(super) const ADDRESS_BYTES_MAX: usize = 1024;

/// raft-log's type parameters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Records;

impl raft_log::Types for Records {
    type LogId = StoredLogId;
    type LogPayload = StoredPayload;
    type Vote = StoredVote;
    type Callback = OnFlushed;
    type UserData = LogIdentity;

    fn log_index(log_id: &StoredLogId) -> u64 {
        log_id.index
    }

    fn payload_size(payload: &StoredPayload) -> u64 {
        payload.cached_bytes()
    }
}

/// Whose log it is, and in which version its records are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogIdentity {
    pub(super) node: NodeId,
}

/// Ordered by term, then index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StoredLogId {
    pub(super) term: u64,
    pub(super) index: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoredVote(pub(super) CellVote);

#[derive(Clone, PartialEq, Debug)]
pub(super) struct StoredPayload(pub(super) CellPayload);

impl From<&LogId> for StoredLogId {
    fn from(log_id: &LogId) -> Self {
        Self {
            term: log_id.leader_id.term,
            index: log_id.index,
        }
    }
}

impl From<StoredLogId> for LogId {
    fn from(stored: StoredLogId) -> Self {
        LogId::new(CommittedLeaderId::new(stored.term), stored.index)
    }
}

impl PartialOrd for StoredVote {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

impl StoredPayload {
    /// Bytes it keeps in memory, as good as.
    pub(super) fn cached_bytes(&self) -> u64 {
        /// Headers and tree nodes around a payload.
        const AROUND: u64 = 256;
        AROUND
            + match &self.0 {
                EntryPayload::Blank | EntryPayload::Membership(_) => 0,
                EntryPayload::Normal(proposal) => proposal.bytes() as u64,
            }
    }
}

impl Encode for LogIdentity {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let Self { node } = self;
        w.write_all(&IDENTITY_MAGIC)?;
        w.write_all(&VERSION.to_le_bytes())?;
        w.write_all(&0u16.to_le_bytes())?; // flags
        w.write_all(&node.0.to_le_bytes())?;
        Ok(16)
    }
}

impl Decode for LogIdentity {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let magic: [u8; 4] = take(&mut r)?;
        if magic != IDENTITY_MAGIC {
            return Err(damaged(format!(
                "log starts with {magic:02x?}, not {IDENTITY_MAGIC:02x?}"
            )));
        }
        let version = u16::from_le_bytes(take(&mut r)?);
        if version != VERSION {
            return Err(damaged(format!(
                "log has version {version}, this build reads {VERSION}"
            )));
        }
        no_flags(&mut r)?;
        Ok(Self {
            node: NodeId(u64::from_le_bytes(take(&mut r)?)),
        })
    }
}

impl Encode for StoredLogId {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let Self { term, index } = self;
        w.write_all(&term.to_le_bytes())?;
        w.write_all(&index.to_le_bytes())?;
        Ok(16)
    }
}

impl Decode for StoredLogId {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        Ok(Self {
            term: u64::from_le_bytes(take(&mut r)?),
            index: u64::from_le_bytes(take(&mut r)?),
        })
    }
}

impl Encode for StoredVote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let CellVote {
            leader_id,
            committed,
        } = self.0;
        w.write_all(&leader_id.term.to_le_bytes())?;
        w.write_all(&leader_id.voted_for.to_le_bytes())?;
        w.write_all(&[u8::from(committed)])?;
        Ok(17)
    }
}

impl Decode for StoredVote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let term = u64::from_le_bytes(take(&mut r)?);
        let node = u64::from_le_bytes(take(&mut r)?);
        match take::<1>(&mut r)? {
            [0] => Ok(Self(CellVote::new(term, node))),
            [1] => Ok(Self(CellVote::new_committed(term, node))),
            [got] => Err(damaged(format!("vote is neither committed nor not: {got}"))),
        }
    }
}

impl Encode for StoredPayload {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        match &self.0 {
            EntryPayload::Blank => put_payload(&mut w, KIND_BLANK, [&[], &[]]),
            EntryPayload::Membership(membership) => {
                let mut body = Vec::new();
                put_membership(&mut body, membership)?;
                put_payload(&mut w, KIND_MEMBERSHIP, [&body, &[]])
            }
            EntryPayload::Normal(proposal) => {
                let (head, rest) = proposal.pieces();
                put_payload(&mut w, proposal.kind(), [&head, rest])
            }
        }
    }
}

impl Decode for StoredPayload {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let [kind] = take(&mut r)?;
        let length = u32::from_le_bytes(take(&mut r)?);
        if length > PAYLOAD_BYTES_MAX {
            return Err(damaged(format!(
                "log entry of {length} bytes, at most {PAYLOAD_BYTES_MAX}"
            )));
        }
        let body = take_body(&mut r, length)?;
        let payload = match kind {
            KIND_BLANK => EntryPayload::Blank,
            KIND_MEMBERSHIP => {
                EntryPayload::Membership(get_membership(&mut &body[..]).map_err(damaged)?)
            }
            KIND_FIRST.. => {
                EntryPayload::Normal(Proposal::decode(kind, Bytes::from(body)).map_err(damaged)?)
            }
            got => return Err(damaged(format!("log entry of kind {got} is not known"))),
        };
        Ok(Self(payload))
    }
}

fn put_payload(w: &mut impl Write, kind: u8, body: [&[u8]; 2]) -> io::Result<usize> {
    let [head, rest] = body;
    let bytes = head.len() + rest.len();
    let length = u32::try_from(bytes)
        .ok()
        .filter(|length| *length <= PAYLOAD_BYTES_MAX);
    let Some(length) = length else {
        return Err(damaged(format!(
            "log entry of {bytes} bytes, at most {PAYLOAD_BYTES_MAX}"
        )));
    };
    w.write_all(&[kind])?;
    w.write_all(&length.to_le_bytes())?;
    w.write_all(head)?;
    w.write_all(rest)?;
    Ok(5 + bytes)
}

/// Writes voter sets and the members, that is all nodes, learners among them.
pub(super) fn put_membership(w: &mut impl Write, membership: &Membership) -> io::Result<()> {
    let configs = membership.get_joint_config();
    put_count(w, configs.len(), CONFIGS_MAX)?;
    for voters in configs {
        put_count(w, voters.len(), MEMBERS_MAX)?;
        for id in voters {
            w.write_all(&id.to_le_bytes())?;
        }
    }
    put_count(w, membership.nodes().count(), MEMBERS_MAX)?;
    for (id, member) in membership.nodes() {
        let Member {
            address,
            incarnation,
        } = member;
        w.write_all(&id.to_le_bytes())?;
        w.write_all(&incarnation.to_bytes())?;
        put_count(w, address.len(), ADDRESS_BYTES_MAX)?;
        w.write_all(address.as_bytes())?;
    }
    Ok(())
}

/// Reads back [`put_membership`].
pub(super) fn get_membership(r: &mut impl Read) -> io::Result<Membership> {
    let mut configs = Vec::new();
    for _ in 0..get_count(r, CONFIGS_MAX)? {
        let mut voters = BTreeSet::new();
        for _ in 0..get_count(r, MEMBERS_MAX)? {
            voters.insert(u64::from_le_bytes(take(r)?));
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..get_count(r, MEMBERS_MAX)? {
        let id = u64::from_le_bytes(take(r)?);
        let incarnation = Incarnation::from_bytes(take(r)?);
        let length = get_count(r, ADDRESS_BYTES_MAX)?;
        let mut address = vec![0; length];
        r.read_exact(&mut address)?;
        let member = Member {
            address: String::from_utf8(address).map_err(damaged)?,
            incarnation,
        };
        nodes.insert(id, member);
    }
    Membership::new(configs, nodes).map_err(damaged)
}

fn put_count(w: &mut impl Write, count: usize, max: usize) -> io::Result<()> {
    let narrow = u16::try_from(count).ok().filter(|_| count <= max);
    let narrow =
        narrow.ok_or_else(|| damaged(format!("membership with {count}, at most {max}")))?;
    w.write_all(&narrow.to_le_bytes())
}

fn get_count(r: &mut impl Read, max: usize) -> io::Result<usize> {
    let count = usize::from(u16::from_le_bytes(take(r)?));
    if count > max {
        return Err(damaged(format!("membership with {count}, at most {max}")));
    }
    Ok(count)
}

/// Reads `length` bytes that may not be there: memory grows with what is, not with what is claimed.
fn take_body(r: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    const CAPACITY_MAX: usize = 1 << 20;
    let length = length as usize;
    let mut body = Vec::with_capacity(length.min(CAPACITY_MAX));
    let got = r.take(length as u64).read_to_end(&mut body)?;
    if got < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

pub(super) fn take<const N: usize>(r: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    r.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Refuses flags: none are known to this version.
pub(super) fn no_flags(r: &mut impl Read) -> io::Result<()> {
    match u16::from_le_bytes(take(r)?) {
        0 => Ok(()),
        got => Err(damaged(format!("flags {got:04x} are not known"))),
    }
}

pub(super) fn damaged(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{Command, parts};

    fn round_trip<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = value.encode(&mut bytes).expect("encodes");
        assert_eq!(length, bytes.len());
        assert_eq!(&T::decode(&bytes[..]).expect("decodes"), value);
        for cut in 0..bytes.len() {
            let error = T::decode(&bytes[..cut]).expect_err("cut short");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
        }
        bytes
    }

    fn membership(voters: &[&[u64]], nodes: &[u64]) -> Membership {
        let node = |id: &u64| {
            (
                *id,
                Member {
                    address: format!("https://node-{id}:7443"),
                    incarnation: Incarnation(u128::MAX - u128::from(*id)),
                },
            )
        };
        let configs = voters
            .iter()
            .map(|ids| ids.iter().copied().collect())
            .collect();
        Membership::new(configs, nodes.iter().map(node).collect::<BTreeMap<_, _>>()).expect("valid")
    }

    #[test]
    fn records_survive_a_round_trip_and_say_so_when_cut() {
        round_trip(&LogIdentity { node: NodeId(7) });
        round_trip(&StoredLogId {
            term: 3,
            index: u64::MAX - 1,
        });
        round_trip(&StoredVote(CellVote::new(3, 9)));
        round_trip(&StoredVote(CellVote::new_committed(u64::MAX, 9)));
        round_trip(&StoredPayload(EntryPayload::Blank));
        let joint = membership(&[&[1, 2, 3], &[3, 4, 5]], &[1, 2, 3, 4, 5, 9]);
        round_trip(&StoredPayload(EntryPayload::Membership(joint)));
        let command = Command::Transaction(crate::consensus::tests::transaction(5, 3));
        let whole = StoredPayload(EntryPayload::Normal(command.clone().into()));
        let whole = round_trip(&whole);
        let parts = parts::split(command, 5000, 9);
        assert_eq!(parts.len(), 3);
        let mut pieces = Vec::new();
        for part in parts {
            let part = round_trip(&StoredPayload(EntryPayload::Normal(part)));
            pieces.extend_from_slice(&part[5 + 17..]);
        }
        assert_eq!(pieces, whole[5..]);
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let vote = round_trip(&StoredVote(CellVote::new_committed(2, 3)));
        assert_eq!(vote, [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        let blank = round_trip(&StoredPayload(EntryPayload::Blank));
        assert_eq!(blank, [0, 0, 0, 0, 0]);
        let member = Member {
            address: "a".to_owned(),
            incarnation: Incarnation(0x0f0e << 112 | 7),
        };
        let one = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)]));
        let one = round_trip(&StoredPayload(EntryPayload::Membership(
            one.expect("valid"),
        )));
        assert_eq!(
            one,
            [
                1, 41, 0, 0, 0, // membership of 41 bytes
                1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, // one set of one voter
                1, 0, 1, 0, 0, 0, 0, 0, 0, 0, // one node
                7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0x0f, // its incarnation
                1, 0, b'a', // its address
            ][..]
        );
        let identity = round_trip(&LogIdentity { node: NodeId(5) });
        assert_eq!(identity, *b"TMLG\x01\0\0\0\x05\0\0\0\0\0\0\0");
    }

    #[test]
    fn lengths_from_outside_are_bounded() {
        let huge = [16, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(
            StoredPayload::decode(&huge[..])
                .expect_err("too long")
                .kind(),
            io::ErrorKind::InvalidData
        );
        let unknown = [7, 0, 0, 0, 0];
        assert_eq!(
            StoredPayload::decode(&unknown[..])
                .expect_err("unknown kind")
                .kind(),
            io::ErrorKind::InvalidData
        );
        let members = [1, 2, 0, 0, 0, 0xff, 0xff];
        assert_eq!(
            StoredPayload::decode(&members[..])
                .expect_err("too many")
                .kind(),
            io::ErrorKind::InvalidData
        );
    }
}
