//! Looking for the node that leads, while an election goes on.

use std::time::Duration;

use tidemark_protocol::Node;
use tokio::time::{Instant, sleep};

use crate::ask::Ask;

/// First pause between two looks; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(160);
/// Longest search, also where a leader is known that cannot be reached from here.
const SEARCH_MAX: Duration = Duration::from_secs(4);

/// One request's search for the node that leads. Never beyond its deadline.
pub(crate) struct Search {
    expires: Instant,
    begun: Option<Instant>,
    pause: Duration,
}

impl Search {
    /// For a request.
    pub(crate) fn new(ask: &Ask) -> Self {
        Self {
            expires: ask.expires,
            begun: None,
            pause: PAUSE_MIN,
        }
    }

    /// Whether to look again, after a pause.
    pub(crate) async fn goes_on<N: Node>(&mut self, node: &N) -> bool {
        let now = Instant::now();
        let until = *self.begun.get_or_insert(now) + SEARCH_MAX;
        if node.patience().is_zero() || now + self.pause >= until.min(self.expires) {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}
