//! Requests that committed, with their answers: what makes a retried write count once.
//!
//! The table is part of the replicated state: every transaction record names its request and carries
//! its answer, and every node fills the table from the committed log, in log order. What the log no
//! longer holds is kept in the file `requests`, written before the log is purged, so that
//! `file + log suffix` always gives the whole table.
//!
//! A request is remembered for [`AGE_MAX_MS`] at least, unless [`COUNT_MAX`] others were remembered after it; its
//! answer is kept until younger ones fill [`ANSWERS_BYTES_MAX`]. Later than that a retry is a new request.
//!
//! # Age
//!
//! No clock says how old a request is: a primary's may jump, and its successor's may be ahead by more than a whole
//! age. The order of the log does, by the stamps in it: from one request to the next as much time counts as their stamps
//! are apart, but none where they go back, and never more than [`STEP_MAX_MS`]. A request is as old as these steps since.
//!
//! ```text
//! age = sum of min(max(0, stamp - stamp before), STEP_MAX_MS), over the requests after it
//! ```
//!
//! So a jump, or another primary's clock, ages the requests by one step at most, less than an election takes, and a
//! clock that is put back by nothing. Where requests are rarer than a step they are remembered for longer, until
//! `AGE_MAX_MS / STEP_MAX_MS` have come after them. The table alone gives all ages: every voter forgets the same at the
//! same place of the log, whatever its own clock says.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use tidemark_protocol::{Epoch, Position, RequestId, Seq, StateChecksum, Transaction};

/// Requests remembered per database. About 130 bytes each.
pub(crate) const COUNT_MAX: usize = 1_000_000;
/// Bytes of answers kept per database.
pub(crate) const ANSWERS_BYTES_MAX: usize = 32 << 20;
/// Milliseconds for which a request is remembered, at least.
pub(crate) const AGE_MAX_MS: u64 = 15 * 60 * 1000;
/// Most milliseconds that count from one request to the next: what a clock that jumps can do.
const STEP_MAX_MS: u64 = 1000;

const MAGIC: &[u8; 8] = b"TMREQ\0\0\x01";
const FILE: &str = "requests";
/// A peer's table that waits to take the place of ours.
const FETCHED: &str = "requests-fetched";
/// Largest file.
pub(crate) const TABLE_BYTES_MAX: usize =
    MAGIC.len() + 4 + COUNT_MAX * RECORD_BYTES + ANSWERS_BYTES_MAX + 4;
/// Bytes of a record in the file before its answer.
const RECORD_BYTES: usize = 16 + 20 + 8 + 4;

/// Keeps a peer's table beside ours, durably, until [`adopt`]. False if it is no table.
pub(crate) fn keep_fetched(directory: &Path, table: &Bytes) -> io::Result<bool> {
    if decode(table).is_none() {
        return Ok(false);
    }
    crate::files::replace(&directory.join(FETCHED), table)?;
    Ok(true)
}

/// Puts the table of [`keep_fetched`] in place of ours.
///
/// Must be durable before the content that it belongs to: a table that is ahead names only what is
/// committed, and what the log repeats of it is remembered once; one that is behind would lack what the
/// log no longer has.
pub(crate) fn adopt(directory: &Path) -> io::Result<()> {
    std::fs::rename(directory.join(FETCHED), directory.join(FILE))?;
    std::fs::File::open(directory)?.sync_all()
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The state it led to.
    pub(crate) position: Position,
    /// The `result` array its client got, if it was short and young enough to keep.
    pub(crate) answer: Option<Bytes>,
    /// The stamp of its record, by the clock of the primary that made it.
    at_ms: u64,
}

/// The remembered requests of one database.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    outcomes: HashMap<RequestId, Outcome>,
    /// In commit order, oldest first.
    order: VecDeque<RequestId>,
    /// Milliseconds that the oldest is old: the steps between all of them.
    age_ms: u64,
    /// Those of them whose answers are kept: a suffix, as the oldest answers go first.
    answered: VecDeque<RequestId>,
    answers_bytes: usize,
    /// Whether the file lacks something.
    changed: bool,
}

impl Remembered {
    /// Reads the table that [`Remembered::save`] left in a database's directory.
    pub(crate) fn load(directory: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(directory.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let decoded = Self::decode(&bytes);
        // What is marked is fetched with its requests before anything is answered from it.
        if decoded.is_none() && tidemark_engine::is_marked(directory) {
            return Ok(Self::default());
        }
        decoded.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} is not a table of requests",
                    directory.join(FILE).display()
                ),
            )
        })
    }

    /// Reads the bytes of the file. `None`: they are no table.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(&Bytes::copy_from_slice(bytes))
    }

    /// Makes the table durable.
    pub(crate) fn save(&mut self, directory: &Path) -> io::Result<()> {
        if self.changed {
            crate::files::replace(&directory.join(FILE), &self.encode())?;
            self.changed = false;
        }
        Ok(())
    }

    /// The outcome of an earlier try.
    pub(crate) fn get(&self, request: &RequestId) -> Option<&Outcome> {
        self.outcomes.get(request)
    }

    /// Takes note of a committed transaction.
    pub(crate) fn note(&mut self, transaction: &Transaction) {
        let header = transaction.header();
        let Some(request) = header.request else {
            return;
        };
        let answer = transaction.answer();
        let outcome = Outcome {
            position: header.next,
            // A copy: the answer alone would keep the whole record, pages and all, in memory.
            answer: (!answer.is_empty()).then(|| Bytes::copy_from_slice(&answer)),
            at_ms: header.proposed_at_ms,
        };
        self.insert(request, outcome);
        while self.answers_bytes > ANSWERS_BYTES_MAX {
            self.forget_oldest_answer();
        }
        while self.order.len() > COUNT_MAX || self.age_ms > AGE_MAX_MS {
            self.forget_oldest();
        }
    }

    fn insert(&mut self, request: RequestId, outcome: Outcome) {
        if self.outcomes.contains_key(&request) {
            return; // the log repeats after a restart what the file has
        }
        if let Some(answer) = &outcome.answer {
            self.answers_bytes += answer.len();
            self.answered.push_back(request);
        }
        if let Some(before) = self.order.back() {
            self.age_ms += step_ms(self.outcomes[before].at_ms, outcome.at_ms);
        }
        self.outcomes.insert(request, outcome);
        self.order.push_back(request);
        self.changed = true;
    }

    fn forget_oldest(&mut self) {
        let Some(request) = self.order.pop_front() else {
            return;
        };
        if self.answered.front() == Some(&request) {
            self.forget_oldest_answer();
        }
        let outcome = self.outcomes.remove(&request);
        if let (Some(outcome), Some(next)) = (outcome, self.order.front()) {
            self.age_ms -= step_ms(outcome.at_ms, self.outcomes[next].at_ms);
        }
    }

    fn forget_oldest_answer(&mut self) {
        let Some(request) = self.answered.pop_front() else {
            return;
        };
        let outcome = self.outcomes.get_mut(&request);
        if let Some(answer) = outcome.and_then(|outcome| outcome.answer.take()) {
            self.answers_bytes -= answer.len();
        }
    }

    /// The bytes of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(64 + self.order.len() * 256);
        to.put_slice(MAGIC);
        to.put_u32_le(u32::try_from(self.order.len()).expect("bounded by COUNT_MAX"));
        for request in &self.order {
            let Outcome {
                position,
                answer,
                at_ms,
            } = &self.outcomes[request];
            to.put_slice(&request.to_bytes());
            to.put_u32_le(position.epoch.0);
            to.put_u64_le(position.seq.0);
            to.put_u64_le(position.checksum.0);
            to.put_u64_le(*at_ms);
            let answer = answer.as_deref().unwrap_or_default();
            to.put_u32_le(u32::try_from(answer.len()).expect("bounded by ANSWER_BYTES_MAX"));
            to.put_slice(answer);
        }
        let crc = crc32fast::hash(&to);
        to.put_u32_le(crc);
        to
    }
}

/// How much older a request becomes between these two stamps.
fn step_ms(before_ms: u64, after_ms: u64) -> u64 {
    after_ms.saturating_sub(before_ms).min(STEP_MAX_MS)
}

/// What is written of a table that was read.
#[cfg(feature = "fuzzing")]
pub(crate) fn again(bytes: &Bytes) -> Option<Vec<u8>> {
    decode(bytes).map(|table| table.encode())
}

fn decode(bytes: &Bytes) -> Option<Remembered> {
    let split = bytes.len().checked_sub(4)?;
    let mut tail = bytes.slice(split..);
    let mut from = bytes.slice(..split);
    if tail.get_u32_le() != crc32fast::hash(&from) || from.len() < MAGIC.len() + 4 {
        return None;
    }
    if from.split_to(MAGIC.len()) != MAGIC[..] {
        return None;
    }
    let count = from.get_u32_le() as usize;
    let mut remembered = Remembered::default();
    for _ in 0..count.min(COUNT_MAX) {
        if from.len() < RECORD_BYTES {
            return None;
        }
        let mut request = [0; 16];
        from.copy_to_slice(&mut request);
        let position = Position {
            epoch: Epoch(from.get_u32_le()),
            seq: Seq(from.get_u64_le()),
            checksum: StateChecksum(from.get_u64_le()),
        };
        let at_ms = from.get_u64_le();
        let length = from.get_u32_le() as usize;
        if from.len() < length {
            return None;
        }
        let answer = from.split_to(length);
        let answer = (!answer.is_empty()).then_some(answer);
        remembered.insert(
            RequestId::from_bytes(request),
            Outcome {
                position,
                answer,
                at_ms,
            },
        );
    }
    remembered.changed = false;
    from.is_empty().then_some(remembered)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, TransactionBuilder, TransactionHeader};

    use super::*;

    fn id(number: u64) -> RequestId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(number + 1).to_le_bytes());
        RequestId::from_bytes(bytes)
    }

    fn at(seq: u64) -> Position {
        Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
            checksum: StateChecksum(!seq),
        }
    }

    fn transaction(number: u64, at_ms: u64, answer: &[u8]) -> Transaction {
        let mut builder = TransactionBuilder::new();
        builder.push(PageNo(1), &[7; PAGE_SIZE]);
        let header = TransactionHeader {
            database: DatabaseId::from_bytes([1; 16]),
            base: at(number),
            next: at(number + 1),
            request: Some(id(number)),
            proposed_at_ms: at_ms,
            pages_after: 1,
        };
        builder.finish(header, answer).unwrap()
    }

    fn table(count: u64) -> Remembered {
        let mut remembered = Remembered::default();
        for number in 0..count {
            remembered.note(&transaction(
                number,
                number,
                format!("[{number}]").as_bytes(),
            ));
        }
        remembered
    }

    #[test]
    fn table_read_back_from_its_file_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            Remembered::load(directory.path()).unwrap().order.is_empty(),
            "no file, no requests"
        );
        let mut saved = table(100);
        saved.save(directory.path()).unwrap();
        let loaded = Remembered::load(directory.path()).unwrap();
        assert_eq!(loaded.order, saved.order);
        assert_eq!(loaded.outcomes, saved.outcomes);
        assert_eq!(
            loaded.get(&id(42)).unwrap().answer,
            Some(Bytes::from_static(b"[42]"))
        );
        assert_eq!(loaded.get(&id(42)).unwrap().position, at(43));
    }

    #[test]
    fn damaged_file_is_refused_whichever_byte_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        table(3).save(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for offset in 0..good.len() {
            let mut bad = good.clone();
            bad[offset] ^= 0x40;
            std::fs::write(&path, &bad).unwrap();
            assert!(Remembered::load(directory.path()).is_err(), "byte {offset}");
            std::fs::write(&path, &good[..offset]).unwrap();
            assert!(
                Remembered::load(directory.path()).is_err(),
                "cut at {offset}"
            );
        }
    }

    #[test]
    fn oldest_requests_are_forgotten_by_count_and_by_age() {
        let many = COUNT_MAX as u64 + 10;
        let mut by_count = Remembered::default();
        let one = transaction(0, 0, b"[]");
        for number in 0..many {
            let position = one.header().next;
            let outcome = Outcome {
                position,
                answer: None,
                at_ms: 0,
            };
            by_count.insert(id(number), outcome);
        }
        by_count.note(&transaction(many, 0, b"[]"));
        assert_eq!(by_count.order.len(), COUNT_MAX);
        assert!(by_count.get(&id(10)).is_none() && by_count.get(&id(11)).is_some());

        let mut by_age = table(10);
        let steps = AGE_MAX_MS / STEP_MAX_MS;
        for step in 1..=steps {
            by_age.note(&transaction(9 + step, 5 + step * STEP_MAX_MS, b"[]"));
        }
        // The first step took it from 9 ms to 1005 ms.
        assert!(by_age.get(&id(4)).is_none() && by_age.get(&id(5)).is_some());
        assert_eq!(by_age.outcomes.len(), by_age.order.len());
    }

    /// What a primary's clock does, or another primary's, must not make a retry count twice.
    #[test]
    fn clocks_that_jump_make_no_request_old() {
        let hours = 3_600_000;
        let jumps = [0, 5 * hours, 3, 9 * hours, 9 * hours + 1, 1, u64::MAX, 2];
        let mut remembered = Remembered::default();
        for (number, at_ms) in (0..).zip(jumps) {
            remembered.note(&transaction(number, at_ms, b"[]"));
        }
        assert_eq!(remembered.order.len(), jumps.len(), "none is forgotten");
        let forward = [5 * hours, 9 * hours, u64::MAX].len() as u64;
        assert_eq!(remembered.age_ms, forward * STEP_MAX_MS + 1);

        // Ages come from the table alone: one that is read back goes on in the same way.
        let mut loaded = decode(&remembered.encode().into()).unwrap();
        assert_eq!(loaded.age_ms, remembered.age_ms);
        for number in 0..2 * AGE_MAX_MS / STEP_MAX_MS {
            let next = transaction(100 + number, 2 + number * STEP_MAX_MS, b"[]");
            remembered.note(&next);
            loaded.note(&next);
        }
        assert_eq!(loaded.order, remembered.order);
        assert_eq!(remembered.order.len() as u64, AGE_MAX_MS / STEP_MAX_MS + 1);
    }

    #[test]
    fn oldest_answers_go_before_their_requests() {
        let long = vec![b'x'; 16 << 10];
        let mut remembered = Remembered::default();
        let fit = (ANSWERS_BYTES_MAX / long.len()) as u64;
        for number in 0..fit + 5 {
            remembered.note(&transaction(number, 0, &long));
        }
        assert!(remembered.answers_bytes <= ANSWERS_BYTES_MAX);
        assert_eq!(remembered.get(&id(4)).unwrap().answer, None);
        assert!(remembered.get(&id(5)).unwrap().answer.is_some());
    }

    #[test]
    fn peers_table_takes_the_place_of_ours_and_a_damaged_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        table(3).save(directory.path()).unwrap();
        let theirs = Bytes::from(table(7).encode());
        assert!(!keep_fetched(directory.path(), &theirs.slice(1..)).unwrap());
        assert!(keep_fetched(directory.path(), &theirs).unwrap());
        let loaded = Remembered::load(directory.path()).unwrap();
        assert_eq!(loaded.order.len(), 3, "not adopted yet");
        adopt(directory.path()).unwrap();
        let loaded = Remembered::load(directory.path()).unwrap();
        assert_eq!(loaded.order, table(7).order);
    }

    #[test]
    fn same_transaction_repeated_by_the_log_is_remembered_once() {
        let mut remembered = table(5);
        remembered.note(&transaction(3, 3, b"[3]"));
        assert_eq!(remembered.order.len(), 5);
    }
}
