//! The stream's messages come from other machines, perhaps of another version, perhaps of nobody we
//! know. Whatever arrives is a message or an error.

use bytes::Bytes;
use proptest::prelude::*;
use tidemark_protocol::stream::{
    CONFIRMATIONS_PER_MESSAGE_MAX, ENVELOPE_BYTES, FollowerMessage, HASHES_PER_MESSAGE_MAX,
    PAGES_PER_MESSAGE_MAX, PagesBuilder, SourceMessage, StreamError, VOTER_URL_BYTES_MAX,
    VOTERS_PER_MESSAGE_MAX,
};
use tidemark_protocol::transaction::TransactionError;
use tidemark_protocol::{NodeId, PageNo, Region, Term};

use crate::values::{
    any_database, any_position, any_transaction, bit_flips, database, follower_messages, page,
    position, source_messages, truncations,
};

/// Sizes of the fields around which the edits below are made.
const DATABASE_BYTES: usize = 16;

/// `payload` as a message of `kind`, all sound around it.
fn sealed(kind: u8, payload: &[u8]) -> Bytes {
    let mut covered = vec![1, kind, 0, 0];
    covered.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
    let crc = crc32fast::hash(&[&covered[..], payload].concat());
    Bytes::from([&b"TMST"[..], &covered, &crc.to_le_bytes(), payload].concat())
}

fn payload(message: &Bytes) -> &[u8] {
    &message[ENVELOPE_BYTES..]
}

fn follower(bytes: &Bytes) -> StreamError {
    FollowerMessage::decode(bytes).expect_err("a bad message was read")
}

fn source(bytes: &Bytes) -> StreamError {
    SourceMessage::decode(bytes).expect_err("a bad message was read")
}

#[test]
fn every_truncation_is_refused() {
    for (_, message) in follower_messages() {
        truncations(&message.encode(), |_, bytes| {
            assert!(matches!(follower(&bytes), StreamError::Length { .. }));
        });
    }
    for (_, message) in source_messages() {
        truncations(&message.encode(), |_, bytes| {
            assert!(matches!(source(&bytes), StreamError::Length { .. }));
        });
    }
}

#[test]
fn every_truncation_behind_a_right_envelope_is_read_or_refused() {
    for (name, message) in follower_messages() {
        let whole = message.encode();
        for length in 0..payload(&whole).len() {
            let cut = sealed(whole[5], &payload(&whole)[..length]);
            if let Ok(read) = FollowerMessage::decode(&cut) {
                // A shorter list, or a shorter name, is a message of its own.
                assert_ne!(read, message, "{name} cut to {length}");
            }
        }
    }
    for (name, message) in source_messages() {
        let whole = message.encode();
        for length in (0..payload(&whole).len()).rev().take(200) {
            let cut = sealed(whole[5], &payload(&whole)[..length]);
            if let Ok(read) = SourceMessage::decode(&cut) {
                assert_ne!(read, message, "{name} cut to {length}");
            }
        }
    }
}

#[test]
fn every_turned_bit_is_noticed() {
    for (name, message) in follower_messages() {
        bit_flips(&message.encode(), 1, |bit, bytes| {
            assert!(
                FollowerMessage::decode(&bytes).is_err(),
                "{name}: bit {bit}"
            );
        });
    }
    for (name, message) in source_messages() {
        let step = if message.encode().len() > 1000 { 11 } else { 1 };
        bit_flips(&message.encode(), step, |bit, bytes| {
            assert!(SourceMessage::decode(&bytes).is_err(), "{name}: bit {bit}");
        });
    }
}

#[test]
fn bytes_after_the_message_are_refused() {
    for (_, message) in follower_messages() {
        let long = [&message.encode()[..], b"x"].concat();
        assert!(matches!(
            follower(&Bytes::from(long)),
            StreamError::Length { .. }
        ));
    }
    let unfollow = [&database().to_bytes()[..], b"x"].concat();
    assert_eq!(
        follower(&sealed(3, &unfollow)),
        StreamError::Length {
            got: 33,
            expected: 32
        }
    );
}

#[test]
fn each_kind_of_bad_message_has_its_own_error() {
    let good = FollowerMessage::Echo { stamp: 1 }.encode();
    let edited = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        Bytes::from(bytes)
    };
    assert_eq!(
        follower(&edited(0, b'X')),
        StreamError::Magic { got: *b"XMST" }
    );
    assert_eq!(follower(&edited(4, 2)), StreamError::Version { got: 2 });
    assert_eq!(follower(&sealed(0, b"")), StreamError::Kind { got: 0 });
    assert!(matches!(follower(&edited(5, 5)), StreamError::Crc { .. }));
    assert_eq!(
        follower(&edited(7, 0x80)),
        StreamError::Flags { got: 0x8000 }
    );
    assert!(matches!(
        follower(&edited(8, 9)),
        StreamError::Length {
            got: 24,
            expected: 25
        }
    ));
    assert!(matches!(
        follower(&edited(12, !good[12])),
        StreamError::Crc { .. }
    ));
    assert!(matches!(follower(&edited(16, 9)), StreamError::Crc { .. }));
}

#[test]
fn messages_of_the_other_direction_are_refused() {
    for (_, message) in follower_messages() {
        let bytes = message.encode();
        assert_eq!(source(&bytes), StreamError::Kind { got: bytes[5] });
    }
    for (_, message) in source_messages() {
        let bytes = message.encode();
        assert_eq!(follower(&bytes), StreamError::Kind { got: bytes[5] });
    }
}

#[test]
fn region_that_is_none_is_refused() {
    let hello = |region: &[u8]| sealed(1, &[&[0; 16][..], region].concat());
    for region in [&b""[..], b"9lives", b"\xff\xfe"] {
        assert!(
            matches!(follower(&hello(region)), StreamError::Region { .. }),
            "{region:?}"
        );
    }
    let got = Region::LENGTH_MAX + 1;
    assert_eq!(
        follower(&hello(&vec![b'A'; got])),
        StreamError::TooMany { got, max: got - 1 }
    );
}

#[test]
fn voters_url_that_is_none_is_refused() {
    let voters = |length: usize, url: &[u8]| {
        let length = u16::try_from(length).unwrap().to_le_bytes();
        source(&sealed(74, &[&[0; 8][..], &length, url].concat()))
    };
    assert!(matches!(voters(2, b"\xff\xfe"), StreamError::Url { .. }));
    let long = vec![b'a'; VOTER_URL_BYTES_MAX + 1];
    assert!(matches!(voters(long.len(), &long), StreamError::Url { .. }));
    assert!(matches!(voters(9, b"http://a"), StreamError::Length { .. }));
}

#[test]
fn lists_over_their_bounds_are_refused() {
    let database = database();
    let hashes = vec![0; HASHES_PER_MESSAGE_MAX + 1];
    let message = FollowerMessage::Hashes {
        database,
        first: PageNo(1),
        last: false,
        hashes,
    };
    let (got, max) = (HASHES_PER_MESSAGE_MAX + 1, HASHES_PER_MESSAGE_MAX);
    assert_eq!(
        follower(&message.encode()),
        StreamError::TooMany { got, max }
    );

    let (got, max) = (
        CONFIRMATIONS_PER_MESSAGE_MAX + 1,
        CONFIRMATIONS_PER_MESSAGE_MAX,
    );
    let message = FollowerMessage::Applied {
        confirmations: vec![(database, position()); got],
    };
    assert_eq!(
        follower(&message.encode()),
        StreamError::TooMany { got, max }
    );

    let (got, max) = (VOTERS_PER_MESSAGE_MAX + 1, VOTERS_PER_MESSAGE_MAX);
    let voters = vec![(NodeId(1), String::new()); got];
    let message = SourceMessage::Voters { voters };
    assert_eq!(source(&message.encode()), StreamError::TooMany { got, max });

    let (got, max) = (PAGES_PER_MESSAGE_MAX + 1, PAGES_PER_MESSAGE_MAX);
    let mut pages = PagesBuilder::default();
    (1..=got as u32).for_each(|number| pages.push(PageNo(number), &page(number)));
    let message = SourceMessage::Pages {
        database,
        pages: pages.take(),
    };
    assert_eq!(source(&message.encode()), StreamError::TooMany { got, max });
}

#[test]
fn page_numbers_that_do_not_ascend_are_refused() {
    for (numbers, page_no, previous) in [([0, 1], 0, 0), ([5, 5], 5, 5), ([5, 4], 4, 5)] {
        let mut pages = PagesBuilder::default();
        numbers
            .into_iter()
            .for_each(|number| pages.push(PageNo(number), &page(number)));
        let message = SourceMessage::Pages {
            database: database(),
            pages: pages.take(),
        };
        let error = StreamError::Page {
            page: page_no,
            previous,
        };
        assert_eq!(source(&message.encode()), error);
    }
    for first in [0, u32::MAX] {
        let message = FollowerMessage::Hashes {
            database: database(),
            first: PageNo(first),
            last: true,
            hashes: vec![7],
        };
        let error = StreamError::Page {
            page: first,
            previous: 0,
        };
        assert_eq!(follower(&message.encode()), error);
    }
}

#[test]
fn partial_elements_are_refused() {
    let hashes = [
        &database().to_bytes()[..],
        &1_u32.to_le_bytes(),
        &[1],
        &[0; 12],
    ]
    .concat();
    assert_eq!(
        follower(&sealed(4, &hashes)),
        StreamError::Length {
            got: 12,
            expected: 8
        }
    );
    let pages = [&database().to_bytes()[..], &[0; 4099]].concat();
    assert_eq!(
        source(&sealed(69, &pages)),
        StreamError::Length {
            got: 4099,
            expected: 0
        }
    );
}

#[test]
fn bad_transaction_inside_is_named() {
    let error = source(&sealed(66, &[0; 8 + 112]));
    assert_eq!(
        error,
        StreamError::Transaction(TransactionError::Magic { got: [0; 4] })
    );
}

fn any_follower_message() -> impl Strategy<Value = FollowerMessage> {
    let hashes = prop::collection::vec(any::<u64>(), 0..50);
    let confirmations = prop::collection::vec((any_database(), any_position()), 0..50);
    prop_oneof![
        (any::<u64>(), any::<u64>(), "[A-Z][A-Z0-9-]{0,31}").prop_map(|(node, term, region)| {
            let region = region.parse().unwrap();
            FollowerMessage::Hello {
                node: NodeId(node),
                term: Term(term),
                region,
            }
        }),
        (any_database(), prop::option::of(any_position()))
            .prop_map(|(database, position)| FollowerMessage::Follow { database, position }),
        any_database().prop_map(|database| FollowerMessage::Unfollow { database }),
        (any_database(), 1..u32::MAX / 2, any::<bool>(), hashes).prop_map(
            |(database, first, last, hashes)| {
                FollowerMessage::Hashes {
                    database,
                    first: PageNo(first),
                    last,
                    hashes,
                }
            }
        ),
        confirmations.prop_map(|confirmations| FollowerMessage::Applied { confirmations }),
        any::<u64>().prop_map(|stamp| FollowerMessage::Echo { stamp }),
    ]
}

fn any_source_message() -> impl Strategy<Value = SourceMessage> {
    let numbers = prop::collection::btree_set(1..u32::MAX, 0..5);
    prop_oneof![
        (
            any::<u64>(),
            any::<u64>(),
            "[A-Z][A-Z0-9-]{0,31}",
            any::<u32>()
        )
            .prop_map(
                |(node, term, region, heartbeat_ms)| SourceMessage::Welcome {
                    node: NodeId(node),
                    term: Term(term),
                    region: region.parse().unwrap(),
                    heartbeat_ms,
                }
            ),
        (any::<u64>(), any_transaction()).prop_map(|(term, transaction)| {
            SourceMessage::Transaction {
                term: Term(term),
                transaction,
            }
        }),
        any_database().prop_map(|database| SourceMessage::NeedHashes { database }),
        (any_database(), any::<u64>(), any_position(), any::<u32>()).prop_map(
            |(database, term, position, page_count)| SourceMessage::ImageBegin {
                database,
                term: Term(term),
                position,
                page_count,
            }
        ),
        (any_database(), numbers).prop_map(|(database, numbers)| {
            let mut pages = PagesBuilder::default();
            numbers
                .into_iter()
                .for_each(|number| pages.push(PageNo(number), &page(number)));
            SourceMessage::Pages {
                database,
                pages: pages.take(),
            }
        }),
        any_database().prop_map(|database| SourceMessage::ImageEnd { database }),
        any_database().prop_map(|database| SourceMessage::Dropped { database }),
        (any::<u64>(), any::<u64>()).prop_map(|(stamp, term)| SourceMessage::Heartbeat {
            stamp,
            term: Term(term)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn decoding_a_followers_message_gives_it_back(message in any_follower_message()) {
        prop_assert_eq!(FollowerMessage::decode(&message.encode()).unwrap(), message);
    }

    #[test]
    fn decoding_a_sources_message_gives_it_back(message in any_source_message()) {
        prop_assert_eq!(SourceMessage::decode(&message.encode()).unwrap(), message);
    }

    #[test]
    fn any_payload_is_read_or_refused(
        kind in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        with_database in any::<bool>(),
    ) {
        let head = if with_database { DATABASE_BYTES } else { 0 };
        let bytes = sealed(kind, &[&database().to_bytes()[..head], &payload].concat());
        let _ = (FollowerMessage::decode(&bytes), SourceMessage::decode(&bytes));
    }
}
