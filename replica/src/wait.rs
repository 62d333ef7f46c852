//! Whether a copy meets a contract now, may meet it soon, or is not worth waiting for: decided from
//! where it stands, without I/O.

use std::cmp::Ordering;

use tidemark_protocol::{OnMiss, Position};

use crate::standing::{Condition, Standing};

/// What to do with a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Read here.
    Read,
    /// Wait until the copy stands elsewhere.
    Wait,
    /// Open the files first, which are closed for want of use alone, and wait for that.
    Wake,
    /// The contract is missed.
    Miss(Miss),
}

/// How a contract is missed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Miss {
    /// The bookmark lies ahead.
    Behind {
        /// What readers see.
        reached: Position,
    },
    /// The bookmark names other content than this history has at its place.
    Lost {
        /// What readers see.
        reached: Position,
    },
    /// Nothing can be read here.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// The database is not here.
    Gone,
}

/// Decides on a read that wants at least the state `wanted`. `patient`: there is still time to wait.
pub(crate) fn judge(
    standing: &Standing,
    wanted: Option<Position>,
    on_miss: OnMiss,
    patient: bool,
) -> Verdict {
    if matches!(standing.condition, Condition::Dropped | Condition::Closed) {
        return Verdict::Miss(Miss::Gone);
    }
    // Forwarding costs one trip: waiting is worth it only while the next state is near. Without
    // forwarding there is nothing better than to wait for repair or connection.
    let wait = patient && (standing.promising() || on_miss != OnMiss::Forward);
    let unreadable = || {
        let reason = standing
            .damage()
            .unwrap_or("it is being opened or exchanged");
        Miss::Unreadable {
            reason: reason.to_owned(),
        }
    };
    let miss = match (
        standing.position.filter(|_| standing.damage().is_none()),
        wanted,
    ) {
        (None, _) => unreadable(),
        (Some(reached), Some(wanted)) if !reached.reached(&wanted) => Miss::Behind { reached },
        (Some(reached), Some(wanted))
            if reached.age(&wanted) == Ordering::Equal && reached != wanted =>
        {
            return Verdict::Miss(Miss::Lost { reached });
        }
        (Some(_), _) if standing.readable() => return Verdict::Read,
        (Some(_), _) if standing.asleep() && patient => return Verdict::Wake,
        (Some(_), _) => unreadable(),
    };
    if wait {
        Verdict::Wait
    } else {
        Verdict::Miss(miss)
    }
}

/// How a read that gave the state `position` misses its contract all the same, unless `on_miss` is
/// content with any state.
pub(crate) fn shortfall(
    position: Position,
    wanted: Option<Position>,
    on_miss: OnMiss,
) -> Option<Miss> {
    let read = Standing {
        position: Some(position),
        condition: Condition::Alone,
    };
    match judge(&read, wanted, on_miss, false) {
        Verdict::Miss(miss) if on_miss != OnMiss::Stale => Some(miss),
        Verdict::Miss(_) | Verdict::Read | Verdict::Wait | Verdict::Wake => None,
    }
}

#[cfg(test)]
mod tests {
    use tidemark_protocol::{Epoch, Seq, StateChecksum};

    use super::*;

    fn at(epoch: u32, seq: u64) -> Position {
        let checksum = StateChecksum(seq ^ u64::from(epoch) << 40);
        Position {
            epoch: Epoch(epoch),
            seq: Seq(seq),
            checksum,
        }
    }

    fn check(
        (position, condition): (Option<Position>, Condition),
        wanted: Option<Position>,
        on_miss: OnMiss,
        patient: bool,
        expected: &Verdict,
    ) {
        let standing = Standing {
            position,
            condition,
        };
        let verdict = judge(&standing, wanted, on_miss, patient);
        assert_eq!(
            verdict, *expected,
            "{standing:?} {wanted:?} {on_miss:?} {patient}"
        );
    }

    #[test]
    fn reached_bookmark_is_read_here_whether_or_not_anything_new_comes() {
        for condition in [Condition::Following, Condition::Alone, Condition::Catching] {
            for wanted in [None, Some(at(1, 4)), Some(at(1, 5))] {
                let here = (Some(at(1, 5)), condition.clone());
                check(here, wanted, OnMiss::Forward, true, &Verdict::Read);
            }
        }
    }

    #[test]
    fn bookmark_of_an_earlier_epoch_is_reached_and_of_a_later_one_is_not() {
        let here = || (Some(at(2, 5)), Condition::Following);
        check(
            here(),
            Some(at(1, 900)),
            OnMiss::Forward,
            true,
            &Verdict::Read,
        );
        check(
            here(),
            Some(at(3, 1)),
            OnMiss::Forward,
            true,
            &Verdict::Wait,
        );
    }

    #[test]
    fn behind_waits_while_following_and_misses_when_time_is_up() {
        let here = || (Some(at(1, 5)), Condition::Following);
        let behind = Verdict::Miss(Miss::Behind { reached: at(1, 5) });
        for on_miss in [OnMiss::Forward, OnMiss::Stale, OnMiss::Error] {
            check(here(), Some(at(1, 6)), on_miss, true, &Verdict::Wait);
            check(here(), Some(at(1, 6)), on_miss, false, &behind);
        }
    }

    #[test]
    fn without_a_stream_forwarding_is_at_once_and_the_other_rules_wait() {
        let here = || (Some(at(1, 5)), Condition::Alone);
        let behind = Verdict::Miss(Miss::Behind { reached: at(1, 5) });
        check(here(), Some(at(1, 6)), OnMiss::Forward, true, &behind);
        check(here(), Some(at(1, 6)), OnMiss::Stale, true, &Verdict::Wait);
        check(here(), Some(at(1, 6)), OnMiss::Error, true, &Verdict::Wait);
    }

    #[test]
    fn damaged_copy_is_never_read() {
        let here = || (None, Condition::Damaged("torn".into()));
        let miss = Verdict::Miss(Miss::Unreadable {
            reason: "torn".to_owned(),
        });
        check(here(), None, OnMiss::Forward, true, &miss);
        check(here(), None, OnMiss::Stale, true, &Verdict::Wait);
        check(here(), None, OnMiss::Stale, false, &miss);
        // Not even when a position is published by mistake.
        let wrong = (Some(at(1, 9)), Condition::Damaged("torn".into()));
        check(wrong, Some(at(1, 1)), OnMiss::Error, false, &miss);
    }

    #[test]
    fn sleeping_copy_is_woken_for_what_it_has_and_left_alone_for_what_it_has_not() {
        for following in [false, true] {
            let here = || (Some(at(1, 5)), Condition::Asleep { following });
            check(
                here(),
                Some(at(1, 5)),
                OnMiss::Forward,
                true,
                &Verdict::Wake,
            );
            check(here(), None, OnMiss::Error, true, &Verdict::Wake);
            let behind = Verdict::Miss(Miss::Behind { reached: at(1, 5) });
            check(here(), Some(at(1, 6)), OnMiss::Error, true, &Verdict::Wait);
            check(here(), Some(at(1, 6)), OnMiss::Error, false, &behind);
            let at_once = if following { &Verdict::Wait } else { &behind };
            check(here(), Some(at(1, 6)), OnMiss::Forward, true, at_once);
        }
    }

    #[test]
    fn equal_place_with_other_content_is_a_lost_history() {
        let other = Position {
            checksum: StateChecksum(0),
            ..at(1, 5)
        };
        let lost = Verdict::Miss(Miss::Lost { reached: at(1, 5) });
        let here = (Some(at(1, 5)), Condition::Following);
        check(here, Some(other), OnMiss::Forward, true, &lost);
    }

    #[test]
    fn read_that_went_back_is_a_miss_unless_any_state_will_do() {
        let other = Position {
            checksum: StateChecksum(0),
            ..at(1, 5)
        };
        let behind = Some(Miss::Behind { reached: at(1, 5) });
        let lost = Some(Miss::Lost { reached: at(1, 5) });
        for on_miss in [OnMiss::Forward, OnMiss::Error] {
            assert_eq!(shortfall(at(1, 5), Some(at(1, 6)), on_miss), behind);
            assert_eq!(shortfall(at(1, 5), Some(other), on_miss), lost);
            assert_eq!(shortfall(at(1, 5), Some(at(1, 5)), on_miss), None);
            assert_eq!(shortfall(at(1, 5), None, on_miss), None);
        }
        for wanted in [at(1, 6), other, at(1, 5)] {
            assert_eq!(shortfall(at(1, 5), Some(wanted), OnMiss::Stale), None);
        }
    }
}
