//! Judges a history: what was promised and not kept.
//!
//! The rows in the end are the one order that everything has to fit into:
//!
//! - Each acknowledged value is there once, at the place that its writer was told; no refused one is, none
//!   that nobody wrote is, and none is twice.
//! - A write that was answered before another was sent is placed before it.
//! - One `seq` has one checksum, one number of rows has one position, and between two of them `seq` grows by at
//!   least what the rows grow: there is a single history. (It may grow by more: the number of a proposal that was
//!   refused is not used again.) Bookmarks sort as the states do, whoever leads.
//! - What a read saw is what is there in the end, up to the state it was answered from, and without gaps: nobody
//!   ever saw what was not committed, nor what was not even sent yet.
//! - A read is as fresh as it asked. One that asked for everything sees what any answer before it showed.
//! - Sessions have their four guarantees ([`mod@sessions`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use tidemark_protocol::{Bookmark, BookmarkKey, DatabaseId, Position};

use super::acknowledged::acknowledged;
use super::seen::Seen;
use super::{Asked, Entry, Fate, History, Moment, Write};

mod kind;
#[cfg(test)]
mod samples;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;

pub use kind::Check;
pub use sessions::{Guarantee, Reach, broken_guarantees};

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// Acknowledged, and not there.
    #[error("lost: value {value} was acknowledged at place {place:?} and is not there")]
    Lost {
        /// The value.
        value: u64,
        /// Where it was said to be.
        place: Option<u64>,
    },
    /// There more than once.
    #[error("counted twice: value {value} is at places {places:?}")]
    Twice {
        /// The value.
        value: u64,
        /// Where it is.
        places: Vec<u64>,
    },
    /// There, although nobody wrote it.
    #[error("phantom: value {value} at place {place} was written by nobody")]
    Phantom {
        /// The value.
        value: u64,
        /// Where it is.
        place: u64,
    },
    /// There, although its writer was told that nothing had happened.
    #[error("refused and there: value {value} at place {place}")]
    Refused {
        /// The value.
        value: u64,
        /// Where it is.
        place: u64,
    },
    /// Not where its writer was told.
    #[error("moved: value {value} was acknowledged at place {told} and is at {place}")]
    Moved {
        /// The value.
        value: u64,
        /// Where it was said to be.
        told: u64,
        /// Where it is.
        place: u64,
    },
    /// A place that no row has.
    #[error("hole: place {place} is empty")]
    Hole {
        /// The place.
        place: u64,
    },
    /// Answered before another was sent, and placed after it.
    #[error(
        "out of order: value {later} was sent after {earlier} had been answered, and precedes it"
    )]
    Order {
        /// What was answered first.
        earlier: u64,
        /// What was sent then.
        later: u64,
    },
    /// Two positions whose sequence numbers do not fit the rows of their states.
    #[error(
        "position {position} names a state of {rows} rows, and {other} one of {other_rows} rows"
    )]
    Count {
        /// The position.
        position: Position,
        /// Rows of its state.
        rows: u64,
        /// Another.
        other: Position,
        /// Rows of that one's state.
        other_rows: u64,
    },
    /// One sequence number, two contents.
    #[error("two histories: {one} and {other}")]
    Fork {
        /// A position.
        one: Position,
        /// Another of the same age.
        other: Position,
    },
    /// A read saw what was never committed.
    #[error(
        "uncommitted: node {node} showed value {seen} at place {place}, where there is {found:?}"
    )]
    Uncommitted {
        /// Who showed it.
        node: String,
        /// Where.
        place: u64,
        /// What was seen.
        seen: u64,
        /// What is there.
        found: Option<u64>,
    },
    /// Bookmarks that do not sort as their states do.
    #[error(
        "position {position} names a state of {rows} rows, and sorts before {other} with {other_rows}"
    )]
    Age {
        /// The position.
        position: Position,
        /// Rows of its state.
        rows: u64,
        /// Another.
        other: Position,
        /// Rows of that one's state: fewer.
        other_rows: u64,
    },
    /// A read left out a row between others.
    #[error("gap: node {node} showed place {above}, and below it place {below}")]
    Gap {
        /// Who showed it.
        node: String,
        /// A place.
        above: u64,
        /// The next below it that was shown.
        below: u64,
    },
    /// A read was answered from a state with a row that nobody had sent yet.
    #[error("foreseen: node {node} knew place {place} before anybody had sent it")]
    Foreseen {
        /// Who answered.
        node: String,
        /// The row.
        place: u64,
    },
    /// A read that asked for everything showed less than an answer before it.
    #[error("back in time: node {node} answered with {rows} rows, when {seen} had been shown")]
    Backwards {
        /// Who answered.
        node: String,
        /// Rows it knew of.
        rows: u64,
        /// Rows of an earlier answer.
        seen: u64,
    },
    /// A read was answered from a state before the one it asked for.
    #[error("behind: node {node} was asked for {asked} and answered from {got}")]
    Behind {
        /// Who answered.
        node: String,
        /// The state that was asked for.
        asked: Position,
        /// The state it was answered from.
        got: Position,
    },
    /// A read that asked for everything missed an acknowledged write.
    #[error(
        "stale: node {node} answered with {rows} rows, when place {place} had been acknowledged"
    )]
    Stale {
        /// Who answered.
        node: String,
        /// Rows it knew of.
        rows: u64,
        /// What it should have known of.
        place: u64,
    },
    /// A session did not get what it had written or read before.
    #[error("{guarantee}: session {session} had {from}, and then got {to}")]
    Session {
        /// What it was promised.
        guarantee: Guarantee,
        /// The session.
        session: u32,
        /// How far it had come before it sent the request.
        from: Reach,
        /// How far that request went.
        to: Reach,
    },
}

/// Everything that is wrong with `history`, if `rows` is what is there in the end, by place.
pub fn check(history: &History, rows: &[Entry]) -> Vec<Violation> {
    check_with(history, rows, &Check::ALL)
}

/// The same by some of the checks alone.
pub fn check_with(history: &History, rows: &[Entry], checks: &[Check]) -> Vec<Violation> {
    let mut found = Vec::new();
    presence(history, rows, &mut found);
    real_time(history, rows, &mut found);
    one_history(history, &mut found);
    visibility(history, rows, &mut found);
    foresight(history, rows, &mut found);
    freshness(history, &mut found);
    found.extend(broken_guarantees(history, rows));
    found.retain(|violation| checks.contains(&violation.check()));
    found
}

/// Who is there, how often, and where.
fn presence(history: &History, rows: &[Entry], found: &mut Vec<Violation>) {
    let mut places: HashMap<u64, Vec<u64>> = HashMap::new();
    for (expected, Entry { place, value }) in (1..).zip(rows) {
        if *place != expected {
            found.push(Violation::Hole { place: expected });
            return;
        }
        places.entry(*value).or_default().push(*place);
    }
    let written: HashSet<_> = history.writes.iter().map(|write| write.value).collect();
    for Entry { place, value } in rows {
        if !written.contains(value) {
            let (value, place) = (*value, *place);
            found.push(Violation::Phantom { value, place });
        }
    }
    for Write { value, fate, .. } in &history.writes {
        let value = *value;
        match (fate, places.get(&value).map(Vec::as_slice)) {
            (_, Some(places @ [_, _, ..])) => found.push(Violation::Twice {
                value,
                places: places.to_vec(),
            }),
            (Fate::Committed(told), None) => found.push(Violation::Lost {
                value,
                place: told.place,
            }),
            (Fate::Committed(told), Some(&[place])) => {
                if let Some(told) = told.place
                    && told != place
                {
                    found.push(Violation::Moved { value, told, place });
                }
            }
            (Fate::Failed, Some(&[place])) => found.push(Violation::Refused { value, place }),
            (Fate::Failed | Fate::Unknown, _) | (Fate::Committed(_), Some([])) => {}
        }
    }
}

/// The order of places does not contradict the order in time.
fn real_time(history: &History, rows: &[Entry], found: &mut Vec<Violation>) {
    let writes: HashMap<_, _> = history
        .writes
        .iter()
        .map(|write| (write.value, write))
        .collect();
    // From the last place to the first: the one of those passed that was answered first.
    let mut first_answered: Option<&Write> = None;
    for Entry { value, .. } in rows.iter().rev() {
        let Some(write) = writes.get(value) else {
            continue;
        };
        if let Some(earlier) = first_answered
            && earlier.returned < write.invoked
        {
            found.push(Violation::Order {
                earlier: earlier.value,
                later: write.value,
            });
        }
        // When an unknown one took effect nobody can say.
        if matches!(write.fate, Fate::Committed(_))
            && first_answered.is_none_or(|first| write.returned < first.returned)
        {
            first_answered = Some(write);
        }
    }
}

/// All positions belong to one history, and each tells how many rows there were.
fn one_history(history: &History, found: &mut Vec<Violation>) {
    let written = history.writes.iter().filter_map(|write| match &write.fate {
        Fate::Committed(told) => told.position.zip(told.place),
        Fate::Failed | Fate::Unknown => None,
    });
    let read = history
        .reads
        .iter()
        .map(|read| (read.position, read.rows()));
    let mut by_seq: BTreeMap<_, Position> = BTreeMap::new();
    let mut by_rows: BTreeMap<u64, Position> = BTreeMap::new();
    for (position, rows) in written.chain(read) {
        let known = *by_rows.entry(rows).or_insert(position);
        if known.seq != position.seq {
            found.push(Violation::Count {
                position,
                rows,
                other: known,
                other_rows: rows,
            });
        }
        let known = by_seq
            .entry((position.epoch, position.seq))
            .or_insert(position);
        if *known != position {
            let (one, other) = (*known, position);
            found.push(Violation::Fork { one, other });
        }
    }
    for ((fewer, before), (more, after)) in by_rows.iter().zip(by_rows.iter().skip(1)) {
        let grown = after.seq.0.checked_sub(before.seq.0);
        if grown.is_none_or(|grown| grown < more - fewer) {
            found.push(Violation::Count {
                position: *after,
                rows: *more,
                other: *before,
                other_rows: *fewer,
            });
        }
        if sorted(after) < sorted(before) {
            found.push(Violation::Age {
                position: *after,
                rows: *more,
                other: *before,
                other_rows: *fewer,
            });
        }
    }
}

/// What clients sort by: the text of a bookmark, up to where its state's content begins to matter.
fn sorted(position: &Position) -> String {
    const OF_AGE: usize = "EEEEEEEE-SSSSSSSS-SSSSSSSS".len();
    let key = BookmarkKey::new([0; 16]);
    let mut text = Bookmark::issue(&key, DatabaseId::CATALOGUE, *position).to_string();
    text.truncate(OF_AGE);
    text
}

/// What was seen is what is there in the end.
fn visibility(history: &History, rows: &[Entry], found: &mut Vec<Violation>) {
    let at = |place: u64| {
        let index = usize::try_from(place.checked_sub(1)?).ok()?;
        rows.get(index).map(|entry| entry.value)
    };
    for read in &history.reads {
        for pair in read.newest.windows(2) {
            let (above, below) = (pair[0].place, pair[1].place);
            if below.checked_add(1) != Some(above) {
                let node = read.node.clone();
                found.push(Violation::Gap { node, above, below });
            }
        }
        for Entry { place, value } in &read.newest {
            if at(*place) != Some(*value) {
                found.push(Violation::Uncommitted {
                    node: read.node.clone(),
                    place: *place,
                    seen: *value,
                    found: at(*place),
                });
            }
        }
    }
}

/// Nothing was known before it was sent.
fn foresight(history: &History, rows: &[Entry], found: &mut Vec<Violation>) {
    let sent: HashMap<u64, Moment> = history
        .writes
        .iter()
        .map(|write| (write.value, write.invoked))
        .collect();
    // By number of rows: which of them was sent last, and when.
    let mut last = vec![(Moment::ZERO, 0)];
    for Entry { place, value } in rows {
        let before = last[last.len() - 1];
        let sent = sent.get(value).map_or(before, |sent| (*sent, *place));
        last.push(before.max(sent));
    }
    for read in &history.reads {
        let known = usize::try_from(read.rows()).unwrap_or(usize::MAX);
        if let Some((sent, place)) = last.get(known)
            && *sent > read.returned
        {
            let (node, place) = (read.node.clone(), *place);
            found.push(Violation::Foreseen { node, place });
        }
    }
}

/// Reads are as fresh as they asked.
fn freshness(history: &History, found: &mut Vec<Violation>) {
    let acknowledged = acknowledged(history);
    let shown = history
        .reads
        .iter()
        .map(|read| (read.returned, read.rows()));
    let shown = Seen::of(shown);
    for read in &history.reads {
        match read.asked {
            Asked::Anything => {}
            Asked::From(asked) => {
                if !read.position.reached(&asked) {
                    found.push(Violation::Behind {
                        node: read.node.clone(),
                        asked,
                        got: read.position,
                    });
                }
            }
            Asked::Acknowledged | Asked::Everything => {
                let place = acknowledged.before(read.invoked);
                let rows = read.rows();
                if rows < place {
                    let node = read.node.clone();
                    found.push(Violation::Stale { node, rows, place });
                }
                let seen = shown.before(read.invoked);
                if rows < seen && read.asked == Asked::Everything {
                    let node = read.node.clone();
                    found.push(Violation::Backwards { node, rows, seen });
                }
            }
        }
    }
}
