//! Why bytes are not a message of the stream.

use super::{MAGIC, STREAM_VERSION};
use crate::transaction::TransactionError;

/// Why bytes are not a message of the stream.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Too short, or not as long as it says.
    #[error("stream message has {got} bytes, expected {expected}")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes wanted.
        expected: usize,
    },
    /// It is something else.
    #[error("stream message starts with {got:02x?}, expected {want:02x?}", want = MAGIC)]
    Magic {
        /// The first four bytes.
        got: [u8; 4],
    },
    /// The peer speaks another version.
    #[error("stream message has version {got}, this build speaks {want}", want = STREAM_VERSION)]
    Version {
        /// The version given.
        got: u8,
    },
    /// Flags that say something this build does not know.
    #[error("stream message has flags {got:04x}, this build knows none")]
    Flags {
        /// The flags given.
        got: u16,
    },
    /// Damaged.
    #[error("stream message has CRC {got:08x}, its bytes give {expected:08x}")]
    Crc {
        /// In the message.
        got: u32,
        /// Computed.
        expected: u32,
    },
    /// No such message in this direction.
    #[error("stream message of unknown kind {got}")]
    Kind {
        /// The kind given.
        got: u8,
    },
    /// More elements than the bound.
    #[error("stream message lists {got} elements, at most {max} are allowed")]
    TooMany {
        /// Elements given.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// A page number is zero, or not above the one before it.
    #[error("stream message lists page {page} after page {previous}")]
    Page {
        /// The page number given.
        page: u32,
        /// The one before it, 0 at the start.
        previous: u32,
    },
    /// Text that is not a region's name.
    #[error("stream message names a region badly: {reason}")]
    Region {
        /// What is wrong with it.
        reason: String,
    },
    /// A URL that is none.
    #[error("stream message names the URL of a voter badly: {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// A transaction record inside is bad.
    #[error("stream message carries a bad transaction")]
    Transaction(#[from] TransactionError),
}
