//! Records lie on disks and cross networks. A damaged one must be recognised before a page of it
//! reaches a database, and a valid one must mean the same everywhere.

use bytes::Bytes;
use proptest::prelude::*;
use tidemark_protocol::transaction::{ANSWER_BYTES_MAX, TRANSACTION_BYTES_MAX, TransactionError};
use tidemark_protocol::{PageNo, Transaction, TransactionBuilder, TransactionHeader};

use crate::values::{
    any_transaction, bit_flips, header, later, page, position, transaction, truncations,
};

/// The example's bytes with `new` at `offset`, and the CRC made right again.
fn edited(offset: usize, new: &[u8]) -> Bytes {
    let mut bytes = transaction().encoded().to_vec();
    bytes[offset..offset + new.len()].copy_from_slice(new);
    let crc = crc32fast::hash(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Bytes::from(bytes)
}

fn refused(bytes: Bytes) -> TransactionError {
    Transaction::decode(bytes).expect_err("a bad record was read")
}

#[test]
fn every_truncation_is_refused() {
    truncations(transaction().encoded(), |length, bytes| {
        let error = refused(bytes);
        assert!(matches!(error, TransactionError::Length { got, .. } if got == length));
    });
}

#[test]
fn every_turned_bit_is_noticed() {
    // All of the header and the answer, and bits of every byte of the pages in turn.
    let bytes = transaction().encoded().clone();
    bit_flips(&bytes.slice(..112), 1, |bit, damaged| {
        let whole = [&damaged[..], &bytes[112..]].concat();
        assert!(
            Transaction::decode(Bytes::from(whole)).is_err(),
            "bit {bit}"
        );
    });
    bit_flips(&bytes, 7, |bit, damaged| {
        assert!(Transaction::decode(damaged).is_err(), "bit {bit}");
    });
}

#[test]
fn each_kind_of_bad_record_has_its_own_error() {
    assert_eq!(
        refused(edited(0, b"TMTY")),
        TransactionError::Magic { got: *b"TMTY" }
    );
    assert_eq!(
        refused(edited(4, &[2, 0])),
        TransactionError::Version { got: 2 }
    );
    assert_eq!(
        refused(edited(6, &[1, 0])),
        TransactionError::Flags { got: 1 }
    );
    let length = transaction().encoded().len();
    assert_eq!(
        refused(edited(8, &1_u32.to_le_bytes())),
        TransactionError::Length {
            got: length,
            expected: 1
        }
    );
    let (base, next) = (header().base, header().next);
    // `next` becomes `base`: not later.
    let same = [&2_u32.to_le_bytes()[..], &base.seq.0.to_le_bytes()].concat();
    let error = refused(edited(52, &same));
    assert!(
        matches!(error, TransactionError::Order { base: b, .. } if b == base),
        "{error}"
    );
    assert_ne!(base, next);
    // Page 3 becomes page 0, page 7 becomes page 3, page 7 becomes page 8 of 7.
    let (first, second) = (112, 112 + 4100);
    for (offset, page, previous) in [(first, 0_u32, 0), (second, 3, 3), (second, 8, 3)] {
        assert_eq!(
            refused(edited(offset, &page.to_le_bytes())),
            TransactionError::Page {
                page,
                previous,
                pages_after: 7
            }
        );
    }
    // More pages than there are bytes for.
    assert!(matches!(
        refused(edited(100, &u32::MAX.to_le_bytes())),
        TransactionError::Length { .. }
    ));
}

#[test]
fn record_over_the_bound_is_refused_unread() {
    let got = TRANSACTION_BYTES_MAX + 1;
    let error = refused(Bytes::from(vec![0; got]));
    assert_eq!(error, TransactionError::TooLarge { got });
}

#[test]
fn builder_keeps_the_last_image_of_each_page_in_order() {
    let mut builder = TransactionBuilder::new();
    for (number, seed) in [(5, 1), (2, 2), (5, 3), (9, 4), (2, 5)] {
        builder.push(PageNo(number), &page(seed));
    }
    builder.truncate(4); // page 2's second image is undone
    // Page 9 is cut off by the end of the database.
    let built = builder.finish(header(), b"").unwrap();
    let pages: Vec<_> = built
        .pages()
        .map(|(number, image)| (number.0, *image))
        .collect();
    assert_eq!(pages, [(2, page(2)), (5, page(3))]);
}

#[test]
fn builder_refuses_a_transaction_that_does_not_go_forward() {
    let back = TransactionHeader {
        base: later(position()),
        next: position(),
        ..header()
    };
    let error = TransactionBuilder::new().finish(back, b"").unwrap_err();
    assert!(matches!(error, TransactionError::Order { .. }), "{error}");
}

#[test]
fn answer_over_the_bound_is_not_recorded() {
    let long = vec![b'x'; ANSWER_BYTES_MAX + 1];
    let without = TransactionBuilder::new().finish(header(), &long).unwrap();
    assert!(without.answer().is_empty());
    let with = TransactionBuilder::new()
        .finish(header(), &long[1..])
        .unwrap();
    assert_eq!(with.answer().len(), ANSWER_BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn decoding_gives_back_what_was_encoded(built in any_transaction()) {
        let read = Transaction::decode(built.encoded().clone()).unwrap();
        prop_assert_eq!(read.header(), built.header());
        prop_assert_eq!(read.answer(), built.answer());
        prop_assert!(read.pages().eq(built.pages()));
        prop_assert_eq!(&read, &built);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Transaction::decode(Bytes::from(bytes));
    }

    #[test]
    fn any_edit_behind_a_right_crc_is_read_or_refused(
        offset in 0..108_usize,
        new in any::<u32>(),
    ) {
        if let Ok(read) = Transaction::decode(edited(offset, &new.to_le_bytes())) {
            prop_assert_eq!(read.pages().count(), read.page_count());
        }
    }
}
