//! Entries to a follower, several messages on their way at once.
//!
//! A follower answers an append when its disk has it. Sent one by one, a write that has just missed a message
//! waits for a whole flush and round trip before its own begins. So appends travel over a connection of their
//! own, in order, each answered in order, up to [`IN_FLIGHT_BYTES_MAX`] bytes ahead of the answers.
//!
//! Heartbeats and votes do not: they go as single requests on other connections, as openraft sends them from
//! tasks of their own. A large append before them delays none, so neither a lease nor an election depends on how
//! much is being sent.
//!
//! What openraft makes of it (its `replication` module): it reads ahead as long as it is asked for requests;
//! an answer acknowledges everything up to it; after an error, a conflict or a newer vote it begins another
//! session at what was acknowledged, at once or after a pause. So nothing is lost with a connection, and a
//! repeated entry is known to the follower. But it also takes the answer for a sign that the follower was there when
//! the last message that ends at the same entry was sent, and rests leases and strong reads on that; a message that
//! only says what is committed ends where the one before it ends. So an answer that a later message could be taken
//! to share waits for that message's own. A session that ended in order leaves its connection to the next; any
//! other closes it, with the answers that nobody waits for any more.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future, stream};
use openraft::errors::{RPCError, Unreachable};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::cell::{Cell, LogId};
use super::network::{APPEND_WAIT, Peer, sending};
use super::wire::{Answer, Request};
use super::{AnswerError, Consensus};

/// Bytes sent and not yet answered, above which nothing more is sent.
const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;
/// Messages, the same.
pub(crate) const IN_FLIGHT_COUNT_MAX: usize = 64;

/// A connection for appends: each message that goes out is answered by one that comes in, in the same order.
/// It ends when either half is dropped.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Messages out. Has places for [`IN_FLIGHT_COUNT_MAX`].
    pub(crate) requests: mpsc::Sender<Bytes>,
    /// Answers in.
    pub(crate) answers: mpsc::Receiver<Bytes>,
}

/// An append without an answer.
struct InFlight {
    before: Option<LogId>,
    last: Option<LogId>,
    bytes: u64,
    due: Instant,
}

/// One run of appends to a follower, as long as openraft has more and nothing goes wrong.
pub(super) struct Session<'a, S> {
    peer: &'a mut Peer,
    input: S,
    /// openraft has no more requests.
    ended: bool,
    channel: Option<Channel>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
}

type Appended = Result<StreamAppendResult<Cell>, RPCError<Cell>>;

impl<'a, S> Session<'a, S>
where
    S: Stream<Item = AppendEntriesRequest<Cell>> + Unpin + Send + 'a,
{
    pub(super) fn new(peer: &'a mut Peer, input: S) -> Self {
        let kept = peer.channel.take();
        Self {
            peer,
            input,
            ended: false,
            channel: kept.filter(|channel| !channel.requests.is_closed()),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// The answers, up to the first that ends the session.
    pub(super) fn answers(self) -> impl Stream<Item = Appended> + Send + 'a {
        stream::unfold(Some(self), |session| async move {
            let mut session = session?;
            let answer = session.next().await?;
            let goes_on = matches!(&answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some(session)))
        })
    }

    async fn next(&mut self) -> Option<Appended> {
        loop {
            if self.ended && self.in_flight.is_empty() {
                self.peer.channel = self.channel.take();
                return None;
            }
            let has_room = !self.ended
                && self.in_flight.len() < IN_FLIGHT_COUNT_MAX
                && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX;
            let due = self.in_flight.front().map(|oldest| oldest.due);
            tokio::select! {
                answer = answered(self.channel.as_mut(), due) => {
                    let answer = match answer {
                        Ok(answer) => self.acknowledge(&answer),
                        Err(reason) => Err(self.peer.unreachable(&reason).into()),
                    };
                    if !self.vouches_for_more(&answer) {
                        return Some(answer);
                    }
                }
                request = self.input.next(), if has_room => match request {
                    Some(request) => {
                        if let Err(unreachable) = self.send(request).await {
                            return Some(Err(unreachable.into()));
                        }
                    }
                    None => self.ended = true,
                },
            }
        }
    }

    async fn send(&mut self, request: AppendEntriesRequest<Cell>) -> Result<(), Unreachable<Cell>> {
        let before = request.prev_log_id;
        if !request.entries.is_empty() && self.peer.purging.takes(before) {
            return Err(self
                .peer
                .unreachable(&"it is further behind than the log is kept for"));
        }
        let last = request.entries.last().map_or(before, |e| Some(e.log_id));
        let message = Request::Append(request).encode();
        let message = message.map_err(|error| self.peer.unreachable(&error))?;
        let closed_idle = |kept: &mut Channel| kept.requests.is_closed();
        if self.in_flight.is_empty() {
            self.channel.take_if(closed_idle);
        }
        let channel = match &mut self.channel {
            Some(open) => open,
            none => none.insert(open(self.peer).await?),
        };
        let bytes = message.len() as u64;
        // What is before it has to arrive first.
        let ahead = usize::try_from(self.in_flight_bytes).unwrap_or(usize::MAX);
        let due = Instant::now() + sending(ahead.saturating_add(message.len()));
        let sent = channel.requests.try_send(message);
        sent.map_err(|error| self.peer.unreachable(&error))?;
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            before,
            last,
            bytes,
            due,
        });
        Ok(())
    }

    /// Whether openraft would take `answer` for one to a later message too, one without entries, and with it
    /// for a sign that the follower still followed when *that* was sent. That one's own answer will do.
    fn vouches_for_more(&self, answer: &Appended) -> bool {
        let next = self.in_flight.front();
        matches!((answer, next), (Ok(Ok(upto)), Some(next)) if next.last <= *upto)
    }

    fn acknowledge(&mut self, answer: &[u8]) -> Appended {
        let unreachable = |reason: &dyn std::fmt::Display| self.peer.unreachable(reason);
        let answer = Answer::decode(answer).map_err(|error| unreachable(&error))?;
        let Some(request) = self.in_flight.pop_front() else {
            return Err(unreachable(&"it answered what was not asked").into());
        };
        self.in_flight_bytes -= request.bytes;
        let answer = match answer {
            Answer::Append(answer) => answer,
            Answer::Vote(_) | Answer::Snapshot(_) | Answer::Transfer { .. } => {
                return Err(unreachable(&"it answered another question").into());
            }
        };
        Ok(match (answer, request.before) {
            (AppendEntriesResponse::Success, _) => Ok(request.last),
            (AppendEntriesResponse::PartialSuccess(upto), _) => Ok(upto),
            (AppendEntriesResponse::HigherVote(vote), _) => {
                Err(StreamAppendError::HigherVote(vote))
            }
            (AppendEntriesResponse::Conflict, Some(before)) => {
                Err(StreamAppendError::Conflict(before))
            }
            (AppendEntriesResponse::Conflict, None) => {
                return Err(unreachable(&"it finds a conflict before the first entry").into());
            }
        })
    }
}

async fn open(peer: &Peer) -> Result<Channel, Unreachable<Cell>> {
    let opening = peer.transport.open(peer.node, &peer.member, APPEND_WAIT);
    let opened = timeout(APPEND_WAIT, opening).await;
    let opened = opened.map_err(|late| peer.unreachable(&late))?;
    opened.map_err(|error| peer.unreachable(&error))
}

/// The next answer; never, while none is due.
async fn answered(channel: Option<&mut Channel>, due: Option<Instant>) -> Result<Bytes, String> {
    let (Some(channel), Some(due)) = (channel, due) else {
        return future::pending().await;
    };
    match timeout_at(due, channel.answers.recv()).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("the connection for appends ended".to_owned()),
        Err(late) => Err(late.to_string()),
    }
}

impl Consensus {
    /// Answers another voter's appends in their order, for the receiving side of a [`Channel`]. Ends after the
    /// first that cannot be appended, and with the requests.
    pub(crate) fn answer_appends(
        &self,
        requests: impl Stream<Item = Bytes> + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, AnswerError>> + Send + 'static {
        let unreadable = Arc::new(OnceLock::new());
        let found = Arc::clone(&unreadable);
        let appends = requests.scan((), move |(), message| {
            let append = match Request::decode(&message) {
                Ok(Request::Append(append)) => Some(append),
                Ok(_) => None,
                Err(error) => {
                    // The first is the last.
                    let _ = found.set(error);
                    None
                }
            };
            future::ready(append)
        });
        let answers = self.inner.raft.stream_append(appends).map(|appended| {
            let appended = appended.map_err(|_fatal| AnswerError::Stopped)?;
            let answer = match appended {
                Ok(upto) => AppendEntriesResponse::PartialSuccess(upto),
                Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
                Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
            };
            Answer::Append(answer)
                .encode()
                .map_err(AnswerError::Message)
        });
        let mut unreadable = Some(unreadable);
        answers.chain(stream::poll_fn(move |_context| {
            let error = unreadable.take().and_then(Arc::into_inner);
            let error = error.and_then(OnceLock::into_inner);
            std::task::Poll::Ready(error.map(|error| Err(AnswerError::Message(error))))
        }))
    }
}
