//! Messages of the replica stream, and the transaction records in them.

use bytes::Bytes;
use tidemark_net::Unpacker;
use tidemark_protocol::Transaction;
use tidemark_protocol::stream::{FollowerMessage, SourceMessage, message_bytes};

use crate::memory::bounded;
use crate::sealed;

/// The message that carries a transaction, behind its term.
const TRANSACTION: u8 = 66;
const TERM_BYTES: usize = 8;
/// Bytes that packed ones may become.
const UNPACKED_BYTES_MAX: usize = 64 << 10;

/// The bytes are a message; or the kind of one and its payload; or a record.
pub fn check(bytes: &[u8]) {
    let input = bytes.len();
    bounded(input, 16, || {
        message(&Bytes::copy_from_slice(bytes));
        if let [kind, payload @ ..] = bytes {
            message(&sealed::message(*kind, payload).into());
            if let Some((term, record)) = payload.split_at_checked(TERM_BYTES) {
                let payload = [term, &sealed::record(record)].concat();
                message(&sealed::message(TRANSACTION, &payload).into());
            }
        }
        record(&Bytes::copy_from_slice(bytes));
        record(&sealed::record(bytes).into());
    });
    unpack(bytes);
}

/// What claims to be packed becomes at most as many bytes as were asked for. Few may become many: the bound of memory
/// above is not theirs.
fn unpack(bytes: &[u8]) {
    let mut unpacker = Unpacker::new().expect("memory");
    if let Ok(message) = unpacker.unpack(bytes, UNPACKED_BYTES_MAX) {
        assert!(message.len() <= UNPACKED_BYTES_MAX);
    }
}

fn message(bytes: &Bytes) {
    let said = message_bytes(bytes);
    let follower = FollowerMessage::decode(bytes);
    let source = SourceMessage::decode(bytes);
    if follower.is_ok() || source.is_ok() {
        assert_eq!(
            said,
            Ok(Some(bytes.len())),
            "its length is seen from its start"
        );
    }
    assert!(follower.is_err() || source.is_err(), "it goes one way");
    // Not byte for byte: what is a flag may be told in several ways.
    if let Ok(message) = follower {
        assert_eq!(FollowerMessage::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = source {
        if let SourceMessage::Transaction { transaction, .. } = &message {
            read(transaction);
        }
        if let SourceMessage::Pages { pages, .. } = &message {
            assert!(pages.iter().is_sorted_by(|one, next| one.0 < next.0));
        }
        assert_eq!(SourceMessage::decode(&message.encode()), Ok(message));
    }
}

fn record(bytes: &Bytes) {
    if let Ok(transaction) = Transaction::decode(bytes.clone()) {
        assert_eq!(transaction.encoded(), bytes);
        read(&transaction);
    }
}

/// All of it can be looked at.
fn read(transaction: &Transaction) {
    let header = transaction.header();
    assert!(header.base.age(&header.next).is_lt());
    assert!(transaction.pages().is_sorted_by(|one, next| one.0 < next.0));
    assert_eq!(transaction.pages().len(), transaction.page_count());
    let _ = transaction.answer();
}
