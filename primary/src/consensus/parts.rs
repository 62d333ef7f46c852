//! Commands that are too large for one entry of the log: split into parts on the leader, put together again
//! where they are applied.
//!
//! An entry of 256 MiB would hold up everything behind it, heartbeats' answers included, and no deadline of
//! a message would suit it. So a command above [`super::ConsensusConfig::entry_bytes_max`] becomes several
//! entries, each with a piece of its bytes and the same number. It takes effect where its last part is applied,
//! as if it were that one entry; parts before it change nothing.
//!
//! Invariants:
//!
//! - Whoever proposes in parts proposes alone: [`super::Consensus::propose`] hands all parts over under a lock
//!   that no other proposal gets past. So nothing but consensus' own entries lies between the parts of a
//!   command, and an entry that is not the next part is the end of it: at most one is being put together.
//! - What becomes of an incomplete command depends on the log alone. It is dropped at the first entry that
//!   cannot belong to it: of another term, a command of its own, a part of another number or that does not
//!   continue where the last one ended. All nodes see the same entries, so all drop it at the same one.
//! - A part may be missing, because the leader's lease was old for a moment. What follows it does not
//!   continue, so the command never takes effect. Its proposal is refused then, which is certain.
//! - A number names one command of one term: counted by the one process that leads it. Without it the last part
//!   of a command could complete another one of the same length, whose own last part was refused.
//! - What is durable without the log never ends between the parts of a command: a state machine that has
//!   part of one reports the entry before its first part, and nothing of ours lies after that but parts.
//! - Memory: the parts of one command, at most [`COMMAND_BYTES_MAX`] in all, and once more while they
//!   are joined.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidemark_protocol::Term;
use tidemark_protocol::transaction::TRANSACTION_BYTES_MAX;

use super::Command;
use super::command::CommandError;
use super::proposal::Proposal;

/// Largest command, in bytes.
pub(super) const COMMAND_BYTES_MAX: usize = TRANSACTION_BYTES_MAX;
/// Bytes of a part before its piece.
const HEADER_BYTES: usize = 8 + 4 + 4 + 1;

/// A piece of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// The same in all parts of a command, and in no other of its term.
    number: u64,
    /// Bytes of the command.
    length: u32,
    /// Where in them the piece begins.
    offset: u32,
    /// Kind of the command.
    kind: u8,
    piece: Bytes,
}

/// Bytes are not a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PartError {
    /// Too short to say what it is a part of.
    #[error("part of {got} bytes, at least {HEADER_BYTES}")]
    Header {
        /// Its length.
        got: usize,
    },
    /// Of a command that is larger than any.
    #[error("part of a command of {got} bytes, at most {COMMAND_BYTES_MAX}")]
    Length {
        /// Bytes of the command.
        got: u32,
    },
    /// Empty, or longer than its command.
    #[error("part of {bytes} bytes from {offset}, of a command of {length}")]
    Range {
        /// Bytes of the part.
        bytes: usize,
        /// Where they begin.
        offset: u32,
        /// Bytes of the command.
        length: u32,
    },
}

impl Part {
    /// What comes before the piece.
    pub(super) fn header(&self) -> Vec<u8> {
        let Self {
            number,
            length,
            offset,
            kind,
            piece: _,
        } = self;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put_u64_le(*number);
        header.put_u32_le(*length);
        header.put_u32_le(*offset);
        header.put_u8(*kind);
        header
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.piece
    }

    /// Reads back [`Part::header`] and the piece.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, PartError> {
        if bytes.len() < HEADER_BYTES {
            return Err(PartError::Header { got: bytes.len() });
        }
        let part = Self {
            number: bytes.get_u64_le(),
            length: bytes.get_u32_le(),
            offset: bytes.get_u32_le(),
            kind: bytes.get_u8(),
            piece: bytes,
        };
        part.validate()?;
        Ok(part)
    }

    fn validate(&self) -> Result<(), PartError> {
        let (bytes, offset, length) = (self.piece.len(), self.offset, self.length);
        if length as usize > COMMAND_BYTES_MAX {
            return Err(PartError::Length { got: length });
        }
        if bytes == 0 || self.end() > length as usize {
            return Err(PartError::Range {
                bytes,
                offset,
                length,
            });
        }
        Ok(())
    }

    /// Where in the command the piece ends.
    fn end(&self) -> usize {
        (self.offset as usize).saturating_add(self.piece.len())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, end, length) = (self.number, self.end(), self.length);
        write!(f, "part of {number}: {}..{end} of {length}", self.offset)
    }
}

/// One entry, or parts under `number` if it is larger than `entry_bytes_max`.
pub(super) fn split(command: Command, entry_bytes_max: usize, number: u64) -> Vec<Proposal> {
    let body = command.body();
    let length = body.len();
    if length <= entry_bytes_max {
        return vec![Proposal::Whole(command)];
    }
    let narrow = |n: usize| u32::try_from(n).expect("a command is bounded");
    let part = |offset: usize| {
        let end = (offset + entry_bytes_max).min(length);
        let part = Part {
            number,
            length: narrow(length),
            offset: narrow(offset),
            kind: command.kind(),
            piece: body.slice(offset..end),
        };
        debug_assert_eq!(part.validate(), Ok(()));
        Proposal::Part(part)
    };
    (0..length).step_by(entry_bytes_max).map(part).collect()
}

/// The command that is being put together, if any. `P` is where the log stood before its first part.
#[derive(Clone, Debug, Default)]
pub(super) struct Assembly<P> {
    open: Option<Open<P>>,
}

#[derive(Clone, Debug)]
struct Open<P> {
    term: Term,
    /// Without its piece.
    next: Part,
    pieces: Vec<Bytes>,
    before: P,
}

impl<P> Assembly<P> {
    /// Where the log stood before the first part of what is incomplete.
    pub(super) fn before(&self) -> Option<&P> {
        self.open.as_ref().map(|open| &open.before)
    }

    /// An entry of `term` that is none of ours: it ends what was begun in another term.
    pub(super) fn pass(&mut self, term: Term) {
        if self.open.as_ref().is_some_and(|open| open.term != term) {
            self.drop_open();
        }
    }

    /// Drops what is incomplete: the entry that comes does not continue it, or the state it belongs to is
    /// replaced.
    pub(super) fn drop_open(&mut self) {
        if let Some(open) = self.open.take() {
            let (number, end, length) = (open.next.number, open.next.offset, open.next.length);
            let term = open.term;
            tracing::warn!(%term, number, end, length, "a command in parts was not completed");
        }
    }

    /// The next proposal of the log. Answers the command that takes effect with it, or none if it is
    /// part of one. `before` says where the log stands before it.
    pub(super) fn take(
        &mut self,
        term: Term,
        proposal: Proposal,
        before: impl FnOnce() -> P,
    ) -> Taken {
        let part = match proposal {
            Proposal::Whole(command) => {
                self.drop_open();
                return Taken::Command(command);
            }
            Proposal::Part(part) => part,
        };
        if !self
            .open
            .as_ref()
            .is_some_and(|open| open.goes_on(term, &part))
        {
            self.drop_open();
            if part.offset > 0 {
                return Taken::Stray;
            }
            self.open = Some(Open::new(term, &part, before()));
        }
        let Some(open) = &mut self.open else {
            unreachable!("begun above, or going on");
        };
        let complete = open.push(part);
        if !complete {
            return Taken::Part;
        }
        let open = self.open.take().expect("it was there");
        Taken::Complete(open.complete())
    }
}

/// What became of a proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It takes effect.
    Command(Command),
    /// It completes what takes effect.
    Complete(Complete),
    /// Part of a command that is not complete yet.
    Part,
    /// Part of a command that never will be.
    Stray,
}

impl<P> Open<P> {
    fn new(term: Term, first: &Part, before: P) -> Self {
        let next = Part {
            piece: Bytes::new(),
            ..first.clone()
        };
        Self {
            term,
            next,
            pieces: Vec::new(),
            before,
        }
    }

    fn goes_on(&self, term: Term, part: &Part) -> bool {
        let Part {
            number,
            length,
            offset,
            kind,
            piece: _,
        } = self.next;
        let begins = (part.number, part.length, part.offset, part.kind);
        self.term == term && begins == (number, length, offset, kind)
    }

    /// True if it was the last.
    fn push(&mut self, part: Part) -> bool {
        self.next.offset += u32::try_from(part.piece.len()).expect("validated");
        self.pieces.push(part.piece);
        self.next.offset == self.next.length
    }

    fn complete(self) -> Complete {
        Complete {
            kind: self.next.kind,
            length: self.next.length,
            pieces: self.pieces,
        }
    }
}

/// All pieces of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Complete {
    kind: u8,
    length: u32,
    pieces: Vec<Bytes>,
}

impl Complete {
    /// The command. Takes a good part of a second for one of the largest.
    pub(super) fn join(self) -> Result<Command, CommandError> {
        let mut body = BytesMut::with_capacity(self.length as usize);
        for piece in self.pieces {
            body.put_slice(&piece);
        }
        Command::decode(self.kind, body.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::tests::transaction;

    const ENTRY_BYTES_MAX: usize = 1000;

    /// All of the same length, so that only their numbers tell their parts apart.
    fn command(seq: u64) -> Command {
        Command::Transaction(transaction(seq, 1))
    }

    fn parts(seq: u64, number: u64) -> Vec<Proposal> {
        let parts = split(command(seq), ENTRY_BYTES_MAX, number);
        assert!(parts.len() > 3, "{} parts", parts.len());
        parts
    }

    /// An entry of the log. No proposal: one of consensus' own.
    type Entry = (Term, Option<Proposal>);

    /// What takes effect, and where.
    fn apply(assembly: &mut Assembly<usize>, log: &[Entry], from: usize) -> Vec<(usize, Command)> {
        let mut effects = Vec::new();
        for (index, (term, proposal)) in log.iter().enumerate().skip(from) {
            match proposal {
                None => assembly.pass(*term),
                Some(proposal) => match assembly.take(*term, proposal.clone(), || index) {
                    Taken::Command(command) => effects.push((index, command)),
                    Taken::Complete(parts) => {
                        effects.push((index, parts.join().expect("sound parts")));
                    }
                    Taken::Part | Taken::Stray => {}
                },
            }
        }
        effects
    }

    #[test]
    fn a_command_that_fits_an_entry_is_one() {
        let length = command(1).body().len();
        let whole = split(command(1), length, 1);
        assert_eq!(whole, [Proposal::Whole(command(1))]);
        assert_eq!(split(command(1), length - 1, 1).len(), 2);
    }

    #[test]
    fn a_part_survives_a_round_trip_and_says_where_it_belongs() {
        for part in parts(1, 7) {
            let (header, piece) = part.pieces();
            let bytes: Bytes = [&header, &piece[..]].concat().into();
            assert_eq!(Proposal::decode(KIND, bytes.clone()), Ok(part.clone()));
            for cut in 0..=HEADER_BYTES {
                let cut = Part::decode(bytes.slice(..cut));
                assert!(cut.is_err(), "{cut:?}");
            }
        }
        let bytes = |length: u32, offset: u32, piece: &[u8]| {
            let mut bytes = BytesMut::new();
            bytes.put_u64_le(1);
            bytes.put_u32_le(length);
            bytes.put_u32_le(offset);
            bytes.put_u8(16);
            bytes.put_slice(piece);
            bytes.freeze()
        };
        assert!(Part::decode(bytes(10, 8, b"ab")).is_ok());
        let outside = Part::decode(bytes(10, 8, b"abc"));
        assert!(matches!(outside, Err(PartError::Range { .. })));
        let outside = Part::decode(bytes(10, u32::MAX, b"a"));
        assert!(matches!(outside, Err(PartError::Range { .. })));
        let large = Part::decode(bytes(u32::MAX, 0, b"a"));
        assert!(matches!(large, Err(PartError::Length { .. })));
    }

    const KIND: u8 = crate::consensus::command::KIND_PART;

    /// The first command's last part is refused, as are the second's but its last: the lease was old for
    /// a moment. Both are of the same length and term.
    #[test]
    fn the_last_part_of_another_command_completes_nothing() {
        let (first, second) = (parts(1, 1), parts(2, 2));
        let last = first.len() - 1;
        let mut log: Vec<_> = first[..last].to_vec();
        log.push(second[last].clone());
        log.extend(parts(3, 3));
        let log: Vec<Entry> = log.into_iter().map(|p| (Term(1), Some(p))).collect();
        let effects = apply(&mut Assembly::default(), &log, 0);
        assert_eq!(effects, [(log.len() - 1, command(3))]);
    }

    #[test]
    fn a_part_missing_in_the_middle_leaves_no_trace() {
        for missing in 0..parts(1, 1).len() {
            let mut first = parts(1, 1);
            first.remove(missing);
            first.push(Proposal::Whole(command(2)));
            let log: Vec<Entry> = first.into_iter().map(|p| (Term(1), Some(p))).collect();
            let mut assembly = Assembly::default();
            let effects = apply(&mut assembly, &log, 0);
            assert_eq!(effects, [(log.len() - 1, command(2))], "part {missing}");
            assert_eq!(assembly.before(), None);
        }
    }

    /// The same number counts for another leader from the beginning.
    #[test]
    fn a_newer_term_completes_nothing_of_an_older_one() {
        let all = parts(1, 1);
        for at in 1..all.len() {
            let (head, tail) = all.split_at(at);
            let mut log: Vec<Entry> = Vec::new();
            log.extend(head.iter().map(|p| (Term(1), Some(p.clone()))));
            log.push((Term(2), None));
            log.extend(tail.iter().map(|p| (Term(2), Some(p.clone()))));
            let mut assembly = Assembly::default();
            assert_eq!(apply(&mut assembly, &log, 0), [], "cut at {at}");
            assert_eq!(assembly.before(), None);
        }
    }

    /// A leader's mind, and what of it came into the log.
    struct Model {
        random: u64,
        seq: u64,
        term: Term,
        number: u64,
        log: Vec<Entry>,
        effects: Vec<(usize, Command)>,
    }

    impl Model {
        fn new(seed: u64) -> Self {
            Self {
                random: seed,
                seq: 0,
                term: Term(1),
                number: 0,
                log: Vec::new(),
                effects: Vec::new(),
            }
        }

        /// Below `n`: splitmix64.
        fn draw(&mut self, n: u64) -> u64 {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % n
        }

        fn new_term(&mut self) {
            self.term = Term(self.term.0 + 1);
            self.number = 0;
            self.log.push((self.term, None));
        }

        fn step(&mut self) {
            self.seq += 1;
            let seq = self.seq;
            match self.draw(8) {
                0 => self.new_term(),
                1 => self.log.push((self.term, None)),
                2 | 3 => {
                    self.effects.push((self.log.len(), command(seq)));
                    let whole = Proposal::Whole(command(seq));
                    self.log.push((self.term, Some(whole)));
                }
                _ => self.propose_in_parts(seq),
            }
        }

        fn propose_in_parts(&mut self, seq: u64) {
            self.number += 1;
            let term = self.term;
            let refuses = self.draw(3) == 0;
            let mut complete = true;
            for part in parts(seq, self.number) {
                if self.draw(40) == 0 {
                    self.new_term();
                    complete = false;
                    break;
                }
                if self.draw(10) == 0 {
                    self.log.push((term, None)); // a membership, say
                }
                if refuses && self.draw(3) == 0 {
                    complete = false;
                } else {
                    self.log.push((term, Some(part)));
                }
            }
            if complete {
                self.effects.push((self.log.len() - 1, command(seq)));
            }
        }
    }

    #[test]
    fn commands_take_effect_if_all_their_parts_follow_each_other_and_a_restart_repeats_them() {
        for seed in 0..150 {
            let mut model = Model::new(seed);
            for _ in 0..60 {
                model.step();
            }
            let effects = apply(&mut Assembly::default(), &model.log, 0);
            assert!(effects == model.effects, "seed {seed}");

            // Whenever a node persists and starts again from there, it misses and repeats nothing.
            for _ in 0..20 {
                let bound = model.log.len() as u64 + 1;
                let at = usize::try_from(model.draw(bound)).expect("small");
                let mut assembly = Assembly::default();
                let first = apply(&mut assembly, &model.log[..at], 0);
                let from = assembly.before().copied().unwrap_or(at);
                assert!(first.iter().all(|(index, _)| *index < from), "seed {seed}");
                let then = apply(&mut Assembly::default(), &model.log, from);
                let both = [first, then].concat();
                assert!(both == model.effects, "seed {seed}, restart at {at}");
            }
        }
    }
}
