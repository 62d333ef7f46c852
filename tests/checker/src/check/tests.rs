//! Histories with one thing wrong each: a judge that finds nothing must have looked.

use std::time::Duration;

use tidemark_protocol::{Epoch, Seq, StateChecksum};

use super::*;
use crate::{Acknowledgement, Asked, Fate, History, Read, Write};

/// `seq` of the state without rows.
const BASE: u64 = 7;

pub(crate) fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The state with so many rows.
pub(crate) fn state(rows: u64) -> Position {
    Position {
        epoch: Epoch(1),
        seq: Seq(BASE + rows),
        checksum: StateChecksum(rows * 1000),
    }
}

pub(crate) fn told(place: u64) -> Fate {
    Fate::Committed(Acknowledgement {
        place: Some(place),
        position: Some(state(place)),
        node: "1".to_owned(),
        repeated: false,
    })
}

/// Sent and answered at these moments.
pub(crate) fn write(value: u64, from: u64, to: u64, fate: Fate) -> Write {
    Write {
        value,
        request: None,
        session: None,
        invoked: at(from),
        returned: at(to),
        fate,
    }
}

/// A read of the state with these rows.
pub(crate) fn read(asked: Asked, from: u64, rows: &[Entry]) -> Read {
    let mut newest = rows.to_vec();
    newest.reverse();
    Read {
        session: None,
        asked,
        invoked: at(from),
        returned: at(from + 1),
        position: state(rows.len() as u64),
        newest,
        node: "2".to_owned(),
    }
}

pub(crate) fn rows(values: &[u64]) -> Vec<Entry> {
    let entry = |(place, value): (u64, &u64)| Entry {
        place,
        value: *value,
    };
    (1..).zip(values).map(entry).collect()
}

/// Two writes one after the other, a third that overlaps the second, one refused and one in doubt, and
/// reads of every kind.
pub(crate) fn sound() -> (History, Vec<Entry>) {
    let rows = rows(&[10, 20, 30, 50]);
    let history = History {
        writes: vec![
            write(10, 0, 1, told(1)),
            write(20, 2, 5, told(2)),
            write(30, 3, 6, told(3)),
            write(40, 3, 4, Fate::Failed),
            write(50, 3, 4, Fate::Unknown),
            write(60, 3, 4, Fate::Unknown),
        ],
        reads: vec![
            read(Asked::Anything, 9, &[]),
            read(Asked::Everything, 3, &rows[..1]),
            read(Asked::Everything, 7, &rows[..3]),
            read(Asked::From(state(2)), 7, &rows[..2]),
            read(Asked::Anything, 7, &rows),
        ],
        ..History::default()
    };
    (history, rows)
}

/// What is found when this is done to a sound history.
fn found(spoil: impl FnOnce(&mut History, &mut Vec<Entry>)) -> Vec<Violation> {
    let (mut history, mut rows) = sound();
    spoil(&mut history, &mut rows);
    check(&history, &rows)
}

#[test]
fn sound_history_passes() {
    assert_eq!(found(|_, _| {}), []);
}

#[test]
fn lost_acknowledged_write_is_found() {
    let found = found(|history, _| history.writes.push(write(70, 7, 8, told(5))));
    let lost = Violation::Lost {
        value: 70,
        place: Some(5),
    };
    assert_eq!(found, [lost]);
}

#[test]
fn write_that_counted_twice_is_found() {
    let found = found(|_, rows| {
        rows.push(Entry {
            place: 5,
            value: 20,
        });
    });
    let places = vec![2, 5];
    assert!(found.contains(&Violation::Twice { value: 20, places }));
}

#[test]
fn doubtful_write_that_counted_twice_is_found() {
    let found = found(|_, rows| {
        rows.push(Entry {
            place: 5,
            value: 50,
        });
    });
    let places = vec![4, 5];
    assert_eq!(found, [Violation::Twice { value: 50, places }]);
}

#[test]
fn row_that_nobody_wrote_is_found() {
    let found = found(|_, rows| {
        rows.push(Entry {
            place: 5,
            value: 99,
        });
    });
    let (value, place) = (99, 5);
    assert_eq!(found, [Violation::Phantom { value, place }]);
}

#[test]
fn refused_write_that_counted_is_found() {
    let found = found(|_, rows| {
        rows.push(Entry {
            place: 5,
            value: 40,
        });
    });
    let (value, place) = (40, 5);
    assert_eq!(found, [Violation::Refused { value, place }]);
}

#[test]
fn write_at_another_place_than_told_is_found() {
    let found = found(|history, _| history.writes[4].fate = told(3));
    let (value, told, place) = (50, 3, 4);
    assert_eq!(found, [Violation::Moved { value, told, place }]);
}

#[test]
fn empty_place_is_found() {
    let found = found(|_, rows| {
        rows.remove(3);
        rows.push(Entry {
            place: 5,
            value: 50,
        });
    });
    assert!(found.contains(&Violation::Hole { place: 4 }));
}

#[test]
fn write_placed_before_one_that_it_followed_is_found() {
    let found = found(|history, _| {
        history.reads.clear();
        history.writes[0].invoked = at(7);
    });
    // One per write is enough: the earliest answer among those placed after it.
    let (earlier, later) = (20, 10);
    assert_eq!(found, [Violation::Order { earlier, later }]);
}

#[test]
fn doubtful_write_may_take_effect_at_any_time_after_it_was_sent() {
    let found = found(|history, _| history.writes[4].returned = at(3));
    assert_eq!(found, []);
    let found = self::found(|history, rows| {
        history.writes[4].invoked = at(7);
        rows.swap(2, 3);
        (rows[2].place, rows[3].place) = (3, 4);
    });
    let order = Violation::Order {
        earlier: 30,
        later: 50,
    };
    assert!(found.contains(&order), "{found:?}");
}

#[test]
fn position_that_does_not_fit_its_rows_is_found() {
    let found = found(|history, _| history.reads[3].position = state(3));
    let violation = Violation::Count {
        position: state(3),
        rows: 2,
        other: state(2),
        other_rows: 2,
    };
    assert_eq!(found, [violation]);
}

#[test]
fn numbers_that_grow_less_than_the_rows_are_found() {
    let found = found(|history, _| history.reads[4].position = state(3));
    let violation = Violation::Count {
        position: state(3),
        rows: 4,
        other: state(3),
        other_rows: 3,
    };
    assert_eq!(found, [violation]);
}

#[test]
fn numbers_of_refused_proposals_may_be_missing() {
    let found = found(|history, _| {
        let later = |position: &mut Position| {
            if position.seq >= state(3).seq {
                position.seq.0 += 1;
            }
        };
        for write in &mut history.writes {
            if let Fate::Committed(told) = &mut write.fate {
                told.position.iter_mut().for_each(later);
            }
        }
        history
            .reads
            .iter_mut()
            .map(|read| &mut read.position)
            .for_each(later);
    });
    assert_eq!(found, []);
}

#[test]
fn one_age_with_two_contents_is_found() {
    let mut other = state(2);
    other.checksum = StateChecksum(1);
    let found = found(|history, _| history.reads[3].position = other);
    let one = state(2);
    assert_eq!(found, [Violation::Fork { one, other }]);
}

#[test]
fn sight_of_what_was_never_committed_is_found() {
    let found = found(|history, _| history.reads[4].newest[0].value = 60);
    let violation = Violation::Uncommitted {
        node: "2".to_owned(),
        place: 4,
        seen: 60,
        found: Some(50),
    };
    assert_eq!(found, [violation]);
    let found = self::found(|_, rows| {
        rows.pop();
    });
    assert!(matches!(
        found[..],
        [Violation::Uncommitted { found: None, .. }]
    ));
}

#[test]
fn bookmarks_that_do_not_sort_after_a_change_of_leader_are_found() {
    let found = found(|history, _| history.reads[4].position.epoch = Epoch(0));
    let violation = Violation::Age {
        position: Position {
            epoch: Epoch(0),
            ..state(4)
        },
        rows: 4,
        other: state(3),
        other_rows: 3,
    };
    assert_eq!(found, [violation]);
}

#[test]
fn read_that_leaves_out_a_row_is_found() {
    let found = found(|history, _| {
        history.reads[4].newest.remove(2);
    });
    let violation = Violation::Gap {
        node: "2".to_owned(),
        above: 3,
        below: 1,
    };
    assert_eq!(found, [violation]);
}

#[test]
fn read_of_what_nobody_had_sent_is_found() {
    let found = found(|history, _| history.writes[4].invoked = at(9));
    let violation = Violation::Foreseen {
        node: "2".to_owned(),
        place: 4,
    };
    assert_eq!(found, [violation]);
}

#[test]
fn strong_read_of_less_than_was_shown_is_found() {
    let found = found(|history, rows| {
        history.reads.push(read(Asked::Everything, 9, &rows[..3]));
    });
    let violation = Violation::Backwards {
        node: "2".to_owned(),
        rows: 3,
        seen: 4,
    };
    assert_eq!(found, [violation]);
    // A plain read is promised what was acknowledged, and no more.
    let found = self::found(|history, rows| {
        history.reads.push(read(Asked::Acknowledged, 9, &rows[..3]));
        history.reads[2].asked = Asked::Acknowledged;
    });
    assert_eq!(found, []);
}

#[test]
fn plain_read_without_an_acknowledged_write_is_found() {
    let found = found(|history, _| {
        history.reads[1].invoked = at(6);
        history.reads[1].asked = Asked::Acknowledged;
    });
    let violation = Violation::Stale {
        node: "2".to_owned(),
        rows: 1,
        place: 2,
    };
    assert_eq!(found, [violation]);
}

#[test]
fn answer_from_before_the_bookmark_is_found() {
    let found = found(|history, _| history.reads[3].asked = Asked::From(state(3)));
    let violation = Violation::Behind {
        node: "2".to_owned(),
        asked: state(3),
        got: state(2),
    };
    assert_eq!(found, [violation]);
}

#[test]
fn strong_read_without_an_acknowledged_write_is_found() {
    let found = found(|history, _| history.reads[1].invoked = at(6));
    let violation = Violation::Stale {
        node: "2".to_owned(),
        rows: 1,
        place: 2,
    };
    assert_eq!(found, [violation]);
}

/// What a session with number 5 had, and what it got after that.
fn broken(guarantee: Guarantee, from: Reach, to: Reach) -> Violation {
    let session = 5;
    Violation::Session {
        guarantee,
        session,
        from,
        to,
    }
}

/// The state with so many rows, reached in both measures.
fn reach(rows: u64) -> Reach {
    Reach {
        position: Some(state(rows)),
        place: Some(rows),
    }
}

/// The answer to a write whose place is not told, after which the state has so many rows.
pub(crate) fn told_state(rows: u64) -> Fate {
    let Fate::Committed(told) = told(rows) else {
        unreachable!("an acknowledgement")
    };
    Fate::Committed(Acknowledgement {
        place: None,
        ..told
    })
}

#[test]
fn session_with_its_guarantees_passes() {
    let found = found(|history, rows| {
        let of_session = |write: Write| Write {
            session: Some(5),
            ..write
        };
        history.writes[1].session = Some(5); // 20 at place 2, known at 5
        history.writes[2].session = Some(5); // 30 at place 3, known at 6: two at once
        history.reads[2].session = Some(5); // 3 rows, from 7 to 8
        let late = read(Asked::Anything, 9, rows);
        history.reads.push(Read {
            session: Some(5),
            ..late
        });
        history.writes.push(of_session(write(70, 11, 12, told(5))));
        rows.push(Entry {
            place: 5,
            value: 70,
        });
    });
    assert_eq!(found, []);
}

#[test]
fn session_that_does_not_see_its_own_write_is_found() {
    let found = found(|history, _| {
        history.writes[2].session = Some(5);
        history.reads[3].session = Some(5);
    });
    let guarantee = Guarantee::ReadYourWrites;
    assert_eq!(found, [broken(guarantee, reach(3), reach(2))]);
}

#[test]
fn session_that_reads_less_than_before_is_found() {
    let spoil = |sent: u64| {
        found(|history, _| {
            history.reads[2].session = Some(5); // from 7 to 8
            history.reads[3].session = Some(5);
            history.reads[3].invoked = at(sent);
            history.reads[3].returned = at(20);
        })
    };
    let guarantee = Guarantee::MonotonicReads;
    assert_eq!(spoil(9), [broken(guarantee, reach(3), reach(2))]);
    assert_eq!(spoil(7), [], "sent before the other was answered");
}

#[test]
fn session_whose_writes_change_their_order_is_found() {
    // By the states that it is told of.
    let states = found(|history, _| {
        history.writes[0].session = Some(5);
        history.writes[0].fate = told_state(3);
        history.writes[1].session = Some(5);
    });
    let first = Reach {
        place: Some(1),
        ..reach(3)
    };
    let guarantee = Guarantee::MonotonicWrites;
    // The first alone is what the session relies on, and it is told of a state beyond the second.
    assert_eq!(states, [broken(guarantee, first, reach(2))]);
    // By the places in the end, which is out of order for everybody: one that is in doubt came first.
    let places = found(|history, _| {
        history.writes[2].session = Some(5);
        history.writes[3].session = Some(5); // refused: not there
        history.writes[1].session = Some(5);
        history.writes[1].invoked = at(7);
        history.writes[1].returned = at(8);
        history.writes[1].fate = Fate::Unknown;
    });
    let doubtful = Reach {
        position: None,
        place: Some(2),
    };
    let order = Violation::Order {
        earlier: 30,
        later: 20,
    };
    assert_eq!(places, [order, broken(guarantee, reach(3), doubtful)]);
}

#[test]
fn session_whose_write_precedes_what_it_has_read_is_found() {
    // By the states that it is told of.
    let states = found(|history, rows| {
        history.reads[4].session = Some(5); // 4 rows, from 7 to 8
        rows.push(Entry {
            place: 5,
            value: 70,
        });
        history.writes.push(Write {
            session: Some(5),
            ..write(70, 9, 10, told_state(4))
        });
    });
    let guarantee = Guarantee::WritesFollowReads;
    let to = Reach {
        place: Some(5),
        ..reach(4)
    };
    assert_eq!(states, [broken(guarantee, reach(4), to)]);
    // By the places in the end. The row that it has read is of somebody who was never answered, so the
    // order in time says nothing.
    let places = found(|history, _| {
        history.reads[4].session = Some(5);
        history.writes[2].session = Some(5);
        history.writes[2].invoked = at(9);
        history.writes[2].returned = at(10);
    });
    assert!(places.contains(&broken(guarantee, reach(4), reach(3))));
}

#[test]
fn doubtful_write_of_a_session_holds_its_later_requests_to_nothing() {
    let found = found(|history, _| {
        history.writes[4].session = Some(5); // 50, in doubt, at place 4
        history.reads[3].session = Some(5);
    });
    assert_eq!(found, []);
}
