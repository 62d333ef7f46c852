//! Bytes that were written once must be read, and written again, for ever.
//!
//! To add a file for a new format, run once with `TIDEMARK_WRITE_TESTDATA=1`. An existing file is never
//! rewritten: whoever changes a format adds a version and keeps the old files.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use tidemark_protocol::stream::{FollowerMessage, SourceMessage};
use tidemark_protocol::{Bookmark, Transaction};

use crate::values;

/// The bytes of `testdata/<name>`, which must be `encoded`.
fn check(name: &str, encoded: &[u8]) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    if !path.exists() && std::env::var_os("TIDEMARK_WRITE_TESTDATA").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, encoded).unwrap();
    }
    let stored = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(stored == encoded, "{name} is no longer written as it was");
    Bytes::from(stored)
}

#[test]
fn bookmark_is_written_and_read_as_ever() {
    let want = values::bookmark();
    let stored = check("v1/bookmark.txt", want.to_string().as_bytes());
    let read: Bookmark = std::str::from_utf8(&stored).unwrap().parse().unwrap();
    assert_eq!(read, want);
    assert_eq!(
        read.verify(&values::key(), values::database()),
        Ok(values::position())
    );
}

#[test]
fn transaction_is_written_and_read_as_ever() {
    let want = values::transaction();
    let stored = check("v1/transaction.bin", want.encoded());
    let read = Transaction::decode(stored).unwrap();
    assert_eq!(read, want);
    assert_eq!(*read.header(), values::header());
    let pages: Vec<_> = read
        .pages()
        .map(|(number, image)| (number.0, *image))
        .collect();
    assert_eq!(pages, [(3, values::page(3)), (7, values::page(7))]);
    assert_eq!(read.answer(), br#"[{"results":[]}]"#.as_slice());
}

#[test]
fn follower_messages_are_written_and_read_as_ever() {
    for (name, want) in values::follower_messages() {
        let stored = check(&format!("v1/follower-{name}.bin"), &want.encode());
        assert_eq!(FollowerMessage::decode(&stored).unwrap(), want, "{name}");
    }
}

#[test]
fn source_messages_are_written_and_read_as_ever() {
    for (name, want) in values::source_messages() {
        let stored = check(&format!("v1/source-{name}.bin"), &want.encode());
        assert_eq!(SourceMessage::decode(&stored).unwrap(), want, "{name}");
    }
}
