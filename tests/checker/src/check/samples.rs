//! For each check a history that it alone finds fault with.

use tidemark_protocol::{Epoch, StateChecksum};

use super::tests::{at, read, sound, state, told, told_state, write};
use super::*;
use crate::{History, Read};

/// A history, and the rows in the end.
pub(crate) type Sample = (History, Vec<Entry>);

/// What is wrong with it only `check` finds. A match over all of them: a new check needs its sample.
pub(crate) fn sample(check: Check) -> Sample {
    let (mut history, mut rows) = sound();
    let row = |place, value| Entry { place, value };
    match check {
        Check::Lost => history.writes.push(write(70, 7, 8, told(5))),
        Check::Twice => rows.push(row(5, 50)),
        Check::Phantom => rows.push(row(5, 99)),
        Check::Refused => rows.push(row(5, 40)),
        Check::Moved => history.writes[4].fate = told(3),
        Check::Hole => {
            history.reads.clear();
            rows.pop();
            rows.push(row(5, 50));
        }
        Check::Order => {
            history.reads.clear();
            history.writes[0] = write(10, 7, 8, told(1));
        }
        Check::Count => history.reads[3].position = state(3),
        Check::Age => history.reads[4].position.epoch = Epoch(0),
        Check::Fork => history.reads[3].position.checksum = StateChecksum(1),
        Check::Uncommitted => history.reads[4].newest[0].value = 60,
        Check::Gap => {
            history.reads[4].newest.remove(1);
        }
        Check::Foreseen => history.writes[4].invoked = at(100),
        Check::Behind => history.reads[3].asked = Asked::From(state(3)),
        Check::Stale => history.reads[1].invoked = at(6),
        Check::Backwards => {
            let mut again = read(Asked::Everything, 20, &rows);
            again.newest.remove(0);
            again.position = state(3);
            history.reads.push(again);
        }
        Check::ReadYourWrites => {
            history.writes[2].session = Some(5);
            history.reads[3].session = Some(5);
        }
        Check::MonotonicReads => {
            history.reads[2].session = Some(5);
            let late = read(Asked::Anything, 9, &rows[..2]);
            history.reads.push(Read {
                session: Some(5),
                ..late
            });
        }
        Check::MonotonicWrites => {
            history.writes[0].session = Some(5);
            history.writes[0].fate = told_state(3);
            history.writes[1].session = Some(5);
        }
        Check::WritesFollowReads => {
            history.reads[4].session = Some(5);
            rows.push(row(5, 70));
            history.writes.push(Write {
                session: Some(5),
                ..write(70, 9, 10, told_state(4))
            });
        }
    }
    (history, rows)
}

/// Whatever check is taken out, what is wrong with a sample goes unnoticed.
#[test]
fn no_check_can_be_left_out() {
    for check in Check::ALL {
        let (history, rows) = sample(check);
        let found = super::check(&history, &rows);
        assert!(!found.is_empty(), "{check:?} finds nothing");
        let others: Vec<_> = Check::ALL.into_iter().filter(|one| *one != check).collect();
        let without = check_with(&history, &rows, &others);
        assert_eq!(without, [], "found without {check:?}");
    }
}
