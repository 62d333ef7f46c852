//! What runs, what it has said since it was last asked, and how it ended: of each database one job runs at most.
//!
//! A client names its job by the bookmark that it was given, which no two jobs have that are known at the same
//! time. An answer may be lost on its way, so an end is told again for [`REPEATED`] after the first time; one that
//! nobody asks for is forgotten after [`KEPT`]. Time is the caller's.

use std::collections::HashMap;
use std::time::Duration;

use tidemark_protocol::{Bookmark, DatabaseId};
use tokio::time::Instant;

/// How long an end is kept that nobody asks for.
pub(super) const KEPT: Duration = Duration::from_secs(600);
/// How long an end is told again: as long as a client may wait for an answer that was lost.
pub(super) const REPEATED: Duration = Duration::from_secs(30);
/// Remarks kept until somebody asks; the oldest go.
const UNREAD_MAX: usize = 100;
/// Ends kept of one database; the oldest go.
const ENDS_MAX: usize = 16;

/// The jobs of one kind. `K` says what one is about, `R` is what one comes to.
#[derive(Debug)]
pub(super) struct Jobs<K, R> {
    /// Oldest first.
    of: HashMap<DatabaseId, Vec<Job<K, R>>>,
    begun: u64,
}

/// Names a job.
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
    at: String,
    unread: Vec<String>,
    asked: Instant,
    end: Option<End<R>>,
}

#[derive(Debug)]
struct End<R> {
    outcome: Result<R, String>,
    ended: Instant,
    /// When somebody was told first.
    told: Option<Instant>,
}

/// How far a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Running,
    /// It went well, and nobody knows yet.
    Done,
    /// It failed, or somebody knows how it ended.
    Over,
}

/// What a job tells whoever asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Told<R> {
    /// The state that it began with, by which a client names it.
    pub(super) at: String,
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

impl<K, R> Job<K, R> {
    fn is_known(&self, now: Instant) -> bool {
        self.end.as_ref().is_none_or(|end| {
            let repeated = end.told.is_none_or(|told| now < told + REPEATED);
            now < end.ended + KEPT && repeated
        })
    }

    fn stage(&self) -> Stage {
        match &self.end {
            None => Stage::Running,
            Some(end) if end.outcome.is_ok() && end.told.is_none() => Stage::Done,
            Some(_) => Stage::Over,
        }
    }
}

impl<K: PartialEq, R: Clone> Jobs<K, R> {
    /// Begins one, from this state.
    pub(super) fn begin(
        &mut self,
        database: DatabaseId,
        key: K,
        at: Bookmark,
        now: Instant,
    ) -> Result<JobId, Busy> {
        if self.is_running(database) {
            return Err(Busy);
        }
        self.of.retain(|_, jobs| {
            jobs.retain(|job| job.is_known(now));
            !jobs.is_empty()
        });
        self.begun += 1;
        let number = self.begun;
        let jobs = self.of.entry(database).or_default();
        if jobs.len() == ENDS_MAX {
            jobs.remove(0);
        }
        let mut at = at.to_string();
        // Whoever asks about the other one must not be told of this one.
        if jobs.iter().any(|job| job.at == at) {
            at = format!("{at}-{number:x}");
        }
        jobs.push(Job {
            number,
            key,
            at,
            unread: Vec::new(),
            asked: now,
            end: None,
        });
        Ok(JobId { database, number })
    }

    /// Whether any job of the database runs.
    pub(super) fn is_running(&self, database: DatabaseId) -> bool {
        let mut jobs = self.of.get(&database).into_iter().flatten();
        jobs.any(|job| job.end.is_none())
    }

    /// Whether this one runs.
    pub(super) fn runs(&self, id: JobId) -> bool {
        let mut jobs = self.of.get(&id.database).into_iter().flatten();
        jobs.any(|job| job.number == id.number && job.end.is_none())
    }

    /// The newest job of this key.
    pub(super) fn about(
        &self,
        database: DatabaseId,
        key: &K,
        now: Instant,
    ) -> Option<(JobId, Stage)> {
        let jobs = self.of.get(&database)?.iter().rev();
        let mut jobs = jobs.filter(|job| job.key == *key && job.is_known(now));
        jobs.next().map(|job| {
            let number = job.number;
            (JobId { database, number }, job.stage())
        })
    }

    /// The job that a client was given this bookmark for.
    pub(super) fn named(&self, database: DatabaseId, at: &str, now: Instant) -> Option<JobId> {
        let mut jobs = self.of.get(&database)?.iter();
        let job = jobs.find(|job| job.at == at && job.is_known(now))?;
        let number = job.number;
        Some(JobId { database, number })
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

    /// Ends one, unless it has ended.
    pub(super) fn end(&mut self, id: JobId, outcome: Result<R, String>, now: Instant) {
        if let Some(job) = self.get(id).filter(|job| job.end.is_none()) {
            job.end = Some(End {
                outcome,
                ended: now,
                told: None,
            });
        }
    }

    /// Whether nobody has asked for this long.
    pub(super) fn is_unasked(&mut self, id: JobId, since: Duration, now: Instant) -> bool {
        self.get(id).is_none_or(|job| job.asked + since < now)
    }

    /// What there is to tell. An end comes with the same remarks each time.
    pub(super) fn ask(&mut self, id: JobId, now: Instant) -> Option<Told<R>> {
        let job = self.get(id).filter(|job| job.is_known(now))?;
        job.asked = now;
        let at = job.at.clone();
        let Some(end) = &mut job.end else {
            return Some(Told {
                at,
                messages: std::mem::take(&mut job.unread),
                end: None,
            });
        };
        end.told.get_or_insert(now);
        Some(Told {
            at,
            messages: job.unread.clone(),
            end: Some(end.outcome.clone()),
        })
    }

    fn get(&mut self, id: JobId) -> Option<&mut Job<K, R>> {
        let mut jobs = self.of.get_mut(&id.database)?.iter_mut();
        jobs.find(|job| job.number == id.number)
    }
}
