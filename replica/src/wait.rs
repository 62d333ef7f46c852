//! Whether a copy meets a contract now, may meet it soon, or is not worth waiting for: decided from
//! where it stands, without I/O.
//!
//! A read that may be forwarded waits here only while that is expected to be the shorter way. What it wants was
//! committed before it came, so it is on its way at the latest; on a stream that is not late it is here within
//! half a round trip, sooner than any other node could answer. Once the stream is late ([`Outlook::lags`]), or
//! much has come that is not applied yet, the wait is estimated from what is lacking and from how fast
//! transactions have become readable lately, and compared with the trip. A read that may not be forwarded has
//! nothing better to do than to wait for as long as its deadline allows.

use std::cmp::Ordering;
use std::time::Duration;

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
    /// It is as good as missed: waiting is expected to take longer than asking the primary.
    Hopeless(Miss),
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
    /// It is not proved that the copy is as fresh as wanted.
    Old {
        /// What is proved.
        staleness: Option<Duration>,
    },
    /// Nothing can be read here.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// The database is not here.
    Gone,
}

/// What a read wants of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wish {
    /// At least this state.
    pub(crate) wanted: Option<Position>,
    /// How much it may miss, if that is bounded.
    pub(crate) bound: Option<Duration>,
    /// What it is known to miss at most.
    pub(crate) staleness: Option<Duration>,
    /// What else, if not.
    pub(crate) on_miss: OnMiss,
}

impl Wish {
    fn is_fresh(&self) -> bool {
        self.bound
            .is_none_or(|bound| self.staleness.is_some_and(|known| known <= bound))
    }
}

/// What is known of how soon something comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outlook {
    /// Round trip to the source at its shortest. `None`: it does not answer questions.
    pub(crate) trip: Option<Duration>,
    /// How long the last answer of the source took, or the next one has taken so far: behind all that it had to
    /// send.
    pub(crate) delay: Duration,
    /// Time from one transaction of this database to the next, as they became readable lately.
    pub(crate) pace: Option<Duration>,
    /// The same while the next one had been received already: what applying it takes.
    pub(crate) work: Option<Duration>,
    /// Whether something was received that readers do not see yet.
    pub(crate) backlog: bool,
}

/// What an answer may take beyond the round trip for reasons of the machines at both ends.
const SLACK: Duration = Duration::from_millis(10);
/// What forwarding costs at least, however near the primary is: its work, and another connection.
const TRIP_MIN: Duration = Duration::from_millis(20);

impl Outlook {
    /// Whether the stream is late.
    fn lags(&self) -> bool {
        self.trip
            .is_some_and(|trip| self.delay > trip + trip / 2 + SLACK)
    }

    /// Whether asking the primary is expected to be shorter than waiting for what was committed before now, of
    /// which the copy lacks so many transactions.
    fn forwards(&self, lacking: Option<u64>) -> bool {
        let Some(trip) = self.trip else {
            return false;
        };
        let all = |each: Option<Duration>| {
            let lacking = u32::try_from(lacking?).unwrap_or(u32::MAX);
            Some(each?.saturating_mul(lacking))
        };
        let wait = if self.lags() {
            all(self.pace).map_or(self.delay, |all| all.min(self.delay))
        } else if self.backlog {
            all(self.work).unwrap_or_default()
        } else {
            Duration::ZERO
        };
        wait > trip.max(TRIP_MIN)
    }

    /// The same, for a proof that the copy misses nothing beyond `bound`.
    fn forwards_for(&self, bound: Duration) -> bool {
        // A proof is as old as the answer took.
        let too_old = self.trip.is_none_or(|trip| trip.max(self.delay) > bound);
        too_old || self.forwards(None)
    }
}

/// Decides on a read. `outlook`: what to expect of waiting, while there is time for that.
pub(crate) fn judge(standing: &Standing, wish: &Wish, outlook: Option<&Outlook>) -> Verdict {
    if matches!(standing.condition, Condition::Dropped | Condition::Closed) {
        return Verdict::Miss(Miss::Gone);
    }
    // For a test that wants to see that it is noticed.
    fail::fail_point!("sabotage::wait", standing.position.is_some(), |_| {
        Verdict::Read
    });
    let patient = outlook.is_some();
    let may_forward = wish.on_miss == OnMiss::Forward;
    // Forwarding costs one trip: waiting is worth it only while the next state is near. Without
    // forwarding there is nothing better than to wait for repair or connection.
    let wait = patient && (standing.promising() || !may_forward);
    let unreadable = || {
        let reason = standing
            .damage()
            .unwrap_or("it is being opened or exchanged");
        Miss::Unreadable {
            reason: reason.to_owned(),
        }
    };
    let forwards = |lacking| may_forward && outlook.is_some_and(|o| o.forwards(lacking));
    let (miss, forward) = match (
        standing.position.filter(|_| standing.damage().is_none()),
        wish.wanted,
    ) {
        (None, _) => (unreadable(), false),
        (Some(reached), Some(wanted)) if !reached.reached(&wanted) => {
            let same_epoch = reached.epoch == wanted.epoch;
            let lacking = same_epoch.then(|| wanted.seq.0.saturating_sub(reached.seq.0));
            (Miss::Behind { reached }, forwards(lacking))
        }
        (Some(reached), Some(wanted))
            if reached.age(&wanted) == Ordering::Equal && reached != wanted =>
        {
            return Verdict::Miss(Miss::Lost { reached });
        }
        (Some(_), _) if !wish.is_fresh() => {
            let staleness = wish.staleness;
            let late = outlook.zip(wish.bound);
            let late = late.is_some_and(|(outlook, bound)| outlook.forwards_for(bound));
            (Miss::Old { staleness }, may_forward && late)
        }
        (Some(_), _) if standing.readable() => return Verdict::Read,
        (Some(_), _) if standing.asleep() && patient => return Verdict::Wake,
        (Some(_), _) => (unreadable(), false),
    };
    match (wait, forward) {
        (true, true) => Verdict::Hopeless(miss),
        (true, false) => Verdict::Wait,
        (false, _) => Verdict::Miss(miss),
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
    let wish = Wish {
        wanted,
        bound: None,
        staleness: None,
        on_miss,
    };
    match judge(&read, &wish, None) {
        Verdict::Miss(miss) | Verdict::Hopeless(miss) if on_miss != OnMiss::Stale => Some(miss),
        Verdict::Miss(_) | Verdict::Hopeless(_) | Verdict::Read | Verdict::Wait | Verdict::Wake => {
            None
        }
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
        let wish = Wish {
            wanted,
            bound: None,
            staleness: None,
            on_miss,
        };
        let outlook = Outlook::default();
        let verdict = judge(&standing, &wish, patient.then_some(&outlook));
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

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What becomes of a read that wants `lacking` transactions more than a following copy has.
    fn outcome(lacking: u64, on_miss: OnMiss, outlook: Outlook) -> Verdict {
        let here = Standing {
            position: Some(at(1, 5)),
            condition: Condition::Following,
        };
        let wish = Wish {
            wanted: Some(at(1, 5 + lacking)),
            bound: None,
            staleness: None,
            on_miss,
        };
        judge(&here, &wish, Some(&outlook))
    }

    #[test]
    fn stream_that_is_not_late_is_waited_for_however_much_is_lacking() {
        let outlook = Outlook {
            trip: Some(ms(80)),
            delay: ms(90),
            pace: Some(ms(900)),
            ..Outlook::default()
        };
        for lacking in [1, 1000] {
            assert_eq!(outcome(lacking, OnMiss::Forward, outlook), Verdict::Wait);
        }
    }

    #[test]
    fn late_stream_is_waited_for_only_if_what_is_lacking_comes_before_an_answer_would() {
        let hopeless = Verdict::Hopeless(Miss::Behind { reached: at(1, 5) });
        let outlook = Outlook {
            trip: Some(ms(80)),
            delay: ms(2000),
            pace: Some(ms(10)),
            ..Outlook::default()
        };
        assert_eq!(outcome(2, OnMiss::Forward, outlook), Verdict::Wait);
        assert_eq!(outcome(100, OnMiss::Forward, outlook), hopeless);
        let silent = Outlook {
            pace: None,
            ..outlook
        };
        assert_eq!(outcome(1, OnMiss::Forward, silent), hopeless);
        for on_miss in [OnMiss::Stale, OnMiss::Error] {
            assert_eq!(outcome(100, on_miss, outlook), Verdict::Wait, "{on_miss}");
        }
    }

    #[test]
    fn what_was_received_and_takes_long_to_apply_is_not_waited_for() {
        let outlook = Outlook {
            trip: Some(ms(30)),
            delay: ms(30),
            pace: Some(ms(900)),
            work: Some(ms(5)),
            backlog: true,
        };
        let hopeless = Verdict::Hopeless(Miss::Behind { reached: at(1, 5) });
        assert_eq!(outcome(3, OnMiss::Forward, outlook), Verdict::Wait);
        assert_eq!(outcome(50, OnMiss::Forward, outlook), hopeless);
    }

    #[test]
    fn bound_is_met_by_what_is_proved_and_waited_for_only_if_a_proof_can_come_in_time() {
        let check = |bound, staleness, on_miss, expected: &Verdict| {
            let here = Standing {
                position: Some(at(1, 5)),
                condition: Condition::Following,
            };
            let wish = Wish {
                wanted: Some(at(1, 4)),
                bound: Some(ms(bound)),
                staleness,
                on_miss,
            };
            let outlook = Outlook {
                trip: Some(ms(80)),
                delay: ms(82),
                ..Outlook::default()
            };
            let verdict = judge(&here, &wish, Some(&outlook));
            assert_eq!(verdict, *expected, "{wish:?}");
        };
        let old = |staleness| Miss::Old { staleness };
        check(200, Some(ms(200)), OnMiss::Forward, &Verdict::Read);
        check(200, Some(ms(201)), OnMiss::Forward, &Verdict::Wait);
        check(200, None, OnMiss::Forward, &Verdict::Wait);
        let known = Some(ms(201));
        check(50, known, OnMiss::Forward, &Verdict::Hopeless(old(known)));
        check(50, known, OnMiss::Error, &Verdict::Wait);
    }

    #[test]
    fn cut_off_copy_meets_a_bound_for_as_long_as_its_last_proof_does() {
        let check = |staleness, patient: bool, expected: &Verdict| {
            let here = Standing {
                position: Some(at(1, 5)),
                condition: Condition::Alone,
            };
            let wish = Wish {
                wanted: None,
                bound: Some(ms(500)),
                staleness: Some(ms(staleness)),
                on_miss: OnMiss::Error,
            };
            let outlook = Outlook::default();
            let verdict = judge(&here, &wish, patient.then_some(&outlook));
            assert_eq!(verdict, *expected, "{wish:?}");
        };
        check(500, true, &Verdict::Read);
        check(501, true, &Verdict::Wait);
        let staleness = Some(ms(501));
        check(501, false, &Verdict::Miss(Miss::Old { staleness }));
    }
}
