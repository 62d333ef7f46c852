//! Asking the threads that may block.

use tidemark_engine::Threads;
use tokio::sync::oneshot;

/// Runs something that blocks on `threads`. `None` if it panicked, or if nothing runs any more.
pub(crate) async fn on_thread<T: Send + 'static>(
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
