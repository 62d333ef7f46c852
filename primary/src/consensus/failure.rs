//! The first error that this node's consensus cannot survive. It stays.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Set once, by whoever fails first: the log, the machine, the core task.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    first: Arc<watch::Sender<Option<Fatal>>>,
}

/// What made consensus stop.
#[derive(Clone, Debug)]
pub(super) struct Fatal(Arc<str>);

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    pub(super) fn new() -> Self {
        Self {
            first: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Records `error` with its causes, unless there is one already.
    pub(super) fn set(&self, what: &str, error: &(dyn std::error::Error + 'static)) {
        let text = describe(what, error);
        self.first.send_if_modified(|first| {
            let unset = first.is_none();
            if unset {
                tracing::error!(error = text, "consensus failed");
                *first = Some(Fatal(text.into()));
            }
            unset
        });
    }

    pub(super) fn get(&self) -> Option<Fatal> {
        self.first.borrow().clone()
    }

    pub(super) fn is_set(&self) -> bool {
        self.first.borrow().is_some()
    }

    /// Resolves when there is one.
    pub(super) async fn wait(&self) -> Fatal {
        let mut changes = self.first.subscribe();
        let first = changes
            .wait_for(Option::is_some)
            .await
            .expect("self holds the sender");
        first.clone().expect("waited for it")
    }
}

/// `what`, the error and its causes, as one sentence.
pub(super) fn describe(what: &str, error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.fold(what.to_owned(), |text, cause| format!("{text}: {cause}"))
}
