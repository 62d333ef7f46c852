//! What all clients have, and how they take an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemark_checker::{Acknowledgement, Asked, Fate, Read, Write};
use tidemark_protocol::{Bookmark, FailureKind, RequestId};
use tokio::time::sleep;

use super::door::{Answer, Ask, Door, Refusal};
use super::{DATABASE, Table};

const INSERT: &str = "INSERT INTO entries (value) VALUES (?) RETURNING place";
/// Rows that a read looks at.
const NEWEST: &str = "SELECT place, value FROM entries ORDER BY place DESC LIMIT 8";
/// Values per client: each has its own.
const VALUES_MAX: u64 = 1_000_000;
/// Chance that a write in doubt is given up.
const GIVE_UP: f64 = 0.25;

/// One client, of whatever kind.
pub(super) struct Worker {
    number: u32,
    pub(super) random: fastrand::Rng,
    table: Arc<Table>,
    door: Door,
    hosts: Vec<String>,
    /// Values written so far.
    written: u64,
}

impl Worker {
    pub(super) fn new(number: u32, random: fastrand::Rng, table: Arc<Table>, door: Door) -> Self {
        Self {
            number,
            random,
            hosts: table.layout.hosts(),
            table,
            door,
            written: 0,
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.table.stop.load(Ordering::Relaxed)
    }

    pub(super) async fn rest(&mut self) {
        let rest: Duration = self.table.rest.mul_f64(2.0 * self.random.f64());
        sleep(rest).await;
    }

    fn any(&mut self) -> String {
        let at = self.random.usize(..self.hosts.len());
        self.hosts[at].clone()
    }

    /// Writes a new value until its fate is known or it is given up. Returns the state after it, if it is known to
    /// count.
    pub(super) async fn write(&mut self, session: Option<&str>) -> Option<Bookmark> {
        let value = u64::from(self.number) * VALUES_MAX + self.written;
        self.written += 1;
        let uuid = uuid::Builder::from_random_bytes(self.random.u128(..).to_be_bytes());
        let request = RequestId::new(uuid.into_uuid());
        let invoked = self.table.recorder.now();
        let mut doubt = false;
        let mut reached = None;
        let fate = loop {
            let host = self.any();
            let mut ask = Ask::query(DATABASE, INSERT).value(value).named(request);
            if let Some(start) = session {
                ask = ask.bookmark(start);
            }
            let refusal = match self.door.ask(&host, ask).await {
                Ok(answer) => match acknowledgement(&answer) {
                    Ok(told) => {
                        reached = answer.bookmark().ok();
                        break Fate::Committed(told);
                    }
                    Err(reason) => {
                        self.table.watch.violate(&format!("{host}: {reason}"));
                        break Fate::Unknown;
                    }
                },
                Err(refusal) => refusal,
            };
            doubt |= self.may_have_happened(&host, "write", &refusal);
            if self.stopped() || !doubt || self.random.f64() < GIVE_UP {
                break if doubt { Fate::Unknown } else { Fate::Failed };
            }
            self.rest().await;
        };
        self.table.recorder.wrote(Write {
            value,
            request: Some(request),
            session: session.map(|_| self.number),
            invoked,
            returned: self.table.recorder.now(),
            fate,
        });
        reached
    }

    /// Reads once at some node, `asked` being what `start` asks for. Returns the state that was read.
    pub(super) async fn read(
        &mut self,
        start: Option<&str>,
        asked: Asked,
        in_session: bool,
    ) -> Option<Bookmark> {
        let host = self.any();
        let invoked = self.table.recorder.now();
        let ask = Ask::query(DATABASE, NEWEST);
        let ask = match start {
            Some("linearizable") => ask.linearizable(),
            Some(start) => ask.bookmark(start),
            None => ask,
        };
        let answer = match self.door.ask(&host, ask).await {
            Ok(answer) => answer,
            Err(refusal) => {
                self.may_have_happened(&host, "read", &refusal);
                return None;
            }
        };
        let noted = (|| {
            let bookmark = answer.bookmark()?;
            self.table.recorder.read(Read {
                session: in_session.then_some(self.number),
                asked,
                invoked,
                returned: self.table.recorder.now(),
                position: bookmark.claimed(),
                newest: answer.rows()?,
                node: answer.node()?,
            });
            Ok(bookmark)
        })();
        noted
            .map_err(|reason: String| self.table.watch.violate(&format!("{host}: {reason}")))
            .ok()
    }

    /// Takes note of a failure. One that no fault explains is a violation.
    fn may_have_happened(&self, host: &str, what: &str, refusal: &Refusal) -> bool {
        let (kind, may_have_happened) = match refusal {
            Refusal::Nobody => ("nobody", false),
            Refusal::Silence => ("silence", true),
            Refusal::Failed(kind, message) => {
                if !kind.retryable() {
                    let name = kind.name();
                    self.table
                        .watch
                        .violate(&format!("{host}, a {what}: {name}: {message}"));
                }
                (kind.name(), *kind == FailureKind::Unknown)
            }
            Refusal::Strange(text) => {
                self.table
                    .watch
                    .violate(&format!("{host}, a {what}: {text}"));
                ("strange", true)
            }
        };
        self.table.recorder.refused(format!("{what}: {kind}"));
        may_have_happened
    }
}

fn acknowledgement(answer: &Answer) -> Result<Acknowledgement, String> {
    let repeated = answer.is_repeated();
    let place = answer.json["result"][0]["results"][0]["place"].as_u64();
    if place.is_none() && !repeated {
        return Err(format!("an insert returned {}", answer.json));
    }
    Ok(Acknowledgement {
        place,
        position: answer.bookmark().ok().map(|bookmark| bookmark.claimed()),
        node: answer.node()?,
        repeated,
    })
}
