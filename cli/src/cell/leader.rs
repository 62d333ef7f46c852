//! Asking whoever leads.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemark_protocol::cell::{CellRefusal, CellRefusalCode};
use tidemark_protocol::headers::LEADER;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Secret;

/// Pause before asking again.
const AGAIN: Duration = Duration::from_millis(300);
/// Time for a connection to come about.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Time for one answer. Longer than a leader takes on itself.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// The leader of a cell, found by way of its members.
#[derive(Debug)]
pub(super) struct Leader {
    client: reqwest::Client,
    secret: Option<String>,
    given: Vec<String>,
    /// Whom to ask next: where a member sent us, then the given ones in turn.
    next: VecDeque<String>,
    until: Instant,
}

/// The cell did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum CellError {
    #[error("the cell refuses")]
    Refused(#[source] CellRefusal),
    #[error("it was not done in time; the last answer")]
    Late(#[source] CellRefusal),
    #[error("no member of the cell answers: {reason}")]
    Silent { reason: String },
    #[error("'{url}' does not answer as a member of a cell does: {reason}")]
    Strange { url: String, reason: String },
}

impl Leader {
    pub(super) fn new(given: Vec<String>, secret: Option<&Secret>, until: Instant) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WAIT)
            .timeout(ANSWER_WAIT)
            .build()
            .expect("no option of this client can be wrong");
        Self {
            client,
            secret: secret.map(|secret| secret.reveal().to_owned()),
            next: given.iter().cloned().collect(),
            given,
            until,
        }
    }

    /// Asks until it is done, refused for good, or too late.
    pub(super) async fn ask<A: DeserializeOwned>(
        &mut self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<A, CellError> {
        let body = serde_json::to_vec(request).expect("plain fields");
        let mut last = CellError::Silent {
            reason: "there was no time to ask".to_owned(),
        };
        while Instant::now() < self.until {
            let Some(url) = self.next.pop_front() else {
                self.next.extend(self.given.iter().cloned());
                sleep(AGAIN).await;
                continue;
            };
            let once = self.ask_once(&url, path, body.clone());
            let Ok(answer) = timeout_at(self.until, once).await else {
                break;
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err((CellError::Refused(refusal), _)) if !refusal.code.retryable() => {
                    return Err(CellError::Refused(refusal));
                }
                Err((error, leader)) => {
                    let handed_over = leader.is_some();
                    self.next.extend(leader);
                    last = if let CellError::Refused(refusal) = error {
                        CellError::Late(refusal)
                    } else {
                        error
                    };
                    if handed_over {
                        sleep(AGAIN).await;
                    }
                }
            }
        }
        Err(last)
    }

    async fn ask_once<A: DeserializeOwned>(
        &self,
        url: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<A, (CellError, Option<String>)> {
        let silent = |error: &reqwest::Error| {
            let reason = format!("{url}: {error}");
            (CellError::Silent { reason }, None)
        };
        let request = self
            .client
            .post(format!("{}{path}", url.trim_end_matches('/')));
        let request = match &self.secret {
            Some(secret) => request.bearer_auth(secret),
            None => request,
        };
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(|error| silent(&error))?;
        let status = response.status();
        let leader = response.headers().get(LEADER);
        let leader = leader
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let text = response.bytes().await.map_err(|error| silent(&error))?;
        let strange = |reason: String| {
            let url = url.to_owned();
            (CellError::Strange { url, reason }, None)
        };
        if status.is_success() {
            return serde_json::from_slice(&text).map_err(|error| strange(error.to_string()));
        }
        let refusal: CellRefusal =
            serde_json::from_slice(&text).map_err(|_| strange(format!("status {status}")))?;
        let leader = leader.filter(|_| refusal.code == CellRefusalCode::NotLeader);
        Err((CellError::Refused(refusal), leader))
    }
}
