//! Messages of the replica stream: how committed transactions reach the copies in other regions.
//!
//! One connection between a follower (a replica) and its source (the primary, or a replica nearer to
//! it); all databases share it. Every message is one binary WebSocket message: a fixed envelope with
//! magic, version, kind, length and CRC-32, then the payload. Little-endian; the byte tables are in
//! `docs/formats.md`.
//!
//! 1. The follower says [`FollowerMessage::Hello`], the source [`SourceMessage::Welcome`].
//! 2. Per database the follower says from where it wants to go on ([`FollowerMessage::Follow`]). The
//!    source either goes on from there ([`SourceMessage::Transaction`] and so forth) or asks for page
//!    hashes ([`SourceMessage::NeedHashes`]): the copy is too old, unknown, or of another history.
//! 3. After the hashes it sends an image: begin, the pages that differ, end. Then transactions again.
//! 4. Both sides know the other is alive from heartbeats and their echoes.
//! 5. The follower asks whether it has everything ([`FollowerMessage::Ask`]). The source makes sure that it
//!    still leads, sends whatever was committed by then, and answers behind that ([`SourceMessage::Current`]).
//! 6. The source tells who votes ([`SourceMessage::Voters`]), so that a follower finds the cell again when all that
//!    it was set up with have been replaced.
//! 7. A source packs its larger messages for a follower that wants it ([`SourceMessage::Packed`]).
//!
//! ```text
//! confirmed <= applied <= sent <= acknowledged        (per database and follower)
//! ```

mod error;
mod pages;

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::id::{DatabaseId, NodeId, Region, Term};
use crate::position::{PageNo, Position};
use crate::transaction::{
    POSITION_BYTES, TRANSACTION_BYTES_MAX, Transaction, get_position, put_position,
};

use self::pages::ENTRY_BYTES;

pub use self::error::StreamError;
pub use self::pages::{Pages, PagesBuilder};

const MAGIC: [u8; 4] = *b"TMST";
/// Version of the stream protocol spoken by this build.
pub const STREAM_VERSION: u8 = 1;
/// In the header `tidemark-stream` of a source's answer to the request for the stream: it knows
/// [`FollowerMessage::Ask`]. One that does not say so would end the connection over it.
pub const ASKS: &str = "asks";
/// In the same header of a follower's request for the stream: it knows [`SourceMessage::Voters`].
pub const TOLD_VOTERS: &str = "voters";
/// In the same place: it knows [`SourceMessage::Packed`], and wants large messages to come so.
pub const PACKED: &str = "zstd";
/// Most voters in one [`SourceMessage::Voters`].
pub const VOTERS_PER_MESSAGE_MAX: usize = 64;
/// Longest URL in one, in bytes.
pub const VOTER_URL_BYTES_MAX: usize = 1024;
/// Bytes before the payload.
pub const ENVELOPE_BYTES: usize = 16;
/// Where the CRC lies.
const CRC_AT: Range<usize> = 12..ENVELOPE_BYTES;
/// Largest transaction that is sent as one. Of a larger one a follower is sent the pages, as of a state that
/// it is too far behind of: in pieces, between which others have their turn, and which need no memory.
pub const TRANSACTION_SENT_BYTES_MAX: usize = 64 << 20;
/// Largest payload: a transaction and its term, packed without getting smaller. zstd adds 3 bytes to each 128 KiB that it
/// cannot compress.
pub const PAYLOAD_BYTES_MAX: usize = TRANSACTION_SENT_BYTES_MAX + (64 << 10);
const _: () = assert!(TRANSACTION_SENT_BYTES_MAX <= TRANSACTION_BYTES_MAX);
/// Most page hashes in one [`FollowerMessage::Hashes`].
pub const HASHES_PER_MESSAGE_MAX: usize = 128 * 1024;
/// Most pages in one [`SourceMessage::Pages`].
pub const PAGES_PER_MESSAGE_MAX: usize = 64;
/// Most confirmations in one [`FollowerMessage::Applied`].
pub const CONFIRMATIONS_PER_MESSAGE_MAX: usize = 4096;

/// What a follower says.
#[derive(Clone, PartialEq, Debug)]
pub enum FollowerMessage {
    /// Who I am; first on a connection.
    Hello {
        /// The follower.
        node: NodeId,
        /// Newest term it has seen: a source of an older one must refuse.
        term: Term,
        /// Where it is.
        region: Region,
    },
    /// Send me this database from here on. `None`: I have nothing that I can name.
    Follow {
        /// Which.
        database: DatabaseId,
        /// My state.
        position: Option<Position>,
    },
    /// Send me no more of this database.
    Unfollow {
        /// Which.
        database: DatabaseId,
    },
    /// The hashes of my pages, in order from page `first`. Several messages for a large database.
    Hashes {
        /// Which.
        database: DatabaseId,
        /// Page number of the first hash.
        first: PageNo,
        /// Whether these are the last.
        last: bool,
        /// XXH3-64 keyed by page number.
        hashes: Vec<u64>,
    },
    /// My readers see these states.
    Applied {
        /// One per database that moved.
        confirmations: Vec<(DatabaseId, Position)>,
    },
    /// A heartbeat came back.
    Echo {
        /// The heartbeat's stamp.
        stamp: u64,
    },
    /// Send me everything that is committed when you get this, of the databases that I asked to follow before,
    /// and then say so.
    Ask {
        /// Opaque to the source. Rises.
        stamp: u64,
    },
}

/// What a source says.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceMessage {
    /// Accepted.
    Welcome {
        /// The source.
        node: NodeId,
        /// The leadership under which it ships.
        term: Term,
        /// Where it is.
        region: Region,
        /// Milliseconds between heartbeats.
        heartbeat_ms: u32,
    },
    /// A committed transaction, the next of its database.
    Transaction {
        /// The leadership under which it is shipped.
        term: Term,
        /// The record.
        transaction: Transaction,
    },
    /// Your copy cannot be continued from here: send the hashes of its pages.
    NeedHashes {
        /// Which.
        database: DatabaseId,
    },
    /// A whole state follows.
    ImageBegin {
        /// Which.
        database: DatabaseId,
        /// The leadership under which it is shipped.
        term: Term,
        /// The state.
        position: Position,
        /// Its pages in all.
        page_count: u32,
    },
    /// Pages of the image that differ from the hashes sent, ascending.
    Pages {
        /// Which.
        database: DatabaseId,
        /// Pages with their numbers.
        pages: Pages,
    },
    /// The image is complete: pages that were not sent are as the follower has them.
    ImageEnd {
        /// Which.
        database: DatabaseId,
    },
    /// The database was deleted.
    Dropped {
        /// Which.
        database: DatabaseId,
    },
    /// Alive.
    Heartbeat {
        /// The source's own clock, opaque to the follower.
        stamp: u64,
        /// The leadership.
        term: Term,
    },
    /// I led at a moment after you asked this, and whatever was committed until then was sent before this
    /// message: as transactions, or by [`SourceMessage::NeedHashes`] or [`SourceMessage::Dropped`] in their stead.
    /// Nothing is said of a database that an image is awaited of, until its [`SourceMessage::ImageEnd`]: what was
    /// committed after the image began is sent behind that.
    Current {
        /// Of the question. Earlier ones that were not answered are answered with it.
        stamp: u64,
        /// The leadership.
        term: Term,
    },
    /// These vote in my cell, any of whom may lead it next.
    Voters {
        /// Who, and the base URL at which the others of the cell reach it.
        voters: Vec<(NodeId, String)>,
    },
    /// Another message, compressed. All of a connection are one zstd frame that never ends, flushed behind each.
    Packed {
        /// Bytes of the message.
        message_bytes: u32,
        /// The next bytes of the frame.
        packed: Bytes,
    },
}

impl FollowerMessage {
    const HELLO: u8 = 1;
    const FOLLOW: u8 = 2;
    const UNFOLLOW: u8 = 3;
    const HASHES: u8 = 4;
    const APPLIED: u8 = 5;
    const ECHO: u8 = 6;
    const ASK: u8 = 7;

    /// The bytes of the message.
    pub fn encode(&self) -> Bytes {
        let mut to = start(64);
        let kind = match self {
            Self::Hello { node, term, region } => {
                to.put_u64_le(node.0);
                to.put_u64_le(term.0);
                put_region(&mut to, region);
                Self::HELLO
            }
            Self::Follow { database, position } => {
                to.put_slice(&database.to_bytes());
                to.put_u8(u8::from(position.is_some()));
                if let Some(position) = position {
                    put_position(&mut to, position);
                }
                Self::FOLLOW
            }
            Self::Unfollow { database } => {
                to.put_slice(&database.to_bytes());
                Self::UNFOLLOW
            }
            Self::Hashes {
                database,
                first,
                last,
                hashes,
            } => {
                to.reserve(hashes.len() * 8 + 32);
                to.put_slice(&database.to_bytes());
                to.put_u32_le(first.0);
                to.put_u8(u8::from(*last));
                hashes.iter().for_each(|hash| to.put_u64_le(*hash));
                Self::HASHES
            }
            Self::Applied { confirmations } => {
                for (database, position) in confirmations {
                    to.put_slice(&database.to_bytes());
                    put_position(&mut to, position);
                }
                Self::APPLIED
            }
            Self::Echo { stamp } => {
                to.put_u64_le(*stamp);
                Self::ECHO
            }
            Self::Ask { stamp } => {
                to.put_u64_le(*stamp);
                Self::ASK
            }
        };
        seal(to, kind)
    }

    /// Reads a message that must fill `bytes` exactly.
    pub fn decode(bytes: &Bytes) -> Result<Self, StreamError> {
        let (kind, mut from) = open(bytes)?;
        let message = match kind {
            Self::HELLO => {
                want(&from, 16)?;
                Self::Hello {
                    node: NodeId(from.get_u64_le()),
                    term: Term(from.get_u64_le()),
                    region: get_region(&mut from)?,
                }
            }
            Self::FOLLOW => {
                let database = get_database(&mut from)?;
                want(&from, 1)?;
                let position = if from.get_u8() == 0 {
                    None
                } else {
                    want(&from, POSITION_BYTES)?;
                    Some(get_position(&mut from))
                };
                Self::Follow { database, position }
            }
            Self::UNFOLLOW => Self::Unfollow {
                database: get_database(&mut from)?,
            },
            Self::HASHES => {
                let database = get_database(&mut from)?;
                want(&from, 5)?;
                let first = PageNo(from.get_u32_le());
                let last = from.get_u8() != 0;
                let count = elements(&from, 8, HASHES_PER_MESSAGE_MAX)?;
                let beyond = u64::from(first.0) + count as u64;
                if count > 0 && (first.0 == 0 || beyond > u64::from(u32::MAX)) {
                    return Err(StreamError::Page {
                        page: first.0,
                        previous: 0,
                    });
                }
                let hashes = (0..count).map(|_| from.get_u64_le()).collect();
                Self::Hashes {
                    database,
                    first,
                    last,
                    hashes,
                }
            }
            Self::APPLIED => {
                let count = elements(&from, 16 + POSITION_BYTES, CONFIRMATIONS_PER_MESSAGE_MAX)?;
                let confirmations = (0..count)
                    .map(|_| Ok((get_database(&mut from)?, get_position(&mut from))))
                    .collect::<Result<_, StreamError>>()?;
                Self::Applied { confirmations }
            }
            Self::ECHO => {
                want(&from, 8)?;
                Self::Echo {
                    stamp: from.get_u64_le(),
                }
            }
            Self::ASK => {
                want(&from, 8)?;
                Self::Ask {
                    stamp: from.get_u64_le(),
                }
            }
            got => return Err(StreamError::Kind { got }),
        };
        end(&from, bytes)?;
        Ok(message)
    }
}

impl SourceMessage {
    const WELCOME: u8 = 65;
    const TRANSACTION: u8 = 66;
    const NEED_HASHES: u8 = 67;
    const IMAGE_BEGIN: u8 = 68;
    const PAGES: u8 = 69;
    const IMAGE_END: u8 = 70;
    const DROPPED: u8 = 71;
    const HEARTBEAT: u8 = 72;
    const CURRENT: u8 = 73;
    const VOTERS: u8 = 74;
    const PACKED: u8 = 75;

    /// The bytes of the message.
    pub fn encode(&self) -> Bytes {
        let mut to = start(64);
        let kind = match self {
            Self::Welcome {
                node,
                term,
                region,
                heartbeat_ms,
            } => {
                to.put_u64_le(node.0);
                to.put_u64_le(term.0);
                to.put_u32_le(*heartbeat_ms);
                put_region(&mut to, region);
                Self::WELCOME
            }
            Self::Transaction { term, transaction } => {
                to.reserve(8 + transaction.encoded().len());
                to.put_u64_le(term.0);
                to.put_slice(transaction.encoded());
                Self::TRANSACTION
            }
            Self::NeedHashes { database } => {
                to.put_slice(&database.to_bytes());
                Self::NEED_HASHES
            }
            Self::ImageBegin {
                database,
                term,
                position,
                page_count,
            } => {
                to.put_slice(&database.to_bytes());
                to.put_u64_le(term.0);
                put_position(&mut to, position);
                to.put_u32_le(*page_count);
                Self::IMAGE_BEGIN
            }
            Self::Pages { database, pages } => {
                to.reserve(16 + pages.0.len());
                to.put_slice(&database.to_bytes());
                to.put_slice(&pages.0);
                Self::PAGES
            }
            Self::ImageEnd { database } => {
                to.put_slice(&database.to_bytes());
                Self::IMAGE_END
            }
            Self::Dropped { database } => {
                to.put_slice(&database.to_bytes());
                Self::DROPPED
            }
            Self::Heartbeat { stamp, term } => {
                to.put_u64_le(*stamp);
                to.put_u64_le(term.0);
                Self::HEARTBEAT
            }
            Self::Current { stamp, term } => {
                to.put_u64_le(*stamp);
                to.put_u64_le(term.0);
                Self::CURRENT
            }
            Self::Voters { voters } => {
                for (node, url) in voters {
                    let length = u16::try_from(url.len()).expect("a URL is bounded");
                    to.put_u64_le(node.0);
                    to.put_u16_le(length);
                    to.put_slice(url.as_bytes());
                }
                Self::VOTERS
            }
            Self::Packed {
                message_bytes,
                packed,
            } => {
                to.reserve(4 + packed.len());
                to.put_u32_le(*message_bytes);
                to.put_slice(packed);
                Self::PACKED
            }
        };
        seal(to, kind)
    }

    /// Reads a message that must fill `bytes` exactly. Pages, transactions and what is packed share its bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, StreamError> {
        let (kind, mut from) = open(bytes)?;
        let message = match kind {
            Self::WELCOME => {
                want(&from, 20)?;
                Self::Welcome {
                    node: NodeId(from.get_u64_le()),
                    term: Term(from.get_u64_le()),
                    heartbeat_ms: from.get_u32_le(),
                    region: get_region(&mut from)?,
                }
            }
            Self::TRANSACTION => {
                want(&from, 8)?;
                let term = Term(from.get_u64_le());
                let transaction = Transaction::decode(from.split_off(0))?;
                Self::Transaction { term, transaction }
            }
            Self::NEED_HASHES => Self::NeedHashes {
                database: get_database(&mut from)?,
            },
            Self::IMAGE_BEGIN => {
                let database = get_database(&mut from)?;
                want(&from, 8 + POSITION_BYTES + 4)?;
                Self::ImageBegin {
                    database,
                    term: Term(from.get_u64_le()),
                    position: get_position(&mut from),
                    page_count: from.get_u32_le(),
                }
            }
            Self::PAGES => {
                let database = get_database(&mut from)?;
                elements(&from, ENTRY_BYTES, PAGES_PER_MESSAGE_MAX)?;
                let pages = Pages(from.split_off(0));
                pages.validate()?;
                Self::Pages { database, pages }
            }
            Self::IMAGE_END => Self::ImageEnd {
                database: get_database(&mut from)?,
            },
            Self::DROPPED => Self::Dropped {
                database: get_database(&mut from)?,
            },
            Self::HEARTBEAT => {
                want(&from, 16)?;
                Self::Heartbeat {
                    stamp: from.get_u64_le(),
                    term: Term(from.get_u64_le()),
                }
            }
            Self::CURRENT => {
                want(&from, 16)?;
                Self::Current {
                    stamp: from.get_u64_le(),
                    term: Term(from.get_u64_le()),
                }
            }
            Self::VOTERS => Self::Voters {
                voters: get_voters(&mut from)?,
            },
            Self::PACKED => {
                want(&from, 4)?;
                let message_bytes = from.get_u32_le();
                let max = ENVELOPE_BYTES + PAYLOAD_BYTES_MAX;
                if message_bytes as usize > max {
                    return Err(StreamError::TooMany {
                        got: message_bytes as usize,
                        max,
                    });
                }
                Self::Packed {
                    message_bytes,
                    packed: from.split_off(0),
                }
            }
            got => return Err(StreamError::Kind { got }),
        };
        end(&from, bytes)?;
        Ok(message)
    }
}

/// Whether a header `tidemark-stream` has this word: they are separated by commas.
pub fn says(header: &str, word: &str) -> bool {
    header.split(',').any(|said| said.trim() == word)
}

/// Bytes of the message that begins with `start`, envelope included, or `None` if that is not to be seen
/// yet: for a carrier that keeps no borders between messages.
pub fn message_bytes(start: &[u8]) -> Result<Option<usize>, StreamError> {
    let Some(mut envelope) = start.get(..ENVELOPE_BYTES) else {
        return Ok(None);
    };
    let mut magic = [0; 4];
    envelope.copy_to_slice(&mut magic);
    if magic != MAGIC {
        return Err(StreamError::Magic { got: magic });
    }
    envelope.advance(4); // version, kind, flags: looked at with the whole
    let length = envelope.get_u32_le() as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(StreamError::TooMany {
            got: length,
            max: PAYLOAD_BYTES_MAX,
        });
    }
    Ok(Some(ENVELOPE_BYTES + length))
}

fn start(payload_bytes: usize) -> BytesMut {
    let mut to = BytesMut::with_capacity(ENVELOPE_BYTES + payload_bytes);
    to.put_bytes(0, ENVELOPE_BYTES);
    to
}

fn seal(mut message: BytesMut, kind: u8) -> Bytes {
    let payload_bytes = message.len() - ENVELOPE_BYTES;
    assert!(
        payload_bytes <= PAYLOAD_BYTES_MAX,
        "payload of {payload_bytes} bytes"
    );
    let length = u32::try_from(payload_bytes).expect("bounded by PAYLOAD_BYTES_MAX");
    let mut envelope = &mut message[..ENVELOPE_BYTES];
    envelope.put_slice(&MAGIC);
    envelope.put_u8(STREAM_VERSION);
    envelope.put_u8(kind);
    envelope.put_u16_le(0); // flags
    envelope.put_u32_le(length);
    let crc = crc(&message);
    message[CRC_AT].copy_from_slice(&crc.to_le_bytes());
    message.freeze()
}

fn open(message: &Bytes) -> Result<(u8, Bytes), StreamError> {
    want(message, ENVELOPE_BYTES)?;
    let mut envelope = message.slice(..ENVELOPE_BYTES);
    let payload = message.slice(ENVELOPE_BYTES..);
    let mut magic = [0; 4];
    envelope.copy_to_slice(&mut magic);
    if magic != MAGIC {
        return Err(StreamError::Magic { got: magic });
    }
    let version = envelope.get_u8();
    if version != STREAM_VERSION {
        return Err(StreamError::Version { got: version });
    }
    let kind = envelope.get_u8();
    let flags = envelope.get_u16_le();
    if flags != 0 {
        return Err(StreamError::Flags { got: flags });
    }
    let length = envelope.get_u32_le() as usize;
    if length != payload.len() || length > PAYLOAD_BYTES_MAX {
        return Err(StreamError::Length {
            got: message.len(),
            expected: ENVELOPE_BYTES + length.min(PAYLOAD_BYTES_MAX),
        });
    }
    let got = envelope.get_u32_le();
    let expected = crc(message);
    if got != expected {
        return Err(StreamError::Crc { got, expected });
    }
    Ok((kind, payload))
}

/// The CRC of all that is around it but the magic. The kind is in: one bit turns the end of an image
/// into the end of its database.
fn crc(message: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&message[MAGIC.len()..CRC_AT.start]);
    hasher.update(&message[CRC_AT.end..]);
    hasher.finalize()
}

fn end(rest: &Bytes, message: &Bytes) -> Result<(), StreamError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(StreamError::Length {
            got: message.len(),
            expected: message.len() - rest.len(),
        })
    }
}

fn want(from: &Bytes, bytes: usize) -> Result<(), StreamError> {
    if from.len() < bytes {
        return Err(StreamError::Length {
            got: from.len(),
            expected: bytes,
        });
    }
    Ok(())
}

/// How many elements of `bytes_each` fill the rest, which they must do exactly.
fn elements(from: &Bytes, bytes_each: usize, max: usize) -> Result<usize, StreamError> {
    let got = from.len() / bytes_each;
    if got > max {
        return Err(StreamError::TooMany { got, max });
    }
    if !from.len().is_multiple_of(bytes_each) {
        return Err(StreamError::Length {
            got: from.len(),
            expected: got * bytes_each,
        });
    }
    Ok(got)
}

fn get_database(from: &mut Bytes) -> Result<DatabaseId, StreamError> {
    want(from, 16)?;
    let mut database = [0; 16];
    from.copy_to_slice(&mut database);
    Ok(DatabaseId::from_bytes(database))
}

/// The voters fill the rest of the message.
fn get_voters(from: &mut Bytes) -> Result<Vec<(NodeId, String)>, StreamError> {
    let mut voters = Vec::new();
    while !from.is_empty() {
        if voters.len() == VOTERS_PER_MESSAGE_MAX {
            return Err(StreamError::TooMany {
                got: voters.len() + 1,
                max: VOTERS_PER_MESSAGE_MAX,
            });
        }
        want(from, 10)?;
        let node = NodeId(from.get_u64_le());
        let length = usize::from(from.get_u16_le());
        if length > VOTER_URL_BYTES_MAX {
            let reason = format!("it has {length} bytes, at most {VOTER_URL_BYTES_MAX}");
            return Err(StreamError::Url { reason });
        }
        want(from, length)?;
        let url = String::from_utf8(from.split_to(length).into());
        let bad = |error: std::string::FromUtf8Error| StreamError::Url {
            reason: error.to_string(),
        };
        voters.push((node, url.map_err(bad)?));
    }
    Ok(voters)
}

fn put_region(to: &mut BytesMut, region: &Region) {
    to.put_slice(region.as_str().as_bytes());
}

/// The region fills the rest of the message.
fn get_region(from: &mut Bytes) -> Result<Region, StreamError> {
    let text = from.split_off(0);
    if text.len() > Region::LENGTH_MAX {
        return Err(StreamError::TooMany {
            got: text.len(),
            max: Region::LENGTH_MAX,
        });
    }
    String::from_utf8_lossy(&text)
        .parse()
        .map_err(|error: crate::id::RegionError| StreamError::Region {
            reason: error.to_string(),
        })
}
