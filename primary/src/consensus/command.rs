//! What the cell agrees on.

use std::fmt;

use bytes::Bytes;
use tidemark_protocol::Transaction;
use tidemark_protocol::transaction::TransactionError;

use super::parts::PartError;

/// What changes something. One entry of the log, or several if it is large, see [`super::parts`].
///
/// Cheap to clone: it lies in the log's cache, in the replication streams and in the apply queue at the
/// same time, and all share the record's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// One SQLite commit of one database.
    Transaction(Transaction),
}

/// Why bytes are not a command.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Written by a newer build, or damaged.
    #[error("log entry of kind {got}, this build knows {known:?}", known = [KIND_TRANSACTION, KIND_PART])]
    Kind {
        /// The kind given.
        got: u8,
    },
    /// Not a transaction record.
    #[error("log entry is not a transaction")]
    Transaction(#[from] TransactionError),
    /// Not a part of anything.
    #[error("log entry is not a part")]
    Part(#[from] PartError),
}

/// Kinds below this one are consensus' own (see `records`).
pub(super) const KIND_FIRST: u8 = 16;
const KIND_TRANSACTION: u8 = KIND_FIRST;
pub(super) const KIND_PART: u8 = 17;

impl Command {
    /// The byte that says what follows.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Transaction(_) => KIND_TRANSACTION,
        }
    }

    /// What follows.
    pub(super) fn body(&self) -> &Bytes {
        match self {
            Self::Transaction(transaction) => transaction.encoded(),
        }
    }

    /// Reads back [`Command::kind`] and [`Command::body`].
    pub(super) fn decode(kind: u8, body: Bytes) -> Result<Self, CommandError> {
        match kind {
            KIND_TRANSACTION => Ok(Self::Transaction(Transaction::decode(body)?)),
            got => Err(CommandError::Kind { got }),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(transaction) => {
                let header = transaction.header();
                write!(f, "{} to {}", header.database, header.next)
            }
        }
    }
}
