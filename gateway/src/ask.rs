//! What the headers of a request ask for.

use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tidemark_protocol::contract::{DEADLINE_DEFAULT, DEADLINE_MAX, ReadWish, ReadWishError};
use tidemark_protocol::render::ValueForm;
use tidemark_protocol::{
    Failure, FailureKind, Freshness, OnMiss, ReadContract, RequestId, headers,
};
use tokio::time::Instant;

/// How the names begin of all headers that are read here, but for that of a session.
const OWN: &str = "tidemark-";
const BOOKMARK: HeaderName = HeaderName::from_static(headers::BOOKMARK);

/// The headers of one request, understood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// When its time is over.
    pub(crate) expires: Instant,
    pub(crate) read: ReadContract,
    pub(crate) freshness: Freshness,
    pub(crate) on_miss: OnMiss,
    pub(crate) request: Option<RequestId>,
    pub(crate) form: ValueForm,
    /// Another node passed it on to this one.
    pub(crate) forwarded: bool,
}

impl Ask {
    /// Reads the headers of a request that has just arrived.
    pub(crate) fn read(from: &HeaderMap) -> Result<Self, Failure> {
        let session =
            match plain(from.get(BOOKMARK), headers::BOOKMARK) {
                Ok(None) => None,
                Ok(Some(text)) => {
                    let session = text.parse::<ReadContract>();
                    Some(session.map_err(|error| {
                        Failure::new(FailureKind::BadBookmark, error.to_string())
                    })?)
                }
                Err(failure) => {
                    return Err(Failure {
                        kind: FailureKind::BadBookmark,
                        ..failure
                    });
                }
            };
        Self::read_in(session, from)
    }

    /// The same for a request whose session, if it has one, is in another header.
    pub(crate) fn read_in(
        session: Option<ReadContract>,
        from: &HeaderMap,
    ) -> Result<Self, Failure> {
        // Most requests ask for nothing, and to look for each name costs as much as to read their SQL.
        if !from.keys().any(|name| name.as_str().starts_with(OWN)) {
            return Ok(Self {
                expires: Instant::now() + DEADLINE_DEFAULT,
                read: session.unwrap_or_default(),
                freshness: Freshness::default(),
                on_miss: OnMiss::default(),
                request: None,
                form: ValueForm::default(),
                forwarded: false,
            });
        }
        let (read, freshness) = contract(session, wish(from)?)?;
        let deadline = match text(from, headers::DEADLINE)? {
            Some(text) => deadline(text)?,
            None => DEADLINE_DEFAULT,
        };
        let form = match text(from, headers::VALUES)? {
            None | Some("d1") => ValueForm::D1,
            Some("exact") => ValueForm::Exact,
            Some(other) => {
                let reason = format!("'{other}' is neither 'exact' nor 'd1'");
                return Err(invalid(headers::VALUES, reason));
            }
        };
        let request: Option<RequestId> = parsed(from, headers::REQUEST_ID)?;
        if request.is_some_and(|request| request.to_bytes() == [0; 16]) {
            // Records have it for "none": a retry under it would not be recognised.
            return Err(invalid(headers::REQUEST_ID, "the nil UUID names nothing"));
        }
        Ok(Self {
            expires: Instant::now() + deadline,
            read,
            freshness,
            on_miss: parsed(from, headers::ON_MISS)?.unwrap_or_default(),
            request,
            form,
            forwarded: from.contains_key(headers::FORWARDED_BY),
        })
    }

    /// The time left; a failure when there is none.
    pub(crate) fn remaining(&self) -> Result<Duration, Failure> {
        let remaining = self.expires.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            Err(deadline_passed())
        } else {
            Ok(remaining)
        }
    }
}

/// What `tidemark-read` says, whose parts may be spread over several lines.
fn wish(from: &HeaderMap) -> Result<ReadWish, Failure> {
    let lines = from.get_all(headers::READ).into_iter();
    let lines: Option<Vec<_>> = lines.map(|line| line.to_str().ok()).collect();
    let Some(lines) = lines else {
        return Err(invalid(headers::READ, "not plain text"));
    };
    if lines.is_empty() {
        return Ok(ReadWish::default());
    }
    let wish = lines.join(",").parse();
    wish.map_err(|error| {
        if let ReadWishError::Bookmark(error) = error {
            Failure::new(FailureKind::BadBookmark, error.to_string())
        } else {
            invalid(headers::READ, error)
        }
    })
}

/// What a request wants that says this of its session and that beside it.
fn contract(
    session: Option<ReadContract>,
    wish: ReadWish,
) -> Result<(ReadContract, Freshness), Failure> {
    let ReadWish {
        freshness,
        bookmark,
    } = wish;
    let session = match (session, bookmark) {
        (Some(_), Some(bookmark)) => {
            let reason = format!("bookmark={bookmark} comes beside a session, which has its own");
            return Err(invalid(headers::READ, reason));
        }
        (session, bookmark) => session.or(bookmark.map(ReadContract::Bookmark)),
    };
    // Without a session the bound is all that is asked for: any node will do that meets it.
    let read = session.unwrap_or(match freshness {
        Freshness::MaxStaleness(_) => ReadContract::FirstUnconstrained,
        Freshness::Any | Freshness::Linearizable => ReadContract::Primary,
    });
    Ok((read, freshness))
}

/// The time was over before anything was done.
pub(crate) fn deadline_passed() -> Failure {
    Failure::new(
        FailureKind::Deadline,
        "the deadline passed before the request was run",
    )
}

fn deadline(text: &str) -> Result<Duration, Failure> {
    let deadline = humantime::parse_duration(text).map_err(|error| {
        invalid(
            headers::DEADLINE,
            format!("'{text}' is not a duration: {error}"),
        )
    })?;
    if deadline > DEADLINE_MAX {
        let max = humantime::format_duration(DEADLINE_MAX);
        return Err(invalid(
            headers::DEADLINE,
            format!("{text} exceeds the limit of {max}"),
        ));
    }
    Ok(deadline)
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    from: &HeaderMap,
    name: &str,
) -> Result<Option<T>, Failure> {
    match text(from, name)? {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|error| invalid(name, error)),
    }
}

fn text<'h>(from: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failure> {
    plain(from.get(name), name)
}

fn plain<'h>(value: Option<&'h HeaderValue>, name: &str) -> Result<Option<&'h str>, Failure> {
    match value.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim_ascii())),
        Some(Err(_)) => Err(invalid(name, "not plain text")),
    }
}

fn invalid(name: &str, reason: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::BadRequest,
        format!("Invalid header: {name} => {reason}"),
    )
}
