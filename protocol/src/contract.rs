//! Contracts: what a request asks of the read it wants: how fresh, by when, and what else if not.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::bookmark::{Bookmark, BookmarkError};

/// How fresh a read must be. The value of `x-d1-bookmark` on the way in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReadContract {
    /// No session: D1's plain query, answered by the primary whichever node was asked.
    #[default]
    Primary,
    /// A session that starts with everything committed so far: answered by the primary.
    FirstPrimary,
    /// A session that starts with whatever the asked node has.
    FirstUnconstrained,
    /// Not before this state.
    Bookmark(Bookmark),
}

impl FromStr for ReadContract {
    type Err = BookmarkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "first-primary" => Ok(Self::FirstPrimary),
            "first-unconstrained" => Ok(Self::FirstUnconstrained),
            bookmark => bookmark.parse().map(Self::Bookmark),
        }
    }
}

/// What a node does that cannot meet the contract in time. Header `tidemark-on-miss`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnMiss {
    /// Ask the primary instead.
    #[default]
    Forward,
    /// Answer from what is here; the bookmark of the answer says how old it is.
    Stale,
    /// Fail.
    Error,
}

/// The text is none of `forward`, `stale`, `error`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is not an on-miss rule: want 'forward', 'stale' or 'error'")]
pub struct OnMissError {
    /// What was given.
    pub text: String,
}

impl FromStr for OnMiss {
    type Err = OnMissError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "forward" => Ok(Self::Forward),
            "stale" => Ok(Self::Stale),
            "error" => Ok(Self::Error),
            _ => Err(OnMissError {
                text: text.to_owned(),
            }),
        }
    }
}

impl OnMiss {
    /// The part of a request's time that a read may wait on a copy that is behind. The rest is for the trip
    /// to the primary, or for saying no before the caller has given up.
    pub fn patience(self, deadline: Duration) -> Duration {
        match self {
            Self::Forward => deadline.mul_f64(2.0 / 3.0),
            Self::Stale | Self::Error => deadline.mul_f64(0.9),
        }
    }
}

impl fmt::Display for OnMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Stale => "stale",
            Self::Error => "error",
        })
    }
}

/// Time a request may take when it names none.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Longest time a request may ask for.
pub const DEADLINE_MAX: Duration = Duration::from_secs(120);
