//! An image as the body of an HTTP answer: the stream's messages one behind the other, then the table of
//! requests.
//!
//! | bytes | field |
//! |---|---|
//! | messages | `ImageBegin`, `Pages` and `Heartbeat` in any number, `ImageEnd` |
//! | 8 | length of the table |
//! | length | the table, as its file has it, with its own CRC |
//!
//! A body that ends anywhere else was broken off.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidemark_protocol::DatabaseId;
use tidemark_protocol::stream::{
    ENVELOPE_BYTES, PAGES_PER_MESSAGE_MAX, SourceMessage, message_bytes,
};

use super::InstallError;
use crate::pipeline::TABLE_BYTES_MAX;

/// Longest message of an image: pages with their numbers, and the database.
const MESSAGE_BYTES_MAX: usize = ENVELOPE_BYTES + 64 + PAGES_PER_MESSAGE_MAX * (4 + 4096);
const LENGTH_BYTES: usize = 8;

/// A piece of an image.
#[derive(Debug)]
pub(super) enum Piece {
    /// A message of the stream.
    Message(SourceMessage),
    /// The table of requests, the last piece.
    Requests(Bytes),
}

/// Cuts a body into pieces as it comes in.
#[derive(Debug)]
pub(super) struct Pieces {
    database: DatabaseId,
    buffer: BytesMut,
    /// Set behind the image's end: length of the table, once known.
    table: Option<Option<usize>>,
    complete: bool,
}

/// What goes before the table.
pub(super) fn table_length(table: &Bytes) -> Bytes {
    let mut to = BytesMut::with_capacity(LENGTH_BYTES);
    to.put_u64_le(table.len() as u64);
    to.freeze()
}

impl Pieces {
    pub(super) fn of(database: DatabaseId) -> Self {
        Self {
            database,
            buffer: BytesMut::new(),
            table: None,
            complete: false,
        }
    }

    /// Bytes came in.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole piece, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, InstallError> {
        let database = self.database;
        if self.table.is_none() {
            let message = |source| InstallError::Message { database, source };
            let Some(length) = message_bytes(&self.buffer).map_err(message)? else {
                return Ok(None);
            };
            if length > MESSAGE_BYTES_MAX {
                return Err(InstallError::Long {
                    database,
                    got: length,
                    max: MESSAGE_BYTES_MAX,
                });
            }
            if self.buffer.len() < length {
                return Ok(None);
            }
            let bytes = self.buffer.split_to(length).freeze();
            let decoded = SourceMessage::decode(&bytes).map_err(message)?;
            if matches!(decoded, SourceMessage::ImageEnd { .. }) {
                self.table = Some(None);
            }
            return Ok(Some(Piece::Message(decoded)));
        }
        if self.complete {
            return Ok(None);
        }
        if self.table == Some(None) && self.buffer.len() >= LENGTH_BYTES {
            let bytes = self.buffer.get_u64_le();
            let length = usize::try_from(bytes).unwrap_or(usize::MAX);
            if length > TABLE_BYTES_MAX {
                return Err(InstallError::Requests { database, bytes });
            }
            self.table = Some(Some(length));
        }
        match self.table {
            Some(Some(length)) if self.buffer.len() >= length => {
                self.complete = true;
                Ok(Some(Piece::Requests(self.buffer.split_to(length).freeze())))
            }
            _ => Ok(None),
        }
    }

    /// The body is at its end.
    pub(super) fn end(&self) -> Result<(), InstallError> {
        let part = match self.table {
            None => "pages",
            Some(_) if !self.complete => "table of requests",
            Some(_) if !self.buffer.is_empty() => "bytes behind it",
            Some(_) => return Ok(()),
        };
        Err(InstallError::Cut {
            database: self.database,
            part,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tidemark_protocol::stream::PagesBuilder;
    use tidemark_protocol::{Epoch, PAGE_SIZE, PageNo, Position, Seq, StateChecksum, Term};

    use super::*;

    const DATABASE: DatabaseId = DatabaseId::CATALOGUE;

    fn body() -> Vec<u8> {
        let mut pages = PagesBuilder::default();
        pages.push(PageNo(2), &[7; PAGE_SIZE]);
        let messages = [
            SourceMessage::ImageBegin {
                database: DATABASE,
                term: Term(3),
                position: Position {
                    epoch: Epoch::FIRST,
                    seq: Seq(9),
                    checksum: StateChecksum(1),
                },
                page_count: 2,
            },
            SourceMessage::Pages {
                database: DATABASE,
                pages: pages.take(),
            },
            SourceMessage::ImageEnd { database: DATABASE },
        ];
        let mut body: Vec<u8> = messages.iter().flat_map(SourceMessage::encode).collect();
        let table = Bytes::from_static(b"a table");
        body.extend_from_slice(&table_length(&table));
        body.extend_from_slice(&table);
        body
    }

    #[test]
    fn body_gives_the_same_pieces_however_it_is_cut() {
        let body = body();
        for chunk in [1, 7, 4096, body.len()] {
            let mut pieces = Pieces::of(DATABASE);
            let mut seen = Vec::new();
            for bytes in body.chunks(chunk) {
                assert!(pieces.end().is_err(), "not at its end yet");
                pieces.extend(bytes);
                while let Some(piece) = pieces.next().unwrap() {
                    seen.push(piece);
                }
            }
            pieces.end().unwrap();
            assert_eq!(seen.len(), 4);
            assert!(matches!(&seen[3], Piece::Requests(table) if table == &b"a table"[..]));
        }
    }

    #[test]
    fn lengths_beyond_the_bounds_are_refused_before_anything_is_kept() {
        let mut long = body();
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut pieces = Pieces::of(DATABASE);
        pieces.extend(&long[..ENVELOPE_BYTES]);
        assert!(pieces.next().is_err());

        let mut long = body();
        let at = long.len() - 7 - LENGTH_BYTES;
        long[at..at + LENGTH_BYTES].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        let mut pieces = Pieces::of(DATABASE);
        pieces.extend(&long);
        let refused = loop {
            match pieces.next() {
                Ok(Some(_)) => {}
                refused => break refused,
            }
        };
        assert!(matches!(refused, Err(InstallError::Requests { .. })));
    }
}
