//! Whether a node that takes its time still lives.
//!
//! A machine that lost its power or its network says nothing when it goes: a request on an open connection to
//! it would hang until its deadline, with other nodes at hand. So a node that is silent is asked for a sign of
//! life beside the request; one that gives it may take as long as it wants. So may one that takes no more connections:
//! it stops in order, and answers what it has.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use crate::atlas::NodeUrl;
use crate::client::Client;

/// Silence before a sign of life is asked for, and the pause before the next.
const SILENCE: Duration = Duration::from_millis(500);
/// Time for it to come: a round trip around the world, and a connection.
const LIFE_WAIT: Duration = Duration::from_secs(1);

impl Client {
    /// Resolves when the node gives no sign of life, if there are others to turn to.
    pub(crate) async fn gone(&self, node: &NodeUrl) {
        if self.nodes().count() < 2 {
            return std::future::pending().await;
        }
        let url = format!("{node}/health");
        loop {
            sleep(SILENCE).await;
            // Any answer is one, and it needs no token.
            let question = self.http().get(&url).timeout(LIFE_WAIT);
            if question.send().await.is_err_and(|error| is_silence(&error)) {
                return;
            }
        }
    }
}

/// Whether nothing came back. A refused connection is a sign of life of the machine: were the process gone as
/// well, the connection that the request went out on would have broken.
fn is_silence(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
        ) {
            return false;
        }
        cause = error.source();
    }
    error.is_timeout() || error.is_connect()
}
