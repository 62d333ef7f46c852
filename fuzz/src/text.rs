//! Texts in headers, paths and addresses: bookmarks, what a read asks for, identifiers, names.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use tidemark_gateway::fuzzing;
use tidemark_protocol::contract::{Delivered, OnMiss, ReadContract, ReadWish};
use tidemark_protocol::d1::check_name;
use tidemark_protocol::{
    Bookmark, BookmarkKey, DatabaseId, FailureKind, Incarnation, Region, RequestId,
};

use crate::memory::bounded;

/// Lines are the values of headers; all of it is a text of any other kind.
pub fn check(bytes: &[u8]) {
    bounded(bytes.len(), 64, || {
        fuzzing::ask(bytes.split(|byte| *byte == b'\n'));
        if let Ok(text) = str::from_utf8(bytes) {
            texts(text);
        }
    });
}

fn texts(text: &str) {
    if let Ok(bookmark) = text.parse::<Bookmark>() {
        assert_eq!(bookmark.to_string(), text);
        let _ = bookmark.verify(&BookmarkKey::new([7; 16]), DatabaseId::CATALOGUE);
        assert_eq!(text.parse(), Ok(ReadContract::Bookmark(bookmark)));
    }
    if let Ok(on_miss) = text.parse::<OnMiss>() {
        assert_eq!(on_miss.to_string(), text);
        assert!(on_miss.patience(Duration::MAX / 2) < Duration::MAX);
    }
    again::<Delivered>(text);
    again::<Region>(text);
    again::<DatabaseId>(text);
    again::<RequestId>(text);
    again::<Incarnation>(text);
    if let Ok(wish) = text.parse::<ReadWish>() {
        let written = wish.freshness.to_string();
        if !written.is_empty() {
            let again: ReadWish = written.parse().expect("what was written can be read");
            assert_eq!(again.freshness.to_string(), written);
        }
    }
    if let Some(kind) = FailureKind::from_name(text) {
        assert_eq!(kind.name(), text);
    }
    if check_name(text).is_ok() {
        assert!(
            text.parse::<DatabaseId>().is_err(),
            "a name is no identifier"
        );
    }
}

/// What was read is written as a text that is read as the same.
fn again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>().ok();
        assert_eq!(again, Some(value));
    }
}
