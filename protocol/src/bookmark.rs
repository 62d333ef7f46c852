//! Bookmarks: a position as text that any client can hold, compare and hand over.
//!
//! ```text
//! EEEEEEEE-SSSSSSSS-SSSSSSSS-TTTTTTTTCCCCCCCCCCCCCCCCMMMMMMMM
//! epoch    seq (high, low)   database tag, state checksum, keyed check
//! ```
//!
//! Lowercase hex of fixed width in D1's 8-8-8-32 shape, so that text order is age order (D1's client
//! compares with `localeCompare`). The keyed check is SipHash-2-4 over all that precedes it: a damaged
//! or forged bookmark is recognised before it can make anybody wait. It guards against accidents and
//! guessing, it is no secret: 32 bits.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use siphasher::sip::SipHasher24;

use crate::id::{ClusterId, DatabaseId};
use crate::position::{Epoch, Position, Seq, StateChecksum};

/// The key of the check in bookmarks: one per cluster, kept in the catalogue, shipped with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BookmarkKey([u8; 16]);

impl BookmarkKey {
    /// Wraps sixteen random bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The cluster that has this key. Tells nothing of the key, and is nothing that a bookmark could hold.
    pub fn cluster(&self) -> ClusterId {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(b"tidemark: which cluster");
        ClusterId(hasher.finish())
    }

    fn check(&self, epoch: Epoch, seq: Seq, tag: u32, checksum: StateChecksum) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u32(epoch.0.to_be());
        hasher.write_u64(seq.0.to_be());
        hasher.write_u32(tag.to_be());
        hasher.write_u64(checksum.0.to_be());
        let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
        u32::from_le_bytes([a, b, c, d]) // the low half
    }
}

impl fmt::Debug for BookmarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BookmarkKey(..)")
    }
}

/// What is wrong with a text that was given as a bookmark.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookmarkError {
    /// Too short or too long.
    #[error("bookmark has {got} characters, expected {want}", want = Bookmark::TEXT_LENGTH)]
    Length {
        /// Characters given.
        got: usize,
    },
    /// A dash is missing or misplaced.
    #[error("bookmark has '{found}' at offset {offset}, expected '-'")]
    Dash {
        /// Where, in bytes.
        offset: usize,
        /// What stands there.
        found: char,
    },
    /// Something that is not a lowercase hex digit.
    #[error("bookmark has '{found}' at offset {offset}, expected a lowercase hex digit")]
    Digit {
        /// Where, in bytes.
        offset: usize,
        /// What stands there.
        found: char,
    },
    /// It was issued for another database.
    #[error("bookmark belongs to another database: tag {got:08x}, this one is {expected:08x}")]
    ForeignDatabase {
        /// The tag in the bookmark.
        got: u32,
        /// The tag of the database that was asked.
        expected: u32,
    },
    /// Nobody of this cluster issued it, or it was damaged on the way.
    #[error("bookmark fails its check: it was damaged, or issued by another cluster")]
    Forged,
}

/// A bookmark as it was written: well-formed, not yet verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bookmark {
    position: Position,
    tag: u32,
    check: u32,
}

impl Bookmark {
    /// Characters of the text form.
    pub const TEXT_LENGTH: usize = 8 + 1 + 8 + 1 + 8 + 1 + 32;
    const DASHES: [usize; 3] = [8, 17, 26];
    /// Bytes of the fields before which one stands.
    const DASHED: [usize; 3] = [4, 8, 12];

    /// The bookmark of `position` of `database`, signed with the cluster's key.
    pub fn issue(key: &BookmarkKey, database: DatabaseId, position: Position) -> Self {
        let tag = database.tag();
        let check = key.check(position.epoch, position.seq, tag, position.checksum);
        Self {
            position,
            tag,
            check,
        }
    }

    /// The position it names, once it is known to be of `database` and of this cluster.
    pub fn verify(
        &self,
        key: &BookmarkKey,
        database: DatabaseId,
    ) -> Result<Position, BookmarkError> {
        let position = self.position;
        // The check first: a damaged tag is damage, not another database.
        if key.check(position.epoch, position.seq, self.tag, position.checksum) != self.check {
            return Err(BookmarkError::Forged);
        }
        if self.tag != database.tag() {
            return Err(BookmarkError::ForeignDatabase {
                got: self.tag,
                expected: database.tag(),
            });
        }
        Ok(position)
    }

    /// The text form.
    pub fn text(&self) -> [u8; Self::TEXT_LENGTH] {
        // By hand: every answer carries one, and six formatted fields cost as much as its headers.
        let Position {
            epoch,
            seq,
            checksum,
        } = self.position;
        let mut fields = [0; 28];
        fields[..4].copy_from_slice(&epoch.0.to_be_bytes());
        fields[4..12].copy_from_slice(&seq.0.to_be_bytes());
        fields[12..16].copy_from_slice(&self.tag.to_be_bytes());
        fields[16..24].copy_from_slice(&checksum.0.to_be_bytes());
        fields[24..].copy_from_slice(&self.check.to_be_bytes());
        let mut digits = [0; 56];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(fields) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        let mut text = [b'-'; Self::TEXT_LENGTH];
        let mut from = 0;
        for (dashes, to) in Self::DASHED.into_iter().chain([fields.len()]).enumerate() {
            let (from_digit, to_digit) = (2 * from, 2 * to);
            text[from_digit + dashes..to_digit + dashes]
                .copy_from_slice(&digits[from_digit..to_digit]);
            from = to;
        }
        text
    }

    /// The position it claims, unverified: for display alone.
    pub fn claimed(&self) -> Position {
        self.position
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("hex digits and dashes"))
    }
}

impl FromStr for Bookmark {
    type Err = BookmarkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let characters = text.chars().count();
        if characters != Self::TEXT_LENGTH {
            return Err(BookmarkError::Length { got: characters });
        }
        for (offset, found) in text.char_indices() {
            if Self::DASHES.contains(&offset) {
                if found != '-' {
                    return Err(BookmarkError::Dash { offset, found });
                }
            } else if !matches!(found, '0'..='9' | 'a'..='f') {
                return Err(BookmarkError::Digit { offset, found });
            }
        }
        let field = |from: usize, to: usize| {
            u64::from_str_radix(&text[from..to], 16).expect("up to 16 hex digits, checked above")
        };
        let field32 = |from: usize| u32::try_from(field(from, from + 8)).expect("eight hex digits");
        Ok(Self {
            position: Position {
                epoch: Epoch(field32(0)),
                seq: Seq(field(9, 17) << 32 | field(18, 26)),
                checksum: StateChecksum(field(35, 51)),
            },
            tag: field32(27),
            check: field32(51),
        })
    }
}
