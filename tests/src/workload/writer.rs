//! A writer: one value after another.

use tidemark_client::Client;

use super::Carried;
use super::worker::Worker;

/// Writes until told to stop: through `own`, or a client picked anew for each try.
pub(super) async fn run(mut worker: Worker, own: Option<Client>) -> Carried {
    while !worker.stopped() {
        let value = worker.value();
        worker.write(own.as_ref(), None, value).await;
        worker.rest().await;
    }
    worker.carried
}
