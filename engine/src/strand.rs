//! An actor without a thread of its own.
#![allow(unused_variables, clippy::unimplemented)]

use std::sync::Arc;

/// The threads that run SQL, as a handle.
pub trait Threads: Send + Sync + 'static {
    /// Runs `job` on some thread, soon. Jobs may block.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

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

/// A `T` with a queue of jobs that run one after the other, on [`Threads`] only while jobs wait.
#[derive(Debug)]
pub struct Strand<T> {
    _private: std::marker::PhantomData<Arc<T>>,
}

impl<T> Clone for Strand<T> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

impl<T: Send + 'static> Strand<T> {
    /// Makes `value` an actor whose queue holds `jobs_max` jobs of [`Strand::try_post`].
    pub fn new(value: T, threads: Arc<dyn Threads>, jobs_max: usize) -> Self {
        unimplemented!()
    }

    /// Queues a job whatever the length of the queue: for jobs that shrink other queues, such as
    /// acknowledgements.
    pub fn post(&self, job: impl FnOnce(&mut T) + Send + 'static) -> Result<(), PostError> {
        unimplemented!()
    }

    /// Queues a job unless the queue is at its bound.
    pub fn try_post(&self, job: impl FnOnce(&mut T) + Send + 'static) -> Result<(), PostError> {
        unimplemented!()
    }

    /// Jobs queued.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Whether no job is queued.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// Whether a job panicked: the value is gone for good.
    pub fn is_poisoned(&self) -> bool {
        unimplemented!()
    }
}
