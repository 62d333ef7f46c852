//! Threads that take turns: jobs that may block, one at a time, while the simulation stands still.
//!
//! A job runs on a thread of its own, but only while the runtime of its node waits for it: the two pass a baton. A
//! job that waits for something from outside ([`Threads::wait`]) gives the baton back and gets it again when that
//! may be there. So nothing ever happens at the same time as anything else, and a seed replays.
//!
//! The node of a job may crash while the job waits. It is then [`Abandoned`]: [`Stage::settle`] gives it the baton
//! once more, so that it finds nobody at the other end and comes to its end.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidemark_engine::Threads;
use tokio::runtime::Handle;
use tokio::time::sleep;

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// The worker that this thread is.
    static WORKER: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

/// Ends a job whose node is gone; no failure of anybody's.
struct Abandoned;

/// The workers of a simulation that are at rest, and those that were left alone.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    idle: Mutex<Vec<Arc<Worker>>>,
    abandoned: Mutex<Vec<Arc<Worker>>>,
}

/// One thread.
#[derive(Debug)]
struct Worker {
    turn: Mutex<Turn>,
    changed: Condvar,
    /// Has the errand that brought its job look again.
    waker: Mutex<Waker>,
}

/// Who has the baton, and what for.
#[derive(Default)]
enum Turn {
    /// The simulation; the worker has nothing to do.
    #[default]
    Rest,
    /// The worker, to begin this.
    Begin(Job, Handle),
    /// The worker, to look whether what it waits for is there.
    GoOn,
    /// The worker, at work.
    Working,
    /// The simulation, until what the worker waits for may be there.
    Waiting,
    /// The worker, whose node is gone.
    Leave,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turn")
    }
}

impl Stage {
    /// Lets jobs whose node crashed while they waited come to their end.
    pub(crate) fn settle(&self) {
        loop {
            let abandoned = std::mem::take(&mut *lock(&self.abandoned));
            if abandoned.is_empty() {
                return;
            }
            for worker in abandoned {
                let waits = worker.give(Turn::Leave);
                assert!(!waits, "a job of a node that is gone went on to wait");
                lock(&self.idle).push(worker);
            }
        }
    }

    fn worker(&self) -> Arc<Worker> {
        if let Some(worker) = lock(&self.idle).pop() {
            return worker;
        }
        let worker = Arc::new(Worker {
            turn: Mutex::default(),
            changed: Condvar::new(),
            waker: Mutex::new(Waker::noop().clone()),
        });
        let thread = std::thread::Builder::new().name("job".to_owned());
        let spawned = thread.spawn({
            let worker = Arc::clone(&worker);
            move || worker.work()
        });
        // It ends with the process, and is at rest before.
        drop(spawned.expect("a thread"));
        worker
    }
}

impl Worker {
    /// Gives the baton to the worker; returns when it is back: true if the worker waits for something.
    fn give(&self, what: Turn) -> bool {
        let mut turn = lock(&self.turn);
        *turn = what;
        self.changed.notify_all();
        let turn = self
            .changed
            .wait_while(turn, |turn| !matches!(turn, Turn::Rest | Turn::Waiting));
        let turn = turn.unwrap_or_else(PoisonError::into_inner);
        matches!(*turn, Turn::Waiting)
    }

    /// Gives the baton back; returns what the next one is for.
    fn give_back(&self, what: Turn) -> Turn {
        let mut turn = lock(&self.turn);
        *turn = what;
        self.changed.notify_all();
        let turn = self
            .changed
            .wait_while(turn, |turn| matches!(turn, Turn::Rest | Turn::Waiting));
        let mut turn = turn.unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut turn, Turn::Working)
    }

    fn work(self: Arc<Self>) {
        WORKER.with(|own| own.replace(Some(Arc::clone(&self))));
        let mut turn = lock(&self.turn);
        turn = self
            .changed
            .wait_while(turn, |turn| matches!(turn, Turn::Rest))
            .unwrap_or_else(PoisonError::into_inner);
        let mut next = std::mem::replace(&mut *turn, Turn::Working);
        drop(turn);
        loop {
            if let Turn::Begin(job, runtime) = next {
                let _entered = runtime.enter();
                // Told by the hook already, and as in production the affair of whoever waits for the job.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
            next = self.give_back(Turn::Rest);
        }
    }

    fn wait(&self, mut until: Pin<&mut (dyn Future<Output = ()> + Send)>) {
        loop {
            let waker = lock(&self.waker).clone();
            let mut context = Context::from_waker(&waker);
            if until.as_mut().poll(&mut context).is_ready() {
                return;
            }
            if !matches!(self.give_back(Turn::Waiting), Turn::GoOn) {
                // Whoever was to bring it is gone.
                if until.as_mut().poll(&mut context).is_pending() {
                    resume_unwind(Box::new(Abandoned));
                }
                return;
            }
        }
    }
}

/// A job on its way, as a task of its node's runtime.
struct Errand {
    stage: Arc<Stage>,
    job: Option<(Job, Handle)>,
    /// At work, while it waits for something.
    worker: Option<Arc<Worker>>,
}

impl Future for Errand {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (worker, turn) = match (self.worker.take(), self.job.take()) {
            (Some(worker), _) => (worker, Turn::GoOn),
            (None, Some((job, runtime))) => (self.stage.worker(), Turn::Begin(job, runtime)),
            (None, None) => return Poll::Ready(()),
        };
        context.waker().clone_into(&mut lock(&worker.waker));
        if worker.give(turn) {
            self.worker = Some(worker);
            return Poll::Pending;
        }
        lock(&self.stage.idle).push(worker);
        Poll::Ready(())
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            lock(&self.stage.abandoned).push(worker);
        }
    }
}

/// The threads of one life of a node.
pub(crate) struct TakingTurns {
    stage: Arc<Stage>,
    runtime: Handle,
    pauses: Mutex<fastrand::Rng>,
    /// Longest that a job waits for a thread.
    pause_max: Duration,
}

impl TakingTurns {
    /// On the runtime that runs the caller.
    pub(crate) fn new(stage: Arc<Stage>, pauses: fastrand::Rng, pause_max: Duration) -> Self {
        Self {
            stage,
            runtime: Handle::current(),
            pauses: Mutex::new(pauses),
            pause_max,
        }
    }
}

impl Threads for TakingTurns {
    fn run(&self, job: Job) {
        let pause = self.pause_max.mul_f64(lock(&self.pauses).f64());
        let errand = Errand {
            stage: Arc::clone(&self.stage),
            job: Some((job, self.runtime.clone())),
            worker: None,
        };
        self.runtime.spawn(async move {
            // Half of them find a thread at once.
            if pause * 2 > Duration::from_millis(1) {
                sleep(pause).await;
            }
            errand.await;
        });
    }

    fn wait(&self, until: Pin<&mut (dyn Future<Output = ()> + Send)>) {
        let worker = WORKER.with(|own| own.borrow().clone());
        let worker = worker.expect("only jobs wait, and they run on workers");
        worker.wait(until);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
