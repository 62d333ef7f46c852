//! What all clients of a workload have, and how they take an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemark_client::{Answers, Client, Error, FailureKind, RequestId, SessionStart, Value};
use tidemark_protocol::Bookmark;

use super::table::Table;
use super::{Carried, DATABASE};
use crate::history::{Acknowledgement, Asked, Entry, Fate, Read, Recorder, Write};

/// Values per client: each has its own.
const VALUES_MAX: u64 = 1_000_000;
/// Chance that a write in doubt is given up.
const GIVE_UP: f64 = 0.25;

/// One client, of whatever kind.
pub(super) struct Worker {
    pub(super) number: u32,
    pub(super) table: Arc<Table>,
    pub(super) carried: Carried,
    pub(super) random: fastrand::Rng,
    /// To choose from at each request: a client per node, that speaks to it alone or to it first.
    pub(super) choice: Arc<[Client]>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) rest: Duration,
}

impl Worker {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Keeps a load a load, instead of as much as the machine can do.
    pub(super) async fn rest(&mut self) {
        let rest = self.rest.mul_f64(2.0 * self.random.f64());
        tokio::time::sleep(rest).await;
    }

    fn any(&mut self) -> Client {
        let client = self.random.choice(self.choice.iter());
        client.expect("there are nodes").clone()
    }

    /// The client's next value.
    pub(super) fn value(&mut self) -> u64 {
        let n = self.carried.written;
        self.carried.written += 1;
        assert!(n < VALUES_MAX, "client {} wrote {n} values", self.number);
        u64::from(self.number) * VALUES_MAX + n
    }

    /// Writes a value until its fate is known or it is given up: through `own`, or a client picked anew
    /// for each try; in the client's session if that starts anywhere. Returns the state after it, if it
    /// is known to count.
    pub(super) async fn write(
        &mut self,
        own: Option<&Client>,
        session: Option<&SessionStart>,
        value: u64,
    ) -> Option<Bookmark> {
        let uuid = uuid::Builder::from_random_bytes(self.random.u128(..).to_be_bytes());
        let request = RequestId::new(uuid.into_uuid());
        let invoked = self.recorder.now();
        let number = i64::try_from(value).expect("values are small");
        let mut doubt = false;
        let mut reached = None;
        let fate = loop {
            let client = own.cloned().unwrap_or_else(|| self.any());
            let database = client.database(DATABASE);
            let insert = database.prepare(&*self.table.insert).bind(number);
            let batch = match session {
                Some(start) => database.session(start.clone()).batch([insert]),
                None => database.batch([insert]),
            };
            let error = match batch.request_id(request).await {
                Ok(answers) => {
                    reached = answers.bookmark.is_some().then(|| bookmark(&answers));
                    break Fate::Committed(acknowledgement(&answers, reached));
                }
                Err(error) => error,
            };
            self.refused("write", &error);
            doubt |= error.may_have_happened();
            // A client that was told to stop leaves it at what it knows.
            if self.stopped() || !doubt || self.random.f64() < GIVE_UP {
                break if doubt { Fate::Unknown } else { Fate::Failed };
            }
            self.rest().await;
        };
        self.recorder.wrote(Write {
            value,
            request: Some(request),
            session: session.map(|_| self.number),
            invoked,
            returned: self.recorder.now(),
            fate,
        });
        reached
    }

    /// Reads once at some node, `asked` being what `start` asks for. Returns the state that was read, if it
    /// was answered.
    pub(super) async fn read(
        &mut self,
        start: Option<SessionStart>,
        asked: Asked,
        in_session: bool,
    ) -> Option<Bookmark> {
        let database = self.any().database(DATABASE);
        let invoked = self.recorder.now();
        let batch = match start {
            Some(start) => {
                let session = database.session(start);
                session.batch([session.prepare(&*self.table.newest)])
            }
            None => database.batch([database.prepare(&*self.table.newest)]),
        };
        match batch.await {
            Ok(answers) => {
                let bookmark = bookmark(&answers);
                self.recorder.read(Read {
                    session: in_session.then_some(self.number),
                    asked,
                    invoked,
                    returned: self.recorder.now(),
                    position: bookmark.claimed(),
                    newest: rows(&answers),
                    node: node(&answers),
                });
                Some(bookmark)
            }
            Err(error) => {
                self.refused("read", &error);
                None
            }
        }
    }

    /// Takes note of a failure. Panics if no fault explains it.
    fn refused(&self, what: &str, error: &Error) {
        let kind = error.kind();
        assert!(
            kind.is_some_and(FailureKind::retryable),
            "client {}, a {what}: {error}",
            self.number
        );
        let kind = kind.map_or("", FailureKind::name);
        self.recorder.refused(format!("{what}: {kind}"));
    }
}

fn acknowledgement(answers: &Answers, reached: Option<Bookmark>) -> Acknowledgement {
    let place = answers
        .results
        .first()
        .map(|result| match &result.rows[..] {
            [row] => match row[..] {
                [Value::Integer(place)] => u64::try_from(place).expect("places count from 1"),
                _ => panic!("an insert returned {row:?}"),
            },
            rows => panic!("an insert returned {rows:?}"),
        });
    Acknowledgement {
        place,
        position: reached.as_ref().map(Bookmark::claimed),
        node: node(answers),
        repeated: answers.repeated,
    }
}

fn bookmark(answers: &Answers) -> Bookmark {
    let text = answers.bookmark.as_deref();
    let text = text.expect("an answer carries a bookmark");
    text.parse().expect("a node's bookmark is well-formed")
}

fn rows(answers: &Answers) -> Vec<Entry> {
    let whole = |number: i64| u64::try_from(number).expect("none is negative");
    let entry = |row: &Vec<Value>| match row[..] {
        [Value::Integer(place), Value::Integer(value)] => Entry {
            place: whole(place),
            value: whole(value),
        },
        _ => panic!("a read returned {row:?}"),
    };
    answers.results[0].rows.iter().map(entry).collect()
}

fn node(answers: &Answers) -> String {
    let served_by = answers.served_by.as_ref();
    served_by.expect("an answer says who gave it").node.clone()
}
