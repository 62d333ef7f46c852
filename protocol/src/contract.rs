//! Contracts: what a request asks of the read it wants: how fresh, by when, and what else if not.
//!
//! Two parts say how fresh, and both must hold. The *session* ([`ReadContract`], header `x-d1-bookmark`)
//! names a state. `tidemark-read` ([`Freshness`]) names a time:
//!
//! * `linearizable`: the read sees everything that was acknowledged to anybody before the request arrived.
//! * `max-staleness=500ms`: there is a moment after the request arrived at which nothing was missing that had
//!   been committed for longer than that.
//!
//! No clocks of two machines are compared for either. How a replica proves the second is told where it does
//! (`replica/src/soundings.rs`).

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

/// What a read may miss, whatever its session has seen. Header `tidemark-read`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Freshness {
    /// Anything that its session has not seen.
    #[default]
    Any,
    /// Only what was committed within this time before.
    MaxStaleness(Duration),
    /// Nothing that was acknowledged before the request arrived.
    Linearizable,
}

/// The words of `tidemark-read`.
const LINEARIZABLE: &str = "linearizable";
const MAX_STALENESS: &str = "max-staleness=";
const BOOKMARK: &str = "bookmark=";

/// What `tidemark-read` says: parts with commas between them, each at most once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadWish {
    /// What may be missing.
    pub freshness: Freshness,
    /// The same as in `x-d1-bookmark`, for protocols and clients without that.
    pub bookmark: Option<Bookmark>,
}

/// The text is no read contract.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadWishError {
    /// Nobody knows this word.
    #[error(
        "'{part}' is not a read contract: want 'linearizable', 'max-staleness=DURATION' or \
         'bookmark=BOOKMARK'"
    )]
    Unknown {
        /// The part given.
        part: String,
    },
    /// Two parts about the same.
    #[error("'{part}' comes after '{before}', which says the same or more")]
    Twice {
        /// The later one.
        part: String,
        /// The earlier one.
        before: String,
    },
    /// Not a duration.
    #[error("'{text}' is not a duration: {reason}")]
    Duration {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a bookmark.
    #[error(transparent)]
    Bookmark(#[from] BookmarkError),
}

impl FromStr for ReadWish {
    type Err = ReadWishError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut wish = Self::default();
        for part in text.split(',').map(str::trim_ascii) {
            let twice = |before: String| ReadWishError::Twice {
                part: part.to_owned(),
                before,
            };
            let bounds = part == LINEARIZABLE || part.starts_with(MAX_STALENESS);
            if bounds && wish.freshness != Freshness::Any {
                return Err(twice(wish.freshness.to_string()));
            }
            if part == LINEARIZABLE {
                wish.freshness = Freshness::Linearizable;
            } else if let Some(bound) = part.strip_prefix(MAX_STALENESS) {
                wish.freshness = Freshness::MaxStaleness(duration(bound)?);
            } else if let Some(bookmark) = part.strip_prefix(BOOKMARK) {
                if let Some(before) = wish.bookmark {
                    return Err(twice(format!("{BOOKMARK}{before}")));
                }
                wish.bookmark = Some(bookmark.parse()?);
            } else {
                return Err(ReadWishError::Unknown {
                    part: part.to_owned(),
                });
            }
        }
        Ok(wish)
    }
}

fn duration(text: &str) -> Result<Duration, ReadWishError> {
    humantime::parse_duration(text).map_err(|error| ReadWishError::Duration {
        text: text.to_owned(),
        reason: error.to_string(),
    })
}

/// As `tidemark-read` has it; nothing for [`Freshness::Any`].
impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            // Rounded down: a stricter bound keeps the promise.
            Self::MaxStaleness(bound) => match u64::try_from(bound.as_nanos()) {
                Ok(ns) => write!(f, "{MAX_STALENESS}{}us", ns / 1000),
                // Whoever reads parts of a second counts nanoseconds, to 64 bits.
                Err(_) => write!(f, "{MAX_STALENESS}{}s", bound.as_secs()),
            },
            Self::Linearizable => f.write_str(LINEARIZABLE),
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

/// Why a node handed a request on instead of answering it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// What was asked for is the leader's to answer.
    Contract,
    /// It writes, or may have written at an earlier try.
    Write,
    /// The copy did not get there in time, or nothing comes that would bring it there.
    Behind,
    /// Waiting for the copy was expected to take longer than the trip.
    Predicted,
    /// This node does not know the database.
    UnknownDatabase,
    /// The bookmark is of another database, or of a history that this node does not know.
    Bookmark,
    /// The copy cannot be read.
    Unreadable,
    /// What SQLite refuses here, a newer state may understand.
    Sql,
    /// This node does not lead.
    NotLeading,
}

impl Why {
    const ALL: [Self; 9] = [
        Self::Contract,
        Self::Write,
        Self::Behind,
        Self::Predicted,
        Self::UnknownDatabase,
        Self::Bookmark,
        Self::Unreadable,
        Self::Sql,
        Self::NotLeading,
    ];

    /// Its name in `tidemark-delivered`, and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Write => "write",
            Self::Behind => "behind",
            Self::Predicted => "predicted",
            Self::UnknownDatabase => "unknown-database",
            Self::Bookmark => "bookmark",
            Self::Unreadable => "unreadable",
            Self::Sql => "sql",
            Self::NotLeading => "not-leading",
        }
    }
}

/// What a request got. Header `tidemark-delivered`, a dictionary of RFC 9651:
/// `waited-ms=8, staleness-ms=120, forwarded=behind`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    /// How long nodes waited for a copy to get where the contract wants it.
    pub waited: Duration,
    /// What the answer may miss: nothing that was committed longer than this before the read began. `None`:
    /// not known, or the request wrote.
    pub staleness: Option<Duration>,
    /// Why the node that was asked first handed it on, if it did.
    pub forwarded: Option<Why>,
}

impl Delivered {
    /// What a client gets for which another node did this, after `waited` here.
    pub fn forwarded(self, why: Why, waited: Duration) -> Self {
        Self {
            waited: self.waited + waited,
            forwarded: Some(why),
            ..self
        }
    }
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            waited,
            staleness,
            forwarded,
        } = self;
        write!(f, "waited-ms={}", waited.as_millis())?;
        if let Some(staleness) = staleness {
            // Rounded up: it is a bound.
            let ms = staleness.as_micros().div_ceil(1000);
            write!(f, ", staleness-ms={ms}")?;
        }
        if let Some(why) = forwarded {
            write!(f, ", forwarded={}", why.name())?;
        }
        Ok(())
    }
}

/// The text is no account of what was delivered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{part}' does not belong into an account of what was delivered")]
pub struct DeliveredError {
    /// What is wrong.
    pub part: String,
}

impl FromStr for Delivered {
    type Err = DeliveredError;

    /// Parts that are not known are passed over: a newer node may have them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut delivered = Self::default();
        for part in text.split(',').map(str::trim_ascii) {
            let wrong = || DeliveredError {
                part: part.to_owned(),
            };
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let ms = || {
                value
                    .parse()
                    .map(Duration::from_millis)
                    .map_err(|_| wrong())
            };
            match name {
                "waited-ms" => delivered.waited = ms()?,
                "staleness-ms" => delivered.staleness = Some(ms()?),
                "forwarded" => {
                    delivered.forwarded = Why::ALL.into_iter().find(|why| why.name() == value);
                }
                _ => {}
            }
        }
        Ok(delivered)
    }
}

/// Time a request may take when it names none.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Longest time a request may ask for.
pub const DEADLINE_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Result<ReadWish, &str>) {
        let read = text.parse::<ReadWish>().map_err(|error| error.to_string());
        let expected = expected.map_err(str::to_owned);
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn parts_are_read_and_contradictions_refused() {
        let fresh = |freshness| {
            Ok(ReadWish {
                freshness,
                bookmark: None,
            })
        };
        let bound = |ms| fresh(Freshness::MaxStaleness(Duration::from_millis(ms)));
        check("linearizable", &fresh(Freshness::Linearizable));
        check("max-staleness=500ms", &bound(500));
        check(" max-staleness=1m 30s ", &bound(90_000));
        check("max-staleness=0s", &bound(0));
        let text = "00000001-00000000-00000005-0000000700000000000000090000000b";
        let bookmark = text.parse().expect("a bookmark");
        let both = ReadWish {
            freshness: Freshness::MaxStaleness(Duration::from_secs(5)),
            bookmark: Some(bookmark),
        };
        check(&format!("max-staleness=5s, bookmark={text}"), &Ok(both));
        check(
            "linearizable, max-staleness=5s",
            &Err("'max-staleness=5s' comes after 'linearizable', which says the same or more"),
        );
        check(
            "eventual",
            &Err(
                "'eventual' is not a read contract: want 'linearizable', 'max-staleness=DURATION' \
                 or 'bookmark=BOOKMARK'",
            ),
        );
        let number = "max-staleness=5".parse::<ReadWish>();
        assert!(matches!(number, Err(ReadWishError::Duration { .. })));
        assert!(matches!(
            "bookmark=x".parse::<ReadWish>(),
            Err(ReadWishError::Bookmark(_))
        ));
        assert!("".parse::<ReadWish>().is_err());
    }

    #[test]
    fn what_is_said_of_freshness_is_understood() {
        for freshness in [
            Freshness::Linearizable,
            Freshness::MaxStaleness(Duration::from_micros(1500)),
            Freshness::MaxStaleness(Duration::from_secs(77_785_555_554)),
            Freshness::MaxStaleness(Duration::from_secs(u64::MAX)),
        ] {
            let read: ReadWish = freshness.to_string().parse().expect("one part");
            assert_eq!(read.freshness, freshness);
        }
    }

    #[test]
    fn accounts_are_read_as_they_were_written() {
        let whole = Delivered {
            waited: Duration::from_millis(8),
            staleness: Some(Duration::from_millis(120)),
            forwarded: Some(Why::UnknownDatabase),
        };
        let text = "waited-ms=8, staleness-ms=120, forwarded=unknown-database";
        assert_eq!(whole.to_string(), text);
        assert_eq!(text.parse(), Ok(whole));
        for why in Why::ALL {
            let told = Delivered::default().forwarded(why, Duration::from_millis(3));
            assert_eq!(told.to_string().parse(), Ok(told));
        }
        let newer = "waited-ms=0, colour=green, forwarded=for-fun".parse();
        assert_eq!(newer, Ok(Delivered::default()));
        assert!("waited-ms=soon".parse::<Delivered>().is_err());
    }

    #[test]
    fn staleness_is_rounded_up_and_never_below_the_truth() {
        let told = Delivered {
            staleness: Some(Duration::from_micros(1001)),
            ..Delivered::default()
        };
        assert_eq!(told.to_string(), "waited-ms=0, staleness-ms=2");
    }
}
