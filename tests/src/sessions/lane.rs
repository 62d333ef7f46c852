//! One after the other of a session's requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::door::Door;
use super::token::Token;
use crate::api::Api;
use crate::history::{Acknowledgement, Entry, Fate, Read, Recorder, Write};

const INSERT: &str = "INSERT INTO entries (value) VALUES (?) RETURNING place";
/// Rows that a read looks at.
const NEWEST: &str = "SELECT place, value FROM entries ORDER BY place DESC LIMIT 8";
/// Values per lane: each has its own.
const VALUES_MAX: u64 = 1_000_000;
/// Reads per write, on average.
const READS: u32 = 3;
/// One read in so many over the REST API would rather fail than be late.
const IMPATIENT: u32 = 8;
const IMPATIENCE: [(&str, &str); 2] = [
    ("tidemark-deadline", "200ms"),
    ("tidemark-on-miss", "error"),
];
/// What all others allow: several round trips on the longest way, and not for ever when nothing flows.
const PATIENCE: [(&str, &str); 1] = [("tidemark-deadline", "2s")];

/// A client that does one thing at a time, in a session that may have others.
pub(super) struct Lane {
    pub(super) session: u32,
    /// Its own, among those of all sessions.
    pub(super) number: u32,
    pub(super) doors: &'static [Door],
    pub(super) token: Arc<Token>,
    pub(super) nodes: Arc<[Api]>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) rest: Duration,
    pub(super) random: fastrand::Rng,
}

impl Lane {
    /// Goes on until told to stop.
    pub(super) async fn run(mut self) {
        let mut written = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let door = *self.random.choice(self.doors).expect("a door at least");
            let node = self.random.choice(self.nodes.iter());
            let node = node.expect("there are nodes").clone();
            if self.random.u32(..=READS) == 0 {
                assert!(written < VALUES_MAX, "lane {} wrote too much", self.number);
                let value = u64::from(self.number) * VALUES_MAX + written;
                written += 1;
                self.write(door, &node, value).await;
            } else {
                self.read(door, &node).await;
            }
            let rest = self.rest.mul_f64(2.0 * self.random.f64());
            tokio::time::sleep(rest).await;
        }
    }

    // What is answered before another request begins must be in the token that that one takes: so the
    // beginning is noted before the token is taken, and the end after it was given back.

    async fn write(&mut self, door: Door, node: &Api, value: u64) {
        let invoked = self.recorder.now();
        let (token, _) = self.token.now();
        let told = door
            .ask(node, (INSERT, &[value]), &["place"], (&token, &PATIENCE))
            .await;
        let fate = match told {
            Ok(told) => {
                self.token.observe(&told.bookmark);
                let [row] = &told.rows[..] else {
                    panic!("an insert returned {:?}", told.rows)
                };
                Fate::Committed(Acknowledgement {
                    place: row.first().copied(),
                    position: Some(told.bookmark.claimed()),
                    node: told.node,
                    repeated: false,
                })
            }
            Err(refused) => {
                self.recorder.refused(format!("write, {}", refused.reason));
                if refused.in_doubt {
                    Fate::Unknown
                } else {
                    Fate::Failed
                }
            }
        };
        self.recorder.wrote(Write {
            value,
            request: None,
            session: Some(self.session),
            invoked,
            returned: self.recorder.now(),
            fate,
        });
    }

    async fn read(&mut self, door: Door, node: &Api) {
        let impatient = door == Door::Rest && self.random.u32(..IMPATIENT) == 0;
        let more: &[(&str, &str)] = if impatient { &IMPATIENCE } else { &PATIENCE };
        let invoked = self.recorder.now();
        let (token, asked) = self.token.now();
        let told = door
            .ask(node, (NEWEST, &[]), &["place", "value"], (&token, more))
            .await;
        match told {
            Ok(told) => {
                self.token.observe(&told.bookmark);
                let entry = |row: &Vec<u64>| Entry {
                    place: row[0],
                    value: row[1],
                };
                self.recorder.read(Read {
                    session: Some(self.session),
                    asked,
                    invoked,
                    returned: self.recorder.now(),
                    position: told.bookmark.claimed(),
                    newest: told.rows.iter().map(entry).collect(),
                    node: told.node,
                });
            }
            Err(refused) => {
                self.recorder.refused(format!("read, {}", refused.reason));
            }
        }
    }
}
