//! Judges a history by its values alone: no place, position or bookmark that anybody was told is believed.
//!
//! The values of the rows in the end, in their order, are the one thing that is. A read has come as far as the
//! newest value that it showed; a write is where its value is. The other judge ([`mod@super::check`]) shares no
//! code with this one but the table of what was known when.

use std::collections::{BTreeMap, HashMap};

use super::check::Guarantee;
use super::seen::Seen;
use super::{Asked, Entry, Fate, History, Moment};

#[cfg(test)]
mod tests;

/// What cannot be, if everybody was told the truth.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Contradiction {
    /// Acknowledged, and not there.
    #[error("value {value} was acknowledged and is not there")]
    Missing {
        /// The value.
        value: u64,
    },
    /// There more than once.
    #[error("value {value} is there {times} times")]
    Repeated {
        /// The value.
        value: u64,
        /// How often.
        times: usize,
    },
    /// There, although nobody wrote it, or its writer was told that nothing had happened.
    #[error("value {value} is there, and nobody was told that it might be")]
    Uncalled {
        /// The value.
        value: u64,
    },
    /// Answered before another was sent, and behind it.
    #[error("value {later} was sent after {earlier} had been answered, and precedes it")]
    Order {
        /// What was answered first.
        earlier: u64,
        /// What was sent then.
        later: u64,
    },
    /// A read that shows no state there ever was.
    #[error("node {node} showed {shown:?}, newest first, which no state ends with")]
    NoState {
        /// Who showed it.
        node: String,
        /// What.
        shown: Vec<u64>,
    },
    /// A read that knew what nobody had sent.
    #[error("node {node} knew value {value} before anybody had sent it")]
    Foreseen {
        /// Who answered.
        node: String,
        /// The value.
        value: u64,
    },
    /// A read that asked for everything missed what had been acknowledged, or shown.
    #[error("node {node} knew {rows} rows when {known} were known")]
    Stale {
        /// Who answered.
        node: String,
        /// How far it had come.
        rows: u64,
        /// How far others had.
        known: u64,
    },
    /// A session went back.
    #[error("{guarantee}: session {session} had {from} rows, and then got {to}")]
    Session {
        /// What it was promised.
        guarantee: Guarantee,
        /// The session.
        session: u32,
        /// How far it had come.
        from: u64,
        /// How far it came then.
        to: u64,
    },
}

/// Everything that cannot be, if the values of `rows` are what is there in the end, oldest first.
pub fn check_values(history: &History, rows: &[Entry]) -> Vec<Contradiction> {
    let order: Vec<u64> = rows.iter().map(|row| row.value).collect();
    let mut found = Vec::new();
    let numbers = numbers(history, &order, &mut found);
    in_time(history, &order, &mut found);
    // How far each read had come, of those that showed a state.
    let mut reaches = Vec::new();
    for read in &history.reads {
        let shown: Vec<u64> = read.newest.iter().map(|row| row.value).collect();
        let Some(reach) = reach(&shown, &order, &numbers) else {
            let node = read.node.clone();
            found.push(Contradiction::NoState { node, shown });
            continue;
        };
        reaches.push((read, reach));
    }
    let committed = history
        .writes
        .iter()
        .filter(|write| matches!(write.fate, Fate::Committed(_)));
    let committed = committed.filter_map(|write| {
        let number = numbers.get(&write.value)?;
        Some((write, *number))
    });
    let written = committed.clone().map(|(write, at)| (write.returned, at));
    let written = Seen::of(written);
    let shown = reaches.iter().map(|(read, reach)| (read.returned, *reach));
    let shown = Seen::of(shown);
    let sent = sent_last(history, &order);
    for (read, rows) in &reaches {
        let (last, value) = sent[usize::try_from(*rows).expect("a number of rows in memory")];
        if last > read.returned {
            let node = read.node.clone();
            found.push(Contradiction::Foreseen { node, value });
        }
        let written = written.before(read.invoked);
        let known = match read.asked {
            Asked::Anything | Asked::From(_) => 0,
            Asked::Acknowledged => written,
            Asked::Everything => written.max(shown.before(read.invoked)),
        };
        if *rows < known {
            let (node, rows) = (read.node.clone(), *rows);
            found.push(Contradiction::Stale { node, rows, known });
        }
    }

    let mut sessions: BTreeMap<u32, Session> = BTreeMap::new();
    for (write, number) in committed {
        if let Some(session) = write.session {
            let session = sessions.entry(session).or_default();
            session.written.push((write.returned, number));
        }
    }
    for write in &history.writes {
        if let (Some(session), Some(number)) = (write.session, numbers.get(&write.value)) {
            let session = sessions.entry(session).or_default();
            session.writes.push((write.invoked, *number));
        }
    }
    for (read, reach) in reaches {
        if let Some(session) = read.session {
            let session = sessions.entry(session).or_default();
            session.reads.push((read.invoked, reach));
            session.shown.push((read.returned, reach));
        }
    }
    for (number, session) in sessions {
        session.judge(number, &mut found);
    }
    found
}

/// The number of each value in the order; tells what is there and should not be, or the other way round.
fn numbers(history: &History, order: &[u64], found: &mut Vec<Contradiction>) -> HashMap<u64, u64> {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for value in order {
        *times.entry(*value).or_default() += 1;
    }
    let may_be: HashMap<u64, bool> = history
        .writes
        .iter()
        .map(|write| (write.value, write.fate != Fate::Failed))
        .collect();
    for (value, times) in &times {
        if *times > 1 {
            let (value, times) = (*value, *times);
            found.push(Contradiction::Repeated { value, times });
        }
        if may_be.get(value) != Some(&true) {
            found.push(Contradiction::Uncalled { value: *value });
        }
    }
    for write in &history.writes {
        if matches!(write.fate, Fate::Committed(_)) && !times.contains_key(&write.value) {
            let value = write.value;
            found.push(Contradiction::Missing { value });
        }
    }
    // The first place of one that is there twice: that is bad enough already.
    let mut numbers = HashMap::new();
    for (number, value) in (1..).zip(order) {
        numbers.entry(*value).or_insert(number);
    }
    numbers
}

/// What was answered before another was sent precedes it.
fn in_time(history: &History, order: &[u64], found: &mut Vec<Contradiction>) {
    let mut writes = HashMap::new();
    for write in &history.writes {
        writes.insert(write.value, write);
    }
    // Of those passed so far, the one that was sent last.
    let mut latest: Option<(Moment, u64)> = None;
    for value in order {
        let Some(write) = writes.get(value) else {
            continue;
        };
        if let (Fate::Committed(_), Some((sent, later))) = (&write.fate, latest)
            && write.returned < sent
        {
            let earlier = *value;
            found.push(Contradiction::Order { earlier, later });
        }
        latest = latest.max(Some((write.invoked, *value)));
    }
}

/// How many rows the state has that ends with `shown`, newest first.
fn reach(shown: &[u64], order: &[u64], numbers: &HashMap<u64, u64>) -> Option<u64> {
    let Some(newest) = shown.first() else {
        return Some(0);
    };
    let rows = *numbers.get(newest)?;
    let before = order[..usize::try_from(rows).ok()?].iter().rev();
    (before.len() >= shown.len() && before.zip(shown).all(|(is, was)| is == was)).then_some(rows)
}

/// By number of rows: when the one of them was sent that was sent last, and which.
fn sent_last(history: &History, order: &[u64]) -> Vec<(Moment, u64)> {
    let sent: HashMap<_, _> = history
        .writes
        .iter()
        .map(|write| (write.value, write.invoked))
        .collect();
    let mut last = (Moment::ZERO, 0);
    let mut all = vec![last];
    for value in order {
        if let Some(sent) = sent.get(value) {
            last = last.max((*sent, *value));
        }
        all.push(last);
    }
    all
}

/// What one session did: moments, and how far it came.
#[derive(Default)]
struct Session {
    /// Sent.
    writes: Vec<(Moment, u64)>,
    /// Acknowledged.
    written: Vec<(Moment, u64)>,
    /// Sent.
    reads: Vec<(Moment, u64)>,
    /// Answered.
    shown: Vec<(Moment, u64)>,
}

impl Session {
    fn judge(self, session: u32, found: &mut Vec<Contradiction>) {
        let written = Seen::of(self.written.into_iter());
        let shown = Seen::of(self.shown.into_iter());
        let mut demand = |guarantee, from: u64, to: u64, enough: bool| {
            if !enough {
                found.push(Contradiction::Session {
                    guarantee,
                    session,
                    from,
                    to,
                });
            }
        };
        for (sent, to) in self.reads {
            let from = written.before(sent);
            demand(Guarantee::ReadYourWrites, from, to, to >= from);
            let from = shown.before(sent);
            demand(Guarantee::MonotonicReads, from, to, to >= from);
        }
        for (sent, to) in self.writes {
            let from = written.before(sent);
            demand(Guarantee::MonotonicWrites, from, to, to > from);
            let from = shown.before(sent);
            demand(Guarantee::WritesFollowReads, from, to, to > from);
        }
    }
}
