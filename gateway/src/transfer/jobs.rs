//! What runs, what it has said since it was last asked, and how it ended: at most one job per database.
//!
//! A job lives until somebody was told its end, or nobody asked for [`KEPT`]. Time is the caller's.

use std::collections::HashMap;
use std::time::Duration;

use tidemark_protocol::{Bookmark, DatabaseId};
use tokio::time::Instant;

/// How long an end is kept that nobody asks for.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// Remarks kept until somebody asks; the oldest go.
const UNREAD_MAX: usize = 100;

/// The jobs of one kind. `K` tells two of a database apart for a client, `R` is what one comes to.
#[derive(Debug)]
pub(super) struct Jobs<K, R> {
    of: HashMap<DatabaseId, Job<K, R>>,
    begun: u64,
}

/// Names a job for whoever runs it: a later one of the same database has another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct JobId {
    database: DatabaseId,
    number: u64,
}

/// Another job of this database runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Busy;

#[derive(Debug)]
struct Job<K, R> {
    number: u64,
    key: K,
    at: Bookmark,
    unread: Vec<String>,
    asked: Instant,
    end: Option<(Instant, Result<R, String>)>,
}

/// What a job tells whoever asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Told<R> {
    /// The state that it began with.
    pub(super) at: Bookmark,
    /// Remarks since the last time.
    pub(super) messages: Vec<String>,
    /// What it came to, or why it failed; none while it runs.
    pub(super) end: Option<Result<R, String>>,
}

impl<K, R> Default for Jobs<K, R> {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            begun: 0,
        }
    }
}

impl<K: PartialEq, R> Jobs<K, R> {
    /// Begins one, from this state. An end that nobody has asked for makes room.
    pub(super) fn begin(
        &mut self,
        database: DatabaseId,
        key: K,
        at: Bookmark,
        now: Instant,
    ) -> Result<JobId, Busy> {
        self.of.retain(|_, job| match job.end {
            Some((ended, _)) => now < ended + KEPT,
            None => true,
        });
        if self.is_running(database) {
            return Err(Busy);
        }
        self.begun += 1;
        let number = self.begun;
        let job = Job {
            number,
            key,
            at,
            unread: Vec::new(),
            asked: now,
            end: None,
        };
        self.of.insert(database, job);
        Ok(JobId { database, number })
    }

    pub(super) fn is_running(&self, database: DatabaseId) -> bool {
        let job = self.of.get(&database);
        job.is_some_and(|job| job.end.is_none())
    }

    /// Whether there is one of this key, running or with an end that nobody knows yet.
    pub(super) fn has(&self, database: DatabaseId, key: &K) -> bool {
        self.of.get(&database).is_some_and(|job| job.key == *key)
    }

    /// Adds a remark.
    pub(super) fn say(&mut self, id: JobId, message: impl Into<String>) {
        if let Some(job) = self.get(id) {
            if job.unread.len() == UNREAD_MAX {
                job.unread.remove(0);
            }
            job.unread.push(message.into());
        }
    }

    /// Ends one.
    pub(super) fn end(&mut self, id: JobId, end: Result<R, String>, now: Instant) {
        if let Some(job) = self.get(id) {
            job.end = Some((now, end));
        }
    }

    /// Whether nobody has asked for this long.
    pub(super) fn is_unasked(&mut self, id: JobId, since: Duration, now: Instant) -> bool {
        self.get(id).is_none_or(|job| job.asked + since < now)
    }

    /// What there is to tell; the end is told once.
    pub(super) fn ask(&mut self, database: DatabaseId, now: Instant) -> Option<Told<R>> {
        let job = self.of.get_mut(&database)?;
        job.asked = now;
        let told = Told {
            at: job.at,
            messages: std::mem::take(&mut job.unread),
            end: None,
        };
        let Some((ended, _)) = job.end else {
            return Some(told);
        };
        let job = self.of.remove(&database)?;
        if now >= ended + KEPT {
            return None;
        }
        let end = job.end.map(|(_, end)| end);
        Some(Told { end, ..told })
    }

    fn get(&mut self, id: JobId) -> Option<&mut Job<K, R>> {
        let job = self.of.get_mut(&id.database);
        job.filter(|job| job.number == id.number)
    }
}
