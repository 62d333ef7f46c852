//! One example of everything that is encoded, and strategies for the rest.

use bytes::Bytes;
use proptest::prelude::*;
use tidemark_protocol::stream::{FollowerMessage, Pages, PagesBuilder, SourceMessage};
use tidemark_protocol::{
    Bookmark, BookmarkKey, DatabaseId, Epoch, NodeId, PAGE_SIZE, PageNo, Position, Region,
    RequestId, Seq, StateChecksum, Term, Transaction, TransactionBuilder, TransactionHeader,
};

pub(crate) fn key() -> BookmarkKey {
    BookmarkKey::new(*b"tidemark test ke")
}

pub(crate) fn database() -> DatabaseId {
    "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506".parse().unwrap()
}

pub(crate) fn position() -> Position {
    Position {
        epoch: Epoch(2),
        seq: Seq(0x0000_0001_0000_002a),
        checksum: StateChecksum(0x0123_4567_89ab_cdef),
    }
}

pub(crate) fn later(position: Position) -> Position {
    Position {
        seq: Seq(position.seq.0 + 1),
        checksum: StateChecksum(0xfedc_ba98_7654_3210),
        ..position
    }
}

pub(crate) fn bookmark() -> Bookmark {
    Bookmark::issue(&key(), database(), position())
}

/// A page whose bytes can be told from another's.
pub(crate) fn page(seed: u32) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    for (at, byte) in page.iter_mut().enumerate() {
        *byte = seed.wrapping_mul(31).wrapping_add(at as u32).to_le_bytes()[0];
    }
    page
}

pub(crate) fn header() -> TransactionHeader {
    TransactionHeader {
        database: database(),
        base: position(),
        next: later(position()),
        request: Some(
            "11111111-2222-4333-8444-555555555555"
                .parse::<RequestId>()
                .unwrap(),
        ),
        proposed_at_ms: 1_790_000_000_123,
        pages_after: 7,
    }
}

pub(crate) fn transaction() -> Transaction {
    let mut builder = TransactionBuilder::new();
    builder.push(PageNo(3), &page(3));
    builder.push(PageNo(7), &page(7));
    builder.finish(header(), br#"[{"results":[]}]"#).unwrap()
}

pub(crate) fn pages() -> Pages {
    let mut pages = PagesBuilder::default();
    pages.push(PageNo(1), &page(1));
    pages.push(PageNo(4), &page(4));
    pages.take()
}

/// Every message of a follower, by the name of its file.
pub(crate) fn follower_messages() -> Vec<(&'static str, FollowerMessage)> {
    let database = database();
    let region: Region = "WEUR".parse().unwrap();
    vec![
        (
            "hello",
            FollowerMessage::Hello {
                node: NodeId(0xa1),
                term: Term(5),
                region,
            },
        ),
        (
            "follow",
            FollowerMessage::Follow {
                database,
                position: Some(position()),
            },
        ),
        (
            "follow-nothing",
            FollowerMessage::Follow {
                database,
                position: None,
            },
        ),
        ("unfollow", FollowerMessage::Unfollow { database }),
        (
            "hashes",
            FollowerMessage::Hashes {
                database,
                first: PageNo(9),
                last: true,
                hashes: vec![1, u64::MAX],
            },
        ),
        (
            "applied",
            FollowerMessage::Applied {
                confirmations: vec![(database, position())],
            },
        ),
        ("echo", FollowerMessage::Echo { stamp: 77 }),
        ("ask", FollowerMessage::Ask { stamp: 77 }),
    ]
}

/// Every message of a source, by the name of its file.
pub(crate) fn source_messages() -> Vec<(&'static str, SourceMessage)> {
    let database = database();
    let term = Term(5);
    let region: Region = "ENAM".parse().unwrap();
    vec![
        (
            "welcome",
            SourceMessage::Welcome {
                node: NodeId(0xb2),
                term,
                region,
                heartbeat_ms: 250,
            },
        ),
        (
            "transaction",
            SourceMessage::Transaction {
                term,
                transaction: transaction(),
            },
        ),
        ("need-hashes", SourceMessage::NeedHashes { database }),
        (
            "image-begin",
            SourceMessage::ImageBegin {
                database,
                term,
                position: position(),
                page_count: 9,
            },
        ),
        (
            "pages",
            SourceMessage::Pages {
                database,
                pages: pages(),
            },
        ),
        ("image-end", SourceMessage::ImageEnd { database }),
        ("dropped", SourceMessage::Dropped { database }),
        ("heartbeat", SourceMessage::Heartbeat { stamp: 77, term }),
        ("current", SourceMessage::Current { stamp: 77, term }),
        (
            "voters",
            SourceMessage::Voters {
                voters: vec![
                    (NodeId(1), "http://10.0.1.5:8787".to_owned()),
                    (NodeId(16), String::new()),
                ],
            },
        ),
        (
            "packed",
            SourceMessage::Packed {
                message_bytes: 4177,
                packed: bytes::Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50]),
            },
        ),
    ]
}

pub(crate) fn any_database() -> impl Strategy<Value = DatabaseId> {
    any::<[u8; 16]>().prop_map(DatabaseId::from_bytes)
}

pub(crate) fn any_position() -> impl Strategy<Value = Position> {
    (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(epoch, seq, checksum)| Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
        checksum: StateChecksum(checksum),
    })
}

pub(crate) fn any_transaction() -> impl Strategy<Value = Transaction> {
    let pages = prop::collection::btree_set(1_u32..64, 0..6);
    let request = prop::option::of(any::<[u8; 16]>());
    let answer = prop::collection::vec(any::<u8>(), 0..200);
    (
        any_database(),
        any_position(),
        any::<u64>(),
        request,
        any::<u64>(),
        pages,
        answer,
    )
        .prop_map(
            |(database, base, checksum, request, proposed_at_ms, pages, answer)| {
                let base = Position {
                    seq: Seq(base.seq.0 >> 1),
                    ..base
                };
                let header = TransactionHeader {
                    database,
                    base,
                    next: Position {
                        checksum: StateChecksum(checksum),
                        ..later(base)
                    },
                    request: request
                        .filter(|bytes| *bytes != [0; 16])
                        .map(RequestId::from_bytes),
                    proposed_at_ms,
                    pages_after: 64,
                };
                let mut builder = TransactionBuilder::new();
                for number in pages {
                    builder.push(PageNo(number), &page(number));
                }
                builder.finish(header, &answer).unwrap()
            },
        )
}

/// Calls `check` with every proper beginning of `bytes`.
pub(crate) fn truncations(bytes: &Bytes, mut check: impl FnMut(usize, Bytes)) {
    for length in 0..bytes.len() {
        check(length, bytes.slice(..length));
    }
}

/// Calls `check` with `bytes` and one bit turned, at `step` bits' distance.
pub(crate) fn bit_flips(bytes: &Bytes, step: usize, mut check: impl FnMut(usize, Bytes)) {
    let mut damaged = bytes.to_vec();
    for bit in (0..bytes.len() * 8).step_by(step) {
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(bit, Bytes::copy_from_slice(&damaged));
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}
