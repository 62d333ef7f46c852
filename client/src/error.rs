//! How a request ends that did not succeed: by what the caller may conclude.

use std::time::Duration;

use tidemark_protocol::{FailureKind, RequestId};

/// Why there is no answer.
///
/// The variants follow what happened to the database: [`Error::Failed`] and [`Error::Config`] promise
/// that nothing did, [`Error::Decode`] that the request took effect, and [`Error::Unknown`] is honest
/// about not knowing. Retries inside the deadline have already been made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing happened.
    #[error("{message} (code {code})")]
    Failed {
        /// What the caller can do about it.
        kind: FailureKind,
        /// What went wrong. For SQL errors SQLite's own text.
        message: String,
        /// D1's error code, or one of Tidemark's own (79xx).
        code: u32,
        /// How long the server asks to wait before another try.
        retry_after: Option<Duration>,
    },
    /// It may have happened: contact was lost after the request had been sent.
    ///
    /// Sending it again under the same id (see [`crate::Query::request_id`]) is safe: if it did
    /// happen, the recorded answer is repeated.
    #[error("outcome of request {request} is unknown: {reason}")]
    Unknown {
        /// The id to send it again with.
        request: RequestId,
        /// How contact was lost.
        reason: String,
    },
    /// It succeeded, but the answer cannot be read, or not as the type that was asked for; or it took
    /// effect at an earlier try, and the server has not kept the rows of that.
    #[error("answer cannot be read: {reason}")]
    Decode {
        /// What does not fit.
        reason: String,
    },
    /// The client, or this request, is set up in a way that cannot work. Nothing was sent.
    #[error("{reason}")]
    Config {
        /// What is wrong, with the value.
        reason: String,
    },
}

impl Error {
    /// The kind of a [`Error::Failed`]; [`FailureKind::Unknown`] for [`Error::Unknown`].
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Failed { kind, .. } => Some(*kind),
            Self::Unknown { .. } => Some(FailureKind::Unknown),
            Self::Decode { .. } | Self::Config { .. } => None,
        }
    }

    /// Whether the database may have changed although there is no answer.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Decode { .. })
    }

    pub(crate) fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Failed {
            kind,
            message: message.into(),
            code: kind.code(),
            retry_after: None,
        }
    }

    pub(crate) fn decode(reason: impl Into<String>) -> Self {
        Self::Decode {
            reason: reason.into(),
        }
    }

    pub(crate) fn config(reason: impl Into<String>) -> Self {
        Self::Config {
            reason: reason.into(),
        }
    }
}
