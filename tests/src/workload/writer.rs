//! A writer: one value after another.

use tidemark_client::Client;

use super::worker::Worker;

/// Writes until told to stop: through `own`, or a client picked anew for each try.
pub(super) async fn run(mut worker: Worker, own: Option<Client>) {
    for n in 0.. {
        if worker.stopped() {
            return;
        }
        let value = worker.value(n);
        worker.write(own.as_ref(), None, value).await;
        worker.rest().await;
    }
}
