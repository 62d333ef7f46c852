//! The four guarantees of a session, each on its own.
//!
//! A session may have several requests on their way at once. What it can rely on when it sends one is what was
//! answered before: by those answers it had come so far, in positions and in rows, and the request must go as far.
//!
//! ```text
//!                       then a read, at least    then a write, beyond
//! what it has written   read your writes         monotonic writes
//! what it has read      monotonic reads          writes follow reads
//! ```
//!
//! A write that was acknowledged counts as written. One whose outcome the session does not know may take effect
//! at any time, so nothing can be asked of what comes after it; but when it does take effect, that is after what
//! came before.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use tidemark_protocol::Position;

use super::Violation;
use crate::{Entry, Fate, History, Moment};

/// What a session is promised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Guarantee {
    /// A read sees what the session has written.
    ReadYourWrites,
    /// A read sees what the session has read.
    MonotonicReads,
    /// A write comes after what the session has written.
    MonotonicWrites,
    /// A write comes after what the session has read.
    WritesFollowReads,
}

impl Guarantee {
    /// As the field calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadYourWrites => "read your writes",
            Self::MonotonicReads => "monotonic reads",
            Self::MonotonicWrites => "monotonic writes",
            Self::WritesFollowReads => "writes follow reads",
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far something went, by what is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// The state.
    pub position: Option<Position>,
    /// The last row.
    pub place: Option<u64>,
}

impl Reach {
    /// Takes in what another went further.
    fn extend(&mut self, other: &Self) {
        self.place = self.place.max(other.place);
        if let Some(position) = other.position
            && self.position.is_none_or(|own| position.reached(&own))
        {
            self.position = Some(position);
        }
    }

    /// Whether either measure that both have puts this before `other`, or at it where it must be beyond.
    fn falls_short(&self, other: &Self, beyond: bool) -> bool {
        let position = self.position.zip(other.position);
        let position = position.map(|(own, other)| own.age(&other));
        let place = self.place.zip(other.place);
        let place = place.map(|(own, other)| own.cmp(&other));
        let short = |order| order == Ordering::Less || beyond && order == Ordering::Equal;
        position.is_some_and(short) || place.is_some_and(short)
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "place {place}")?,
            None => f.write_str("some place")?,
        }
        match self.position {
            Some(position) => write!(f, " at {position}"),
            None => Ok(()),
        }
    }
}

/// What one session did.
#[derive(Default)]
struct Session {
    writes: Vec<Request>,
    reads: Vec<Request>,
}

struct Request {
    invoked: Moment,
    /// When the session knew. `None` if it never did.
    known: Option<Moment>,
    reach: Reach,
}

/// Every breach of a session's guarantees, if `rows` is what is there in the end, by place.
pub fn broken_guarantees(history: &History, rows: &[Entry]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, session) in sessions(history, rows) {
        let Session { writes, reads } = &session;
        for (then, guarantees, beyond) in [
            (
                reads,
                [Guarantee::ReadYourWrites, Guarantee::MonotonicReads],
                false,
            ),
            (
                writes,
                [Guarantee::MonotonicWrites, Guarantee::WritesFollowReads],
                true,
            ),
        ] {
            for (first, guarantee) in [writes, reads].into_iter().zip(guarantees) {
                let known = Known::of(first);
                let violations = then.iter().filter_map(|request| {
                    let from = known.before(request.invoked)?;
                    let to = request.reach;
                    to.falls_short(&from, beyond).then_some(Violation::Session {
                        guarantee,
                        session: number,
                        from,
                        to,
                    })
                });
                found.extend(violations);
            }
        }
    }
    found
}

fn sessions(history: &History, rows: &[Entry]) -> BTreeMap<u32, Session> {
    let places: HashMap<u64, u64> = rows.iter().map(|row| (row.value, row.place)).collect();
    let mut sessions: BTreeMap<u32, Session> = BTreeMap::new();
    for write in &history.writes {
        let Some(number) = write.session else {
            continue;
        };
        let place = places.get(&write.value).copied();
        let (known, reach) = match &write.fate {
            Fate::Committed(told) => {
                let (position, place) = (told.position, place.or(told.place));
                (Some(write.returned), Reach { position, place })
            }
            Fate::Failed | Fate::Unknown => {
                let position = None;
                (None, Reach { position, place })
            }
        };
        let invoked = write.invoked;
        sessions.entry(number).or_default().writes.push(Request {
            invoked,
            known,
            reach,
        });
    }
    for read in &history.reads {
        let Some(number) = read.session else { continue };
        let reach = Reach {
            position: Some(read.position),
            place: Some(read.rows()),
        };
        sessions.entry(number).or_default().reads.push(Request {
            invoked: read.invoked,
            known: Some(read.returned),
            reach,
        });
    }
    sessions
}

/// How far a session knew to have come by each moment of an answer.
struct Known(Vec<(Moment, Reach)>);

impl Known {
    fn of(requests: &[Request]) -> Self {
        let answered = |request: &Request| Some((request.known?, request.reach));
        let mut answers: Vec<_> = requests.iter().filter_map(answered).collect();
        answers.sort_by_key(|(known, _)| *known);
        let mut all = Reach::default();
        for (_, reach) in &mut answers {
            all.extend(reach);
            *reach = all;
        }
        Self(answers)
    }

    fn before(&self, moment: Moment) -> Option<Reach> {
        let before = self.0.partition_point(|(known, _)| *known < moment);
        Some(self.0[before.checked_sub(1)?].1)
    }
}
