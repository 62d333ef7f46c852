//! See [`crate::fuzzing`].

use bytes::Bytes;
use tidemark_protocol::stream::{PagesBuilder, SourceMessage};
use tidemark_protocol::{DatabaseId, Epoch, PAGE_SIZE, PageNo, Position, Seq, StateChecksum, Term};

use super::body::{Piece, Pieces, table_length};

/// An image as another voter sends it, that comes in by pieces of `chunk` bytes. Answers how many pieces it
/// has, if it is whole.
pub fn image(bytes: &[u8], chunk: usize) -> Option<usize> {
    let mut pieces = Pieces::of(DatabaseId::CATALOGUE);
    let mut count = 0;
    for bytes in bytes.chunks(chunk.max(1)) {
        pieces.extend(bytes);
        while let Some(piece) = pieces.next().ok()? {
            count += 1;
            assert!(
                matches!(piece, Piece::Message(_))
                    || pieces.next().is_ok_and(|more| more.is_none()),
                "the table of requests is the last piece"
            );
        }
    }
    pieces.end().ok().map(|()| count)
}

/// An image of one page, and one of none.
pub fn images() -> Vec<Vec<u8>> {
    let database = DatabaseId::CATALOGUE;
    let begin = SourceMessage::ImageBegin {
        database,
        term: Term(3),
        position: Position {
            epoch: Epoch::FIRST,
            seq: Seq(9),
            checksum: StateChecksum(1),
        },
        page_count: 2,
    };
    let mut pages = PagesBuilder::default();
    pages.push(PageNo(2), &[7; PAGE_SIZE]);
    let pages = SourceMessage::Pages {
        database,
        pages: pages.take(),
    };
    let end = SourceMessage::ImageEnd { database };
    let body = |messages: &[&SourceMessage], table: &'static [u8]| {
        let table = Bytes::from_static(table);
        let messages = messages.iter().flat_map(|message| message.encode());
        messages.chain(table_length(&table)).chain(table).collect()
    };
    vec![
        body(&[&begin, &pages, &end], b"a table"),
        body(&[&begin, &end], b""),
    ]
}
