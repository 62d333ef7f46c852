//! Bookmarks come back from clients, who may have stored, cut, edited or made them up. None may be
//! taken for a state that the cluster never named, and D1's own clients compare them as text.

use std::cmp::Ordering;

use proptest::prelude::*;
use tidemark_protocol::{Bookmark, BookmarkError, BookmarkKey, DatabaseId};

use crate::values::{any_database, any_position, bookmark, database, key, position};

#[test]
fn text_has_the_shape_of_d1s() {
    let text = bookmark().to_string();
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 8, 8, 32]);
    assert!(
        text.starts_with("00000002-00000001-0000002a-d3e4f506"),
        "{text}"
    );
}

#[test]
fn wrong_length_is_named() {
    for text in [
        "",
        "first",
        &bookmark().to_string()[1..],
        &format!("{}0", bookmark()),
    ] {
        let got = text.len();
        assert_eq!(
            text.parse::<Bookmark>(),
            Err(BookmarkError::Length { got }),
            "{text:?}"
        );
    }
}

#[test]
fn length_is_counted_in_characters() {
    let wide = "é".repeat(Bookmark::TEXT_LENGTH);
    let found = 'é';
    assert_eq!(
        wide.parse::<Bookmark>(),
        Err(BookmarkError::Digit { offset: 0, found })
    );
}

#[test]
fn misplaced_dash_and_bad_digit_are_named() {
    let good = bookmark().to_string();
    for offset in [8, 17, 26] {
        let mut bad = good.clone();
        bad.replace_range(offset..=offset, "0");
        let found = '0';
        assert_eq!(
            bad.parse::<Bookmark>(),
            Err(BookmarkError::Dash { offset, found })
        );
    }
    for (offset, found) in [(0, 'A'), (9, 'g'), (58 - 1, ' '), (30, '-')] {
        let mut bad = good.clone();
        bad.replace_range(offset..=offset, &found.to_string());
        assert_eq!(
            bad.parse::<Bookmark>(),
            Err(BookmarkError::Digit { offset, found })
        );
    }
}

#[test]
fn bookmark_of_another_database_is_told_from_a_forged_one() {
    let other: DatabaseId = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f507".parse().unwrap();
    assert_eq!(
        bookmark().verify(&key(), other),
        Err(BookmarkError::ForeignDatabase {
            got: 0xd3e4_f506,
            expected: 0xd3e4_f507
        })
    );
    let stranger = BookmarkKey::new([9; 16]);
    assert_eq!(
        bookmark().verify(&stranger, database()),
        Err(BookmarkError::Forged)
    );
}

#[test]
fn every_changed_digit_is_a_forgery() {
    let good = bookmark().to_string();
    for offset in (0..good.len()).filter(|offset| ![8, 17, 26].contains(offset)) {
        for digit in "0123456789abcdef".chars() {
            let mut text = good.clone();
            text.replace_range(offset..=offset, &digit.to_string());
            let verified = text.parse::<Bookmark>().unwrap().verify(&key(), database());
            if text == good {
                assert_eq!(verified, Ok(position()));
            } else {
                assert_eq!(verified, Err(BookmarkError::Forged), "{text}");
            }
        }
    }
}

proptest! {
    #[test]
    fn text_and_verification_give_back_the_position(
        database in any_database(),
        position in any_position(),
    ) {
        let text = Bookmark::issue(&key(), database, position).to_string();
        let read: Bookmark = text.parse().unwrap();
        prop_assert_eq!(read.verify(&key(), database), Ok(position));
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn text_order_is_age_order(
        (database, a, b) in (any_database(), any_position(), any_position()),
        close in 0..3_u64,
    ) {
        // Positions far apart, and positions that differ in the last digits alone.
        let mut near = a;
        near.seq.0 = near.seq.0.wrapping_add(close);
        for other in [b, near] {
            let text = |position| Bookmark::issue(&key(), database, position).to_string();
            let age = a.age(&other);
            if age != Ordering::Equal {
                prop_assert_eq!(text(a).cmp(&text(other)), age);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,70}") {
        let _ = text.parse::<Bookmark>();
    }

    #[test]
    fn made_up_bookmarks_are_forged(tail in "[0-9a-f]{32}", head in "[0-9a-f]{8}") {
        let made_up: Bookmark = format!("{head}-00000000-0000002a-{tail}").parse().unwrap();
        prop_assert_eq!(made_up.verify(&key(), database()), Err(BookmarkError::Forged));
    }
}
