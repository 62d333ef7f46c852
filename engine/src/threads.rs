//! The threads that run SQL, as a handle.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::Thread;

use futures_channel::oneshot;

/// The threads that run SQL.
pub trait Threads: Send + Sync + 'static {
    /// Runs `job` on some thread, soon. Jobs may block.
    fn run(&self, job: Box<dyn FnOnce() + Send>);

    /// Has a job wait for what comes from outside: the network, or another job. A simulation, in which one thread
    /// runs at a time, lets others run meanwhile.
    fn wait(&self, mut until: Pin<&mut (dyn Future<Output = ()> + Send)>) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        while until.as_mut().poll(&mut context).is_pending() {
            std::thread::park();
        }
    }
}

/// What `future` comes to, waited for in a job on `threads`.
pub fn wait_on<T: Send>(threads: &dyn Threads, future: impl Future<Output = T> + Send) -> T {
    let mut output = None;
    threads.wait(pin!(async {
        output = Some(future.await);
    }));
    output.expect("the wait is over when the future is")
}

/// Runs something that blocks on `threads`. `None` if it panicked, or if nothing runs any more.
pub async fn on_thread<T: Send + 'static>(
    threads: &dyn Threads,
    job: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    threads.run(Box::new(move || {
        // Whoever is gone wants no result.
        let _ = done.send(job());
    }));
    result.await.ok()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
