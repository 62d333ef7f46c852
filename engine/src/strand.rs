//! An actor without a thread of its own.
//!
//! Thousands of databases are open on a node and almost all are idle. A thread or a task each would
//! cost memory and wake-ups; a [`Strand`] costs its value and an empty queue. It borrows a thread from
//! [`Threads`] when a job arrives, runs a bounded number of jobs, and lets other strands have a turn.
//!
//! Invariant: `scheduled` is true exactly while a turn is queued at `Threads` or running, so at most one
//! thread has the value, and no job waits without a turn coming.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::threads::Threads;

/// Jobs of one turn. Then other strands are let in.
const JOBS_PER_TURN: usize = 32;

/// A job was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The queue is at its bound.
    #[error("{max} jobs are queued")]
    Full {
        /// The bound.
        max: usize,
    },
    /// An earlier job panicked.
    #[error("an earlier job panicked")]
    Poisoned,
}

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A `T` with a queue of jobs that run one after the other, on [`Threads`] only while jobs wait.
///
/// Clones are handles to the same value, which is dropped with the last of them (and the last job).
pub struct Strand<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    threads: Arc<dyn Threads>,
    jobs_max: usize,
    /// Called with the value at the end of each turn.
    rest: fn(&mut T),
    state: Mutex<State<T>>,
}

struct State<T> {
    /// `None` while a turn has it, and for good after a panic.
    value: Option<T>,
    jobs: VecDeque<Job<T>>,
    scheduled: bool,
    poisoned: bool,
}

impl<T> Clone for Strand<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T> fmt::Debug for Strand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state();
        f.debug_struct("Strand")
            .field("jobs", &state.jobs.len())
            .field("scheduled", &state.scheduled)
            .field("poisoned", &state.poisoned)
            .finish()
    }
}

impl<T: Send + 'static> Strand<T> {
    /// Makes `value` an actor whose queue holds `jobs_max` jobs of [`Strand::try_post`].
    pub fn new(value: T, threads: Arc<dyn Threads>, jobs_max: usize) -> Self {
        Self::with_rest(value, threads, jobs_max, |_| {})
    }

    /// The same for a value that puts things off from job to job: `rest` is called when its thread is about to
    /// leave it, because no job waits or because others are let in. The next may be long in coming.
    pub fn with_rest(
        value: T,
        threads: Arc<dyn Threads>,
        jobs_max: usize,
        rest: fn(&mut T),
    ) -> Self {
        let state = State {
            value: Some(value),
            jobs: VecDeque::new(),
            scheduled: false,
            poisoned: false,
        };
        Self {
            inner: Arc::new(Inner {
                threads,
                jobs_max,
                rest,
                state: Mutex::new(state),
            }),
        }
    }

    /// Queues a job whatever the length of the queue: for jobs that are bounded elsewhere and must not
    /// be refused, such as acknowledgements.
    pub fn post(&self, job: impl FnOnce(&mut T) + Send + 'static) -> Result<(), PostError> {
        Inner::push(&self.inner, Box::new(job), usize::MAX)
    }

    /// Queues a job unless the queue is at its bound.
    pub fn try_post(&self, job: impl FnOnce(&mut T) + Send + 'static) -> Result<(), PostError> {
        Inner::push(&self.inner, Box::new(job), self.inner.jobs_max)
    }

    /// Jobs queued.
    pub fn len(&self) -> usize {
        self.inner.state().jobs.len()
    }

    /// Whether no job is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no job is queued, none runs, and no thread is about to look for one.
    pub fn is_at_rest(&self) -> bool {
        !self.inner.state().scheduled
    }

    /// Whether a job panicked: the value is gone for good.
    pub fn is_poisoned(&self) -> bool {
        self.inner.state().poisoned
    }
}

impl<T> Inner<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Jobs run without the lock, so every critical section is ours and leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Inner<T> {
    fn push(this: &Arc<Self>, job: Job<T>, max: usize) -> Result<(), PostError> {
        let mut state = this.state();
        if state.poisoned {
            return Err(PostError::Poisoned);
        }
        if state.jobs.len() >= max {
            return Err(PostError::Full { max });
        }
        state.jobs.push_back(job);
        if !std::mem::replace(&mut state.scheduled, true) {
            drop(state);
            Self::schedule(this);
        }
        Ok(())
    }

    fn schedule(this: &Arc<Self>) {
        let turn = this.clone();
        this.threads.run(Box::new(move || Self::turn(&turn)));
    }

    /// Runs some jobs, then either rests or queues up again.
    fn turn(this: &Arc<Self>) {
        let Some(mut value) = this.state().value.take() else {
            return;
        };
        for _ in 0..JOBS_PER_TURN {
            let Some(job) = this.state().jobs.pop_front() else {
                break;
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(&mut value))) {
                return this.poison(&*panic);
            }
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (this.rest)(&mut value))) {
            return this.poison(&*panic);
        }
        let mut state = this.state();
        state.value = Some(value);
        state.scheduled = !state.jobs.is_empty();
        if state.scheduled {
            drop(state);
            Self::schedule(this);
        }
    }

    /// The value may be half changed: it goes, and so do the jobs that wait, whose own answers to
    /// whoever posted them break off as they are dropped.
    fn poison(&self, panic: &(dyn Any + Send)) {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(message, "a job panicked: its strand takes no more");
        let jobs = {
            let mut state = self.state();
            state.poisoned = true;
            std::mem::take(&mut state.jobs)
        };
        drop(jobs);
    }
}
