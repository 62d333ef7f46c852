//! How old this replica's copies can be at most, and how long news from the source take: found by asking.
//!
//! Several times a second, and when a read wants to know, the replica asks the source over the stream whether
//! it has everything ([`FollowerMessage::Ask`](tidemark_protocol::stream::FollowerMessage::Ask)). The source,
//! having received that, makes sure that it leads, sends what was committed by then, and answers behind it. So
//! with the answer the replica has received everything that was committed, and all the more everything that was
//! acknowledged, when it *asked*: before a moment on its own clock. A copy that has applied what it had received
//! misses nothing from before that moment, and
//!
//! ```text
//! staleness <= now - when the question was put
//! ```
//!
//! What a round trip can hide is counted in full: the question may have been on its way in no time and the
//! answer for all of it. No clock is compared with another's; the source's lease, by which it knows that it
//! leads, rests on voters' clocks running at about the same speed, as all reads of a leader do. A source that was
//! paused on the way makes the answer late, and the bound large; a replica that was paused finds its own clock
//! advanced. The clock is the monotonic one: a machine that is suspended as a whole stops it, and must not be
//! read from within the bound after that.
//!
//! A copy is *complete* as of a question ([`Mark::sight`]) if
//!
//! 1. the question went out behind the wish to follow the database, on the same connection, and behind the end
//!    of the last image of it that came since;
//! 2. nothing is missing that comes in another form than transactions (an image, or the end of the database);
//! 3. readers see the last transaction that was received.
//!
//! The source answers past an image: it has what was committed when it began, and what was committed while it
//! was on its way comes behind its end. So no question from before that end proves anything of this database.
//!
//! Messages reach a copy's inbox in the order in which they came, and an answer counts only once everything
//! before it is there: so a look at the answer first and at the inbox then sees all that the answer vouches for.
//! After the connection is lost the proof stays, and the bound grows with time.
//!
//! The time that an answer takes also tells how the stream is doing: at its shortest it is the round trip, and
//! what it is longer than that, news are late. See [`Outlook`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidemark_protocol::Position;
use tokio::sync::watch;

use crate::outbox::Outbox;
use crate::standing::{Condition, Standing};
use crate::wait::Outlook;

/// Time between two questions while nobody waits for an answer.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(100);
/// Shortest time between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Questions without an answer that are remembered.
const UNANSWERED_MAX: usize = 64;
/// Part of itself by which the round trip is believed to have grown with each answer, so that a way that became
/// longer is known as such after a minute or so.
const TRIP_GROWTH: u32 = 512;
/// A pause in which nothing of a database comes is no sign of how fast it comes.
const PACE_MAX: Duration = Duration::from_secs(1);

/// Questions to the source, and what their answers proved.
#[derive(Debug)]
pub(crate) struct Soundings {
    state: Mutex<State>,
    answers: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the connection that is up, if its source understands questions.
    outbox: Option<Arc<Outbox>>,
    next: u64,
    /// Questions without an answer, and when they were put: the oldest, and the newest behind it.
    unanswered: VecDeque<(u64, Instant)>,
    asked_at: Option<Instant>,
    proof: Option<Proof>,
    trip: Option<Duration>,
    latest: Duration,
}

/// Everything that was committed before `at` was received on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Proof {
    connection: u64,
    at: Instant,
}

impl Soundings {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            answers: watch::Sender::new(0),
        }
    }

    /// A connection is up whose source understands questions.
    pub(crate) fn begin(&self, outbox: &Arc<Outbox>) {
        let mut state = self.lock();
        state.unanswered.clear();
        state.outbox = Some(Arc::clone(outbox));
    }

    /// The connection is down.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.unanswered.clear();
        state.outbox = None;
    }

    /// Puts a question, unless there was one a moment ago.
    pub(crate) fn ask(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        let lately = state.asked_at.is_some_and(|at| now - at < ASK_AGAIN);
        let Some(outbox) = state.outbox.clone() else {
            return;
        };
        if lately {
            return;
        }
        if state.unanswered.len() >= UNANSWERED_MAX {
            // The source drops what it could not confirm. Should an answer to this one come all the same, it
            // counts from the one before; the first one stays, which says how long there has been none.
            state.unanswered.remove(1);
        }
        state.next += 1;
        let stamp = state.next;
        state.asked_at = Some(now);
        state.unanswered.push_back((stamp, now));
        // Within the lock: what was put into the outbox before `now` goes out before the question.
        outbox.ask(stamp);
    }

    /// Puts a question unless one is on its way whose answer is due.
    pub(crate) fn ask_if_none_is_due(&self) {
        let state = self.lock();
        let trip = state.trip.unwrap_or(ASK_EVERY);
        let newest = state.unanswered.back();
        let due = newest.is_some_and(|(_, at)| at.elapsed() <= trip);
        drop(state);
        if !due {
            self.ask();
        }
    }

    /// The answer came, and everything before it is in its inbox.
    pub(crate) fn answered(&self, stamp: u64) {
        let mut state = self.lock();
        let mut at = None;
        while let Some((_, asked)) = state
            .unanswered
            .front()
            .filter(|(asked, _)| *asked <= stamp)
        {
            at = Some(*asked);
            state.unanswered.pop_front();
        }
        let (Some(at), Some(outbox)) = (at, &state.outbox) else {
            return;
        };
        let connection = outbox.number();
        let took = at.elapsed();
        state.proof = Some(Proof { connection, at });
        state.latest = took;
        let believed = state.trip.map(|trip| trip + trip / TRIP_GROWTH);
        state.trip = Some(believed.map_or(took, |trip| trip.min(took)));
        drop(state);
        self.answers.send_modify(|count| *count += 1);
    }

    /// What was proved last.
    pub(crate) fn proof(&self) -> Option<Proof> {
        self.lock().proof
    }

    /// Changes with each answer.
    pub(crate) fn answers(&self) -> watch::Receiver<u64> {
        self.answers.subscribe()
    }

    /// How long news take: the round trip, and how long the answer took that came last, or that has yet to come.
    pub(crate) fn outlook(&self) -> Outlook {
        let state = self.lock();
        let oldest = state.unanswered.front();
        let waiting = oldest.map_or(Duration::ZERO, |(_, at)| at.elapsed());
        Outlook {
            trip: state.outbox.as_ref().and(state.trip),
            delay: state.latest.max(waiting),
            ..Outlook::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the stream brought of one database, whether or not it is applied.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    /// On which connection the source was asked to send it, and from when on its answers count: the wish was in
    /// the outbox, and the last image had come.
    followed: Option<(u64, Instant)>,
    gap: Gap,
    /// Where the last thing that came leads.
    received: Option<Position>,
    /// The copy was complete as of then.
    complete: Option<Instant>,
    /// When readers last saw something new, up to where, and whether more had been received by then.
    advanced: Option<(Instant, Position, bool)>,
    /// See [`Outlook::pace`].
    pace: Option<Duration>,
    /// See [`Outlook::work`].
    work: Option<Duration>,
}

/// What has to come before transactions lead on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Gap {
    /// Nothing.
    #[default]
    None,
    /// The wish for hashes, or another start. What still comes of an image was sent before.
    Start,
    /// An image.
    Image,
    /// The rest of it.
    Rest,
}

/// What is known of how old a copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sight {
    /// It misses nothing that was committed before.
    pub(crate) complete: Option<Instant>,
    /// See [`Outlook::backlog`].
    pub(crate) backlog: bool,
    /// See [`Outlook::pace`].
    pub(crate) pace: Option<Duration>,
    /// See [`Outlook::work`].
    pub(crate) work: Option<Duration>,
}

impl Mark {
    /// The source is about to be asked to send the database: what comes from here on counts.
    pub(crate) fn restart(&mut self, standing: &Standing, proof: Option<Proof>, gap: bool) {
        self.look(standing, proof); // the last of the connection before
        self.followed = None;
        self.gap = if gap { Gap::Start } else { Gap::None };
        self.received = None;
    }

    /// The wish is in the outbox.
    pub(crate) fn followed(&mut self, connection: u64) {
        self.followed = Some((connection, Instant::now()));
    }

    /// Something came.
    pub(crate) fn received(&mut self, position: Position) {
        self.received = Some(position);
    }

    /// A state begins to come.
    pub(crate) fn image_begun(&mut self, position: Position) {
        if self.gap != Gap::Start {
            self.received = Some(position);
            self.gap = Gap::Rest;
        }
    }

    /// It is here, and transactions follow again: from where it began, so that earlier questions prove nothing.
    pub(crate) fn image_ended(&mut self) {
        if self.gap == Gap::Rest {
            self.gap = Gap::None;
            let now = Instant::now();
            self.followed = self.followed.map(|(connection, _)| (connection, now));
        }
    }

    /// An image is to come.
    pub(crate) fn interrupted(&mut self) {
        self.gap = Gap::Image;
    }

    /// Nothing comes until the source is asked again.
    pub(crate) fn dropped(&mut self) {
        self.gap = Gap::Start;
    }

    /// Readers see `position`.
    pub(crate) fn applied(&mut self, position: Position) {
        let now = Instant::now();
        let more = self
            .received
            .is_some_and(|received| !position.reached(&received));
        let last = self.advanced;
        if last.is_some_and(|(_, at, _)| at == position) {
            return;
        }
        self.advanced = Some((now, position, more));
        let Some((before, from, busy)) = last.filter(|(_, at, _)| at.epoch == position.epoch)
        else {
            return;
        };
        let steps = position.seq.0.saturating_sub(from.seq.0).max(1);
        let each = (now - before) / u32::try_from(steps).unwrap_or(u32::MAX);
        let mean = |of: Option<Duration>| Some(of.map_or(each, |mean| (mean * 3 + each) / 4));
        if now - before < PACE_MAX {
            self.pace = mean(self.pace);
        }
        if busy {
            self.work = mean(self.work);
        }
    }

    /// How old the copy is that stands so, given the newest proof, which was looked at before.
    pub(crate) fn sight(&mut self, standing: &Standing, proof: Option<Proof>) -> Sight {
        self.look(standing, proof);
        Sight {
            complete: self.complete,
            backlog: !self.is_applied(standing),
            pace: self.pace,
            work: self.work,
        }
    }

    fn look(&mut self, standing: &Standing, proof: Option<Proof>) {
        let vouches = |proof: &Proof| {
            self.followed
                .is_some_and(|(on, at)| on == proof.connection && at <= proof.at)
        };
        let intact = matches!(
            standing.condition,
            Condition::Following | Condition::Alone | Condition::Asleep { .. }
        );
        if let Some(proof) = proof.filter(vouches)
            && intact
            && self.gap == Gap::None
            && self.is_applied(standing)
        {
            self.complete = self.complete.max(Some(proof.at));
        }
    }

    fn is_applied(&self, standing: &Standing) -> bool {
        standing
            .position
            .is_some_and(|at| self.received.is_none_or(|received| at.reached(&received)))
    }
}

#[cfg(test)]
mod tests {
    use tidemark_protocol::stream::FollowerMessage;
    use tidemark_protocol::{Epoch, Seq, StateChecksum};

    use super::*;

    fn at(seq: u64) -> Position {
        Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
            checksum: StateChecksum(seq),
        }
    }

    fn standing(seq: u64, condition: Condition) -> Standing {
        Standing {
            position: Some(at(seq)),
            condition,
        }
    }

    fn proof(connection: u64) -> Proof {
        Proof {
            connection,
            at: Instant::now(),
        }
    }

    /// A copy at 5 that asked for what follows on connection 1.
    fn following() -> Mark {
        let mut mark = Mark::default();
        mark.restart(&standing(5, Condition::Alone), None, false);
        mark.followed(1);
        mark
    }

    fn complete(mark: &mut Mark, standing: &Standing, proof: Proof) -> Option<Instant> {
        mark.sight(standing, Some(proof)).complete
    }

    #[test]
    fn copy_is_complete_once_what_came_before_the_answer_is_applied() {
        let mut mark = following();
        let answer = proof(1);
        mark.received(at(6));
        let behind = standing(5, Condition::Following);
        assert_eq!(complete(&mut mark, &behind, answer), None);
        let there = standing(6, Condition::Following);
        assert_eq!(complete(&mut mark, &there, answer), Some(answer.at));
        // What comes later takes nothing of that back.
        mark.received(at(7));
        assert_eq!(complete(&mut mark, &there, proof(1)), Some(answer.at));
    }

    #[test]
    fn question_from_before_the_wish_to_follow_or_of_another_connection_proves_nothing() {
        let early = proof(1);
        let mut mark = following();
        let here = standing(5, Condition::Following);
        assert_eq!(complete(&mut mark, &here, early), None);
        assert_eq!(complete(&mut mark, &here, proof(2)), None);
        let answer = proof(1);
        assert_eq!(complete(&mut mark, &here, answer), Some(answer.at));
    }

    #[test]
    fn image_lets_only_questions_from_after_its_end_prove_anything() {
        let mut mark = following();
        mark.interrupted();
        let announced = proof(1);
        mark.image_begun(at(9));
        let begun = proof(1);
        let catching = standing(9, Condition::Catching);
        let there = standing(9, Condition::Following);
        for standing in [&catching, &there] {
            assert_eq!(complete(&mut mark, standing, announced), None);
            assert_eq!(complete(&mut mark, standing, begun), None);
        }
        mark.image_ended();
        // What was committed while it was on its way comes only now.
        assert_eq!(complete(&mut mark, &there, begun), None);
        let ended = proof(1);
        assert_eq!(complete(&mut mark, &catching, ended), None);
        assert_eq!(complete(&mut mark, &there, ended), Some(ended.at));
    }

    #[test]
    fn rest_of_an_image_that_was_given_up_closes_no_gap() {
        let mut mark = following();
        mark.interrupted();
        mark.image_begun(at(9));
        let here = standing(9, Condition::Following);
        mark.restart(&here, None, true);
        mark.followed(1);
        mark.image_ended();
        assert_eq!(complete(&mut mark, &here, proof(1)), None);
        mark.image_begun(at(9));
        mark.interrupted();
        mark.image_ended();
        assert_eq!(complete(&mut mark, &here, proof(1)), None);
        mark.image_begun(at(9));
        mark.image_ended();
        let answer = proof(1);
        assert_eq!(complete(&mut mark, &here, answer), Some(answer.at));
    }

    #[test]
    fn proof_outlives_its_connection_and_the_next_one_begins_anew() {
        let mut mark = following();
        let answer = proof(1);
        let alone = standing(5, Condition::Alone);
        assert_eq!(complete(&mut mark, &alone, answer), Some(answer.at));
        mark.restart(&alone, Some(answer), false);
        mark.followed(2);
        let here = standing(5, Condition::Following);
        assert_eq!(complete(&mut mark, &here, answer), Some(answer.at));
        let next = proof(2);
        assert_eq!(complete(&mut mark, &here, next), Some(next.at));
    }

    #[test]
    fn round_trip_is_the_shortest_and_late_answers_tell_of_a_late_stream() {
        let soundings = Soundings::new();
        let outbox = Arc::new(Outbox::new(1));
        soundings.begin(&outbox);
        let ask = || {
            soundings.lock().asked_at = None;
            soundings.ask();
        };
        ask();
        soundings.answered(1);
        let trip = soundings.outlook().trip.expect("an answer came");
        ask();
        soundings.lock().unanswered[0].1 -= Duration::from_millis(30);
        let waiting = soundings.outlook();
        assert!(waiting.delay >= Duration::from_millis(30), "{waiting:?}");
        soundings.answered(2);
        let outlook = soundings.outlook();
        assert!(outlook.delay >= Duration::from_millis(30), "{outlook:?}");
        assert!(outlook.trip < Some(trip * 2), "{outlook:?}, {trip:?}");
        soundings.end();
        assert_eq!(soundings.outlook().trip, None, "nothing comes at all");
        assert!(soundings.proof().is_some(), "what was proved stays so");
    }

    #[test]
    fn source_that_dropped_many_questions_is_asked_on_and_believed_again() {
        let soundings = Soundings::new();
        let outbox = Arc::new(Outbox::new(1));
        soundings.begin(&outbox);
        let ask = || {
            soundings.lock().asked_at = None;
            soundings.ask();
            outbox.next()
        };
        let max = UNANSWERED_MAX as u64;
        for stamp in 1..=max * 2 {
            assert_eq!(ask(), Some(FollowerMessage::Ask { stamp }));
        }
        assert_eq!(soundings.lock().unanswered.len(), UNANSWERED_MAX);
        let first = soundings.lock().unanswered[0];
        assert_eq!(first.0, 1, "it says since when there was no answer");
        // One that is not remembered counts as the one before it, which was put earlier.
        soundings.answered(max / 2);
        assert!(soundings.proof().is_some_and(|proof| proof.at == first.1));
        let asked = Instant::now();
        ask();
        soundings.answered(max * 2 + 1);
        assert!(soundings.proof().is_some_and(|proof| proof.at >= asked));
        assert!(soundings.lock().unanswered.is_empty());
    }

    #[test]
    fn one_answer_is_for_all_questions_before_it_and_counts_from_the_last() {
        let soundings = Soundings::new();
        soundings.begin(&Arc::new(Outbox::new(1)));
        let mut asked = Instant::now();
        for _ in 0..3 {
            soundings.lock().asked_at = None;
            asked = Instant::now();
            soundings.ask();
        }
        soundings.answered(3);
        assert!(soundings.proof().is_some_and(|proof| proof.at >= asked));
        let before = soundings.proof();
        soundings.answered(2);
        assert_eq!(soundings.proof(), before, "answered already");
    }
}
