//! How a request fails, as far as a client can tell: a kind that says what to do, D1's code, a text.
//!
//! Three outcomes reach a client: committed (no failure), failed (nothing happened), unknown
//! ([`FailureKind::Unknown`]: contact with the outcome was lost).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What kind of failure it is: what the caller can do about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The request is malformed. Fix it.
    BadRequest,
    /// SQLite refused a statement. Fix it.
    Sql,
    /// The bookmark is unreadable, forged or of another database. Start a new session.
    BadBookmark,
    /// The bookmark is of a state that this history never reached. Start a new session.
    LostBookmark,
    /// No such database.
    NoDatabase,
    /// A database of that name exists.
    DatabaseExists,
    /// The token is missing or wrong.
    Unauthenticated,
    /// The token does not allow it.
    Forbidden,
    /// Over a bound on the size of a request, an answer or a transaction.
    TooLarge,
    /// The replica did not reach the bookmark by the deadline, and forwarding was not asked for.
    Stale,
    /// The deadline passed before anything was done. Nothing happened.
    Deadline,
    /// Too many requests queue. Nothing happened; try later.
    Overloaded,
    /// No primary can be reached. Nothing happened; try later.
    Unavailable,
    /// The copy of the database on this node is damaged and under repair. Nothing happened.
    Damaged,
    /// A write was handed on and its outcome is not known. Retry with the same request id.
    Unknown,
    /// A fault of the server. Nothing happened.
    Internal,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [FailureKind; 16] = [
        Self::BadRequest,
        Self::Sql,
        Self::BadBookmark,
        Self::LostBookmark,
        Self::NoDatabase,
        Self::DatabaseExists,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::TooLarge,
        Self::Stale,
        Self::Deadline,
        Self::Overloaded,
        Self::Unavailable,
        Self::Damaged,
        Self::Unknown,
        Self::Internal,
    ];

    /// The HTTP status. A 5xx promises that nothing happened, because D1's clients retry it.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest
            | Self::Sql
            | Self::BadBookmark
            | Self::LostBookmark
            | Self::DatabaseExists => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NoDatabase => 404,
            Self::TooLarge => 413,
            // D1's clients retry it without a request id, which does no harm: nothing happened.
            Self::Deadline => 408,
            // Not 408 or 409, for the same reason.
            Self::Unknown => 424,
            Self::Stale => 412,
            Self::Overloaded => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::Damaged => 503,
        }
    }

    /// D1's error code, or one of our own (79xx) where D1 has none.
    pub const fn code(self) -> u32 {
        match self {
            Self::BadRequest => 7400,
            Self::Forbidden => 7403,
            Self::NoDatabase => 7404,
            Self::Sql | Self::Overloaded | Self::Internal => 7500,
            Self::DatabaseExists => 7502,
            Self::Unauthenticated => 10000,
            Self::BadBookmark => 7900,
            Self::LostBookmark => 7901,
            Self::Stale => 7902,
            Self::Deadline => 7903,
            Self::Unknown => 7904,
            Self::Unavailable => 7905,
            Self::Damaged => 7906,
            Self::TooLarge => 7907,
        }
    }

    /// Its name in the header `tidemark-failure`: the variant in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Sql => "sql",
            Self::BadBookmark => "bad_bookmark",
            Self::LostBookmark => "lost_bookmark",
            Self::NoDatabase => "no_database",
            Self::DatabaseExists => "database_exists",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::Stale => "stale",
            Self::Deadline => "deadline",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::Unknown => "unknown",
            Self::Internal => "internal",
        }
    }

    /// The kind of that name. A name of a later version is none that this build knows.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether trying again, unchanged, can help and can do no harm: for [`FailureKind::Unknown`] only
    /// with the same request id.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::Stale
                | Self::Deadline
                | Self::Overloaded
                | Self::Unavailable
                | Self::Damaged
                | Self::Unknown
        )
    }
}

/// A failed request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the caller can do.
    pub kind: FailureKind,
    /// What went wrong, naming the thing and both values.
    pub message: String,
    /// How long to wait before trying again, if that is known.
    pub retry_after: Option<Duration>,
    /// Which text of SQL of the request failed, from 0, if it was one of them.
    pub text: Option<usize>,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
            text: None,
        }
    }

    /// The same, with a time to wait before trying again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}
