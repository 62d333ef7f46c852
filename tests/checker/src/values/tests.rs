//! Histories whose values cannot be; and lies about places and positions, which this judge does not hear.

use tidemark_protocol::Seq;

use super::*;
use crate::check::tests::{at, read, sound, told, write};

fn found(spoil: impl FnOnce(&mut History, &mut Vec<Entry>)) -> Vec<Contradiction> {
    let (mut history, mut rows) = sound();
    spoil(&mut history, &mut rows);
    // Nothing that is told in places or positions is of use to it.
    for write in &mut history.writes {
        if let Fate::Committed(told) = &mut write.fate {
            told.place = told.place.map(|place| 1000 - place);
            told.position = None;
        }
    }
    for read in &mut history.reads {
        read.position.seq = Seq(1);
        read.newest.iter_mut().for_each(|row| row.place = 77);
    }
    rows.iter_mut().for_each(|row| row.place = 3);
    check_values(&history, &rows)
}

fn row(value: u64) -> Entry {
    Entry { place: 0, value }
}

#[test]
fn values_that_fit_pass_whatever_is_told_of_places() {
    assert_eq!(found(|_, _| {}), []);
}

#[test]
fn acknowledged_value_that_is_missing_is_found() {
    let found = found(|history, _| history.writes.push(write(70, 7, 8, told(5))));
    assert_eq!(found, [Contradiction::Missing { value: 70 }]);
}

#[test]
fn value_that_is_there_twice_is_found() {
    let found = found(|_, rows| rows.push(row(50)));
    let (value, times) = (50, 2);
    assert_eq!(found, [Contradiction::Repeated { value, times }]);
}

#[test]
fn value_that_was_refused_or_never_written_is_found() {
    for value in [40, 99] {
        let found = found(|_, rows| rows.push(row(value)));
        assert_eq!(found, [Contradiction::Uncalled { value }]);
    }
}

#[test]
fn value_before_one_that_it_followed_is_found() {
    let found = found(|history, rows| {
        history.reads.clear();
        rows.swap(0, 1);
    });
    let (earlier, later) = (10, 20);
    assert_eq!(found, [Contradiction::Order { earlier, later }]);
}

#[test]
fn read_that_shows_no_state_is_found() {
    let shown =
        |newest: [u64; 2]| found(|history, _| history.reads[4].newest = newest.map(row).to_vec());
    assert_eq!(shown([50, 30]), []);
    for newest in [[50, 20], [60, 30], [10, 20]] {
        let violation = Contradiction::NoState {
            node: "2".to_owned(),
            shown: newest.to_vec(),
        };
        assert_eq!(shown(newest), [violation]);
    }
}

#[test]
fn value_that_was_seen_before_it_was_sent_is_found() {
    let found = found(|history, _| history.writes[4].invoked = at(9));
    let violation = Contradiction::Foreseen {
        node: "2".to_owned(),
        value: 50,
    };
    assert_eq!(found, [violation]);
}

#[test]
fn strong_read_that_misses_what_was_acknowledged_or_shown_is_found() {
    let stale = |rows, known| Contradiction::Stale {
        node: "2".to_owned(),
        rows,
        known,
    };
    let acknowledged = found(|history, _| history.reads[1].invoked = at(6));
    assert_eq!(acknowledged, [stale(1, 2)]);
    let shown = found(|history, rows| {
        history.reads.push(read(Asked::Everything, 9, &rows[..3]));
    });
    assert_eq!(shown, [stale(3, 4)]);
}

#[test]
fn session_that_goes_back_is_found() {
    let broken = |guarantee, from, to| Contradiction::Session {
        guarantee,
        session: 5,
        from,
        to,
    };
    let own = found(|history, _| {
        history.writes[2].session = Some(5);
        history.reads[3].session = Some(5);
    });
    assert_eq!(own, [broken(Guarantee::ReadYourWrites, 3, 2)]);
    let reads = found(|history, rows| {
        history.reads[2].session = Some(5);
        let mut late = read(Asked::Anything, 9, &rows[..2]);
        late.session = Some(5);
        history.reads.push(late);
    });
    assert_eq!(reads, [broken(Guarantee::MonotonicReads, 3, 2)]);
    let writes = found(|history, _| {
        history.writes[2].session = Some(5);
        history.writes[1].session = Some(5);
        history.writes[1].invoked = at(7);
        history.writes[1].fate = Fate::Unknown;
    });
    assert!(writes.contains(&broken(Guarantee::MonotonicWrites, 3, 2)));
    let follow = found(|history, _| {
        history.reads[4].session = Some(5);
        history.writes[2].session = Some(5);
        history.writes[2].invoked = at(9);
        history.writes[2].returned = at(10);
    });
    assert!(follow.contains(&broken(Guarantee::WritesFollowReads, 4, 3)));
}
