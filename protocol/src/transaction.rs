//! The transaction record: the pages one SQLite commit changed, with the positions before and after.
//!
//! The same bytes are a raft log payload, a message of the replica stream and (later) a piece of the
//! archive: encoded once by the engine as the pages arrive from SQLite, never copied again.
//! Little-endian; the byte table is in `docs/formats.md`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::id::{DatabaseId, RequestId};
use crate::position::{Epoch, PAGE_SIZE, PageNo, Position, Seq, StateChecksum};

const MAGIC: [u8; 4] = *b"TMTX";
const VERSION: u16 = 1;
/// Bytes before the first page.
const HEADER_BYTES: usize = 112;
/// Bytes from which the CRC is taken: all that follows the CRC itself.
const CRC_FROM: usize = 16;
/// Bytes of one page with its number.
const ENTRY_BYTES: usize = 4 + PAGE_SIZE;

/// Largest record that is encoded or accepted, in bytes: what 100 MB of SQL make, indexes included.
pub const TRANSACTION_BYTES_MAX: usize = 256 << 20;
/// Largest recorded answer, in bytes. A longer one is not recorded; a retry then learns only that, and
/// where, its first try committed.
pub const ANSWER_BYTES_MAX: usize = 16 << 10;

/// What a record says besides its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransactionHeader {
    /// The database it changes.
    pub database: DatabaseId,
    /// The state it was made on. Applying it to any other changes nothing.
    pub base: Position,
    /// The state it leads to.
    pub next: Position,
    /// The client's request, if it named one.
    pub request: Option<RequestId>,
    /// The primary's clock when it was made, milliseconds since 1970. Bounds the age of remembered
    /// requests; decides nothing else.
    pub proposed_at_ms: u64,
    /// Pages of the database afterwards.
    pub pages_after: u32,
}

/// An encoded, checked transaction. Cheap to clone: all clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Transaction {
    header: TransactionHeader,
    page_count: usize,
    encoded: Bytes,
}

/// Why bytes are not a transaction record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Fewer bytes than a header, or than the header says.
    #[error("transaction record has {got} bytes, expected {expected}")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes wanted.
        expected: usize,
    },
    /// It is something else.
    #[error("transaction record starts with {got:02x?}, expected {want:02x?}", want = MAGIC)]
    Magic {
        /// The first four bytes.
        got: [u8; 4],
    },
    /// A version this build does not know.
    #[error("transaction record has version {got}, this build reads {want}", want = VERSION)]
    Version {
        /// The version given.
        got: u16,
    },
    /// Flags that say something this build does not know.
    #[error("transaction record has flags {got:04x}, this build knows none")]
    Flags {
        /// The flags given.
        got: u16,
    },
    /// Damaged.
    #[error("transaction record has CRC {got:08x}, its bytes give {expected:08x}")]
    Crc {
        /// In the record.
        got: u32,
        /// Computed.
        expected: u32,
    },
    /// Over the bound.
    #[error("transaction of {got} bytes exceeds the limit of {max}", max = TRANSACTION_BYTES_MAX)]
    TooLarge {
        /// Bytes given.
        got: usize,
    },
    /// The sequence number does not grow.
    #[error("transaction goes from {base} to {next}, which is not later")]
    Order {
        /// Position before.
        base: Position,
        /// Position after.
        next: Position,
    },
    /// A page number is zero, repeated, out of order or beyond the end.
    #[error("transaction lists page {page} after page {previous} of {pages_after}")]
    Page {
        /// The page number given.
        page: u32,
        /// The one before it, 0 at the start.
        previous: u32,
        /// Pages of the database afterwards.
        pages_after: u32,
    },
}

impl Transaction {
    /// What it says besides its pages.
    pub fn header(&self) -> &TransactionHeader {
        &self.header
    }

    /// The record's bytes.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Number of pages in the record.
    pub fn page_count(&self) -> usize {
        self.page_count
    }

    /// The pages, by ascending number, each once.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = (PageNo, &[u8; PAGE_SIZE])> {
        (0..self.page_count).map(|index| self.page(index))
    }

    /// The page at `index` of [`Transaction::pages`]. Panics beyond [`Transaction::page_count`].
    pub fn page(&self, index: usize) -> (PageNo, &[u8; PAGE_SIZE]) {
        assert!(
            index < self.page_count,
            "page {index} of {}",
            self.page_count
        );
        entry(&self.encoded[HEADER_BYTES..], index)
    }

    /// The answer the client got, if it was short enough to be recorded. Empty otherwise.
    pub fn answer(&self) -> Bytes {
        self.encoded
            .slice(HEADER_BYTES + self.page_count * ENTRY_BYTES..)
    }

    /// Reads a record that must fill `encoded` exactly.
    pub fn decode(encoded: Bytes) -> Result<Self, TransactionError> {
        let got = encoded.len();
        if got < HEADER_BYTES {
            return Err(TransactionError::Length {
                got,
                expected: HEADER_BYTES,
            });
        }
        if got > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLarge { got });
        }
        let mut fields = &encoded[..HEADER_BYTES];
        let mut magic = [0; 4];
        fields.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(TransactionError::Magic { got: magic });
        }
        let version = fields.get_u16_le();
        if version != VERSION {
            return Err(TransactionError::Version { got: version });
        }
        let flags = fields.get_u16_le();
        if flags != 0 {
            return Err(TransactionError::Flags { got: flags });
        }
        let length = fields.get_u32_le() as usize;
        if length != got {
            return Err(TransactionError::Length {
                got,
                expected: length,
            });
        }
        let crc = fields.get_u32_le();
        let expected = crc32fast::hash(&encoded[CRC_FROM..]);
        if crc != expected {
            return Err(TransactionError::Crc { got: crc, expected });
        }
        let header = get_header(&mut fields);
        let page_count = fields.get_u32_le() as usize;
        let answer_bytes = fields.get_u32_le() as usize;
        // Both are at most u32, so the sum cannot overflow a u64-sized usize.
        let want = HEADER_BYTES + page_count * ENTRY_BYTES + answer_bytes;
        if want != got {
            return Err(TransactionError::Length {
                got,
                expected: want,
            });
        }
        let transaction = Self {
            header,
            page_count,
            encoded,
        };
        transaction.validate()?;
        Ok(transaction)
    }

    /// What encoder and decoder both insist on.
    fn validate(&self) -> Result<(), TransactionError> {
        let TransactionHeader {
            base,
            next,
            pages_after,
            ..
        } = self.header;
        if (next.epoch, next.seq) <= (base.epoch, base.seq) {
            return Err(TransactionError::Order { base, next });
        }
        let mut previous = 0;
        for (PageNo(page), _) in self.pages() {
            if page <= previous || page > pages_after {
                return Err(TransactionError::Page {
                    page,
                    previous,
                    pages_after,
                });
            }
            previous = page;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("header", &self.header)
            .field("page_count", &self.page_count)
            .field("bytes", &self.encoded.len())
            .finish()
    }
}

/// A transaction record under construction: the pages so far, in the order they came.
///
/// The same page may be pushed again (SQLite's cache spilled and the page changed once more), and a
/// savepoint may be undone ([`TransactionBuilder::truncate`]); [`TransactionBuilder::finish`] keeps the
/// last image of each page.
#[derive(Debug)]
pub struct TransactionBuilder {
    /// Room for the header, then pages with their numbers.
    buffer: BytesMut,
}

impl Default for TransactionBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TransactionBuilder {
    /// An empty record.
    pub fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(HEADER_BYTES + ENTRY_BYTES + 1024);
        buffer.put_bytes(0, HEADER_BYTES);
        Self { buffer }
    }

    /// Adds a page image.
    pub fn push(&mut self, page: PageNo, image: &[u8; PAGE_SIZE]) {
        self.buffer.put_u32_le(page.0);
        self.buffer.put_slice(image);
    }

    /// Images pushed and not truncated.
    pub fn image_count(&self) -> usize {
        (self.buffer.len() - HEADER_BYTES) / ENTRY_BYTES
    }

    /// Bytes the record has so far.
    pub fn byte_count(&self) -> usize {
        self.buffer.len()
    }

    /// The image pushed as number `index`, from 0.
    pub fn image(&self, index: usize) -> (PageNo, &[u8; PAGE_SIZE]) {
        entry(&self.buffer[HEADER_BYTES..], index)
    }

    /// Puts another image in place of the one pushed as number `index`, from 0.
    pub fn replace(&mut self, index: usize, image: &[u8; PAGE_SIZE]) {
        assert!(
            index < self.image_count(),
            "image {index} of {}",
            self.image_count()
        );
        let start = HEADER_BYTES + index * ENTRY_BYTES + 4;
        self.buffer[start..start + PAGE_SIZE].copy_from_slice(image);
    }

    /// Forgets the images for whose number `keep` is false. The others keep their order.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let at = |index: usize| HEADER_BYTES + index * ENTRY_BYTES;
        let mut kept = 0;
        for index in 0..self.image_count() {
            if keep(index) {
                self.buffer.copy_within(at(index)..at(index + 1), at(kept));
                kept += 1;
            }
        }
        self.truncate(kept);
    }

    /// Forgets all images but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.buffer.truncate(HEADER_BYTES + count * ENTRY_BYTES);
    }

    /// Keeps of each page its last image, by ascending page number, dropping pages beyond
    /// `pages_after`. Call before hashing pages or finishing.
    pub fn compact(&mut self, pages_after: u32) {
        let count = self.image_count();
        let ascending = (1..count).all(|i| self.image(i - 1).0 < self.image(i).0);
        let inside = (0..count).all(|i| self.image(i).0.0 <= pages_after);
        if ascending && inside {
            return; // the common case: SQLite hands dirty pages over in order
        }
        let last: std::collections::BTreeMap<PageNo, usize> = (0..count)
            .map(|index| (self.image(index).0, index))
            .collect();
        let mut kept = Self::new();
        for (page, index) in last {
            if page.0 <= pages_after {
                kept.push(page, self.image(index).1);
            }
        }
        *self = kept;
    }

    /// Seals the record. `answer` is recorded if it is within [`ANSWER_BYTES_MAX`].
    pub fn finish(
        mut self,
        header: TransactionHeader,
        answer: &[u8],
    ) -> Result<Transaction, TransactionError> {
        self.compact(header.pages_after);
        let page_count = self.image_count();
        let answer = if answer.len() <= ANSWER_BYTES_MAX {
            answer
        } else {
            &[]
        };
        self.buffer.put_slice(answer);
        let got = self.buffer.len();
        if got > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLarge { got });
        }
        let narrow = |n: usize| u32::try_from(n).expect("bounded by TRANSACTION_BYTES_MAX");
        let mut fields = Vec::with_capacity(HEADER_BYTES);
        fields.put_slice(&MAGIC);
        fields.put_u16_le(VERSION);
        fields.put_u16_le(0); // flags
        fields.put_u32_le(narrow(got));
        fields.put_u32_le(0); // CRC, below
        put_header(&mut fields, &header);
        fields.put_u32_le(narrow(page_count));
        fields.put_u32_le(narrow(answer.len()));
        fields.put_u32_le(0); // reserved
        debug_assert_eq!(fields.len(), HEADER_BYTES);
        self.buffer[..HEADER_BYTES].copy_from_slice(&fields);
        let crc = crc32fast::hash(&self.buffer[CRC_FROM..]);
        self.buffer[12..16].copy_from_slice(&crc.to_le_bytes());
        let transaction = Transaction {
            header,
            page_count,
            encoded: self.buffer.freeze(),
        };
        transaction.validate()?;
        Ok(transaction)
    }
}

fn entry(entries: &[u8], index: usize) -> (PageNo, &[u8; PAGE_SIZE]) {
    let entry = &entries[index * ENTRY_BYTES..(index + 1) * ENTRY_BYTES];
    let (number, image) = entry.split_at(4);
    (
        PageNo(u32::from_le_bytes(number.try_into().expect("four bytes"))),
        image.try_into().expect("PAGE_SIZE bytes"),
    )
}

fn put_header(to: &mut impl BufMut, header: &TransactionHeader) {
    let TransactionHeader {
        database,
        base,
        next,
        request,
        proposed_at_ms,
        pages_after,
    } = header;
    to.put_slice(&database.to_bytes());
    put_position(to, base);
    put_position(to, next);
    to.put_slice(&request.map_or([0; 16], RequestId::to_bytes));
    to.put_u64_le(*proposed_at_ms);
    to.put_u32_le(*pages_after);
}

fn get_header(from: &mut impl Buf) -> TransactionHeader {
    let mut database = [0; 16];
    from.copy_to_slice(&mut database);
    let base = get_position(from);
    let next = get_position(from);
    let mut request = [0; 16];
    from.copy_to_slice(&mut request);
    TransactionHeader {
        database: DatabaseId::from_bytes(database),
        base,
        next,
        request: (request != [0; 16]).then(|| RequestId::from_bytes(request)),
        proposed_at_ms: from.get_u64_le(),
        pages_after: from.get_u32_le(),
    }
}

/// Bytes of a position in records and messages.
pub(crate) const POSITION_BYTES: usize = 20;

/// Writes a position: epoch, seq, checksum.
pub(crate) fn put_position(to: &mut impl BufMut, position: &Position) {
    let Position {
        epoch,
        seq,
        checksum,
    } = position;
    to.put_u32_le(epoch.0);
    to.put_u64_le(seq.0);
    to.put_u64_le(checksum.0);
}

/// Reads a position. The caller has checked that [`POSITION_BYTES`] are there.
pub(crate) fn get_position(from: &mut impl Buf) -> Position {
    Position {
        epoch: Epoch(from.get_u32_le()),
        seq: Seq(from.get_u64_le()),
        checksum: StateChecksum(from.get_u64_le()),
    }
}
