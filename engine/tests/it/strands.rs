//! Strands: order, bounds, panics, fairness.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemark_engine::{PostError, Strand, Threads};

const PATIENCE: Duration = Duration::from_secs(20);

/// A thread per job.
struct Spawn;

impl Threads for Spawn {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        std::thread::spawn(job);
    }
}

/// Keeps jobs until the test runs them.
#[derive(Default)]
struct ByHand(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl ByHand {
    fn run_one(&self) -> bool {
        let mut jobs = self.0.lock().unwrap();
        if jobs.is_empty() {
            return false;
        }
        let job = jobs.remove(0);
        drop(jobs);
        job();
        true
    }
}

impl Threads for ByHand {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap().push(job);
    }
}

#[test]
fn jobs_run_one_after_the_other_in_order() {
    let strand = Strand::new(Vec::new(), Arc::new(Spawn), 1000);
    for i in 0..500 {
        strand
            .try_post(move |list: &mut Vec<i32>| list.push(i))
            .unwrap();
    }
    let (send, receive) = mpsc::channel();
    strand
        .post(move |list| send.send(list.clone()).unwrap())
        .unwrap();
    let list = receive.recv_timeout(PATIENCE).unwrap();
    assert!(list.into_iter().eq(0..500));
}

#[test]
fn a_full_queue_refuses_but_takes_what_must_not_be_refused() {
    let threads = Arc::new(ByHand::default());
    let strand = Strand::new(0, threads.clone(), 2);
    for _ in 0..2 {
        strand.try_post(|n| *n += 1).unwrap();
    }
    assert_eq!(strand.try_post(|_| {}), Err(PostError::Full { max: 2 }));
    strand.post(|n| assert_eq!(*n, 2)).unwrap();
    assert_eq!(strand.len(), 3);
    while threads.run_one() {}
    assert!(strand.is_empty() && !strand.is_poisoned());
    strand.try_post(|_| {}).unwrap();
}

#[test]
fn an_idle_strand_asks_for_no_thread_and_a_busy_one_lets_others_in() {
    let threads = Arc::new(ByHand::default());
    let busy = Strand::new(0, threads.clone(), 1000);
    let other = Strand::new(0, threads.clone(), 1000);
    assert!(!threads.run_one());
    for _ in 0..200 {
        busy.try_post(|n| *n += 1).unwrap();
    }
    other.try_post(|n| *n += 1).unwrap();
    assert!(threads.run_one());
    assert!(!busy.is_empty(), "one turn is bounded");
    assert!(threads.run_one());
    assert!(other.is_empty(), "the other had its turn");
    while threads.run_one() {}
    assert!(busy.is_empty());
}

/// What is put off from job to job must not wait behind other strands.
#[test]
fn a_value_is_told_when_its_thread_leaves_it() {
    let threads = Arc::new(ByHand::default());
    // Jobs since the last rest, and what they were at each.
    let strand = Strand::with_rest((0, Vec::new()), threads.clone(), 1000, |(jobs, rests)| {
        rests.push(std::mem::take(jobs));
    });
    for _ in 0..50 {
        strand.try_post(|(jobs, _)| *jobs += 1).unwrap();
    }
    while threads.run_one() {}
    let (send, receive) = mpsc::channel();
    strand
        .post(move |(_, rests)| send.send(rests.clone()).unwrap())
        .unwrap();
    while threads.run_one() {}
    let rests: Vec<i32> = receive.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rests.iter().sum::<i32>(), 50);
    assert_eq!(rests.len(), 2, "one per turn");
}

#[test]
fn a_panic_poisons_and_drops_what_waits() {
    let threads = Arc::new(ByHand::default());
    let strand = Strand::new(0, threads.clone(), 10);
    let (send, receive) = mpsc::channel::<()>();
    strand.post(|_| panic!("on purpose")).unwrap();
    strand.post(move |_| send.send(()).unwrap()).unwrap();
    while threads.run_one() {}
    assert!(strand.is_poisoned());
    assert_eq!(
        receive.recv_timeout(PATIENCE),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
    assert_eq!(strand.post(|_| {}), Err(PostError::Poisoned));
}
