//! One call: tries, waits between them, and the judgement what each failed try means.
//!
//! 1. [`Client::call`] sends the call under one request id to the preferred node.
//! 2. A try that fails becomes a [`Miss`]: did the request reach anybody, and may it have taken effect?
//! 3. Misses that can do no harm are tried again until the deadline: at once at the next node if the
//!    connection was refused or the node cannot do it, after a growing, jittered wait once all were asked and
//!    otherwise, and then never before `Retry-After`. The last node that answered well is asked first next time.
//! 4. What is left at the end is an [`Error`].
//!
//! Invariant: once a try ended in doubt, only a success settles it. A later refusal says nothing about
//! the earlier try, so the call stays [`Error::Unknown`].
//!
//! A session learns of the state that a try led to as soon as the head of the answer is there: a body that
//! breaks off or is too long loses the rows, never the session's place.
//!
//! Trap: a 5xx without `tidemark-failure` comes from something between us and the node, and promises
//! nothing. Only the node's own failures do, which their codes (79xx) tell where the header was lost.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use tidemark_protocol::contract::DEADLINE_MAX;
use tidemark_protocol::headers::{BOOKMARK, DEADLINE, FAILURE, REQUEST_ID};
use tidemark_protocol::{FailureKind, RequestId};
use tokio::time::{Instant, timeout};

use crate::atlas::NodeUrl;
use crate::client::Client;
use crate::error::Error;
use crate::session::SessionState;

/// A try with less time than this would sooner end in doubt than in an answer, so it is not made.
const TRY_MIN: Duration = Duration::from_millis(20);
/// The server is told a tenth less than what is left, so that its own verdict still arrives, but never
/// less by more than this.
const ANSWER_TRIP_MAX: Duration = Duration::from_millis(500);
/// Error codes of Tidemark's own, each of one kind.
const OWN_CODES: RangeInclusive<u32> = 7900..=7999;
/// Characters of a foreign error page that are worth repeating.
const FOREIGN_TEXT_MAX: usize = 200;

/// Whether a call can change anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// A mere question: a lost answer leaves no doubt behind.
    None,
    /// It may write.
    Possible,
}

/// What is asked of the cluster, the same at every try.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) request: RequestId,
    pub(crate) deadline: Duration,
    pub(crate) effect: Effect,
    /// The session that it is a part of.
    pub(crate) session: Option<Arc<SessionState>>,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) headers: HeaderMap,
    body: Bytes,
    pub(crate) attempts: u32,
}

impl Reply {
    /// Of a first try.
    pub(crate) fn new(headers: HeaderMap, body: Bytes) -> Self {
        Self {
            headers,
            body,
            attempts: 1,
        }
    }

    /// The state that was read or written.
    pub(crate) fn bookmark(&self) -> Option<&str> {
        bookmark(&self.headers)
    }

    /// The whole v4 envelope as `E`.
    pub(crate) fn envelope<E: DeserializeOwned>(&self) -> Result<E, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::decode(error.to_string()))
    }

    /// What the v4 envelope holds.
    pub(crate) fn result<T: DeserializeOwned>(&self) -> Result<T, Error> {
        #[derive(Deserialize)]
        struct Envelope<T> {
            result: T,
        }

        self.envelope::<Envelope<T>>()
            .map(|envelope| envelope.result)
    }
}

/// A try without an answer.
#[derive(Debug)]
struct Miss {
    error: Error,
    /// The node that was asked.
    node: NodeUrl,
    /// How far the request came.
    reach: Reach,
}

impl Miss {
    /// Whether another node may well do better, and nothing happened here.
    fn is_this_nodes_affair(&self) -> bool {
        let unable = matches!(
            self.error.kind(),
            Some(FailureKind::Unavailable | FailureKind::Damaged)
        );
        self.reach == Reach::Nobody || (self.reach == Reach::Answered && unable)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// No connection: nobody saw it.
    Nobody,
    /// It was sent, or may have been.
    Sent,
    /// A node answered with a failure.
    Answered,
}

impl Client {
    /// Makes the call, within its deadline.
    pub(crate) async fn call(&self, call: &Call) -> Result<Reply, Error> {
        self.look_around_if_due();
        let until = Instant::now() + call.deadline;
        let attempts = AtomicU32::new(0);
        let mut doubt = None;
        let mut hops = 0;
        // The longest that a node has asked us to stay away, in this round through all of them.
        let mut told = Duration::ZERO;

        let (wait_min, wait_max) = self.backoff();
        let waits = ExponentialBuilder::default()
            .with_min_delay(wait_min)
            .with_max_delay(wait_max)
            .without_max_times()
            .with_jitter();
        let outcome = (|| {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed) + 1;
            self.attempt(call, until, attempt)
        })
        .retry(waits)
        .when(|miss| match miss.error.kind() {
            Some(kind) => kind.retryable(),
            None => false,
        })
        .adjust(|miss, wait| {
            if let Error::Unknown { reason, .. } = &miss.error {
                doubt = Some(reason.clone());
            }
            let crowded = miss.error.kind() == Some(FailureKind::Overloaded);
            self.nodes().disappointed(&miss.node, crowded, self.dice());
            told = told.max(retry_after(&miss.error));
            let wait = if miss.is_this_nodes_affair() && hops + 1 < self.nodes().count() {
                hops += 1;
                Duration::ZERO
            } else {
                hops = 0;
                wait?.max(std::mem::take(&mut told))
            };
            (Instant::now() + wait + TRY_MIN < until).then_some(wait)
        })
        .notify(|miss, wait| {
            tracing::debug!(request = %call.request, node = %miss.node, ?wait, error = %miss.error,
                "try failed, trying again");
        })
        .await;

        match (outcome, doubt) {
            (Ok(reply), _) => Ok(reply),
            (
                Err(Miss {
                    error: Error::Failed { message, .. },
                    ..
                }),
                Some(reason),
            ) => Err(Error::Unknown {
                request: call.request,
                reason: format!("{reason}; then: {message}"),
            }),
            (Err(miss), _) => Err(miss.error),
        }
    }

    async fn attempt(&self, call: &Call, until: Instant, attempts: u32) -> Result<Reply, Miss> {
        let node = self.nodes().preferred();
        let left = until.saturating_duration_since(Instant::now());
        let miss = |reach, error| Miss {
            error,
            node: Arc::clone(&node),
            reach,
        };
        let lost = |reason: String| {
            let error = match call.effect {
                Effect::None => Error::failed(FailureKind::Unavailable, reason),
                Effect::Possible => Error::Unknown {
                    request: call.request,
                    reason,
                },
            };
            miss(Reach::Sent, error)
        };

        let exchange = async {
            let response = match self.request(call, &node, left).send().await {
                Ok(response) => response,
                Err(error) if error.is_builder() => {
                    let reason = format!("write request: {}", chain(&error));
                    return Err(miss(Reach::Nobody, Error::config(reason)));
                }
                Err(error) if error.is_connect() => {
                    let error = Error::failed(FailureKind::Unavailable, chain(&error));
                    return Err(miss(Reach::Nobody, error));
                }
                Err(error) => return Err(lost(chain(&error))),
            };
            let status = response.status();
            let headers = response.headers().clone();
            if status.is_success()
                && let (Some(session), Some(bookmark)) = (&call.session, bookmark(&headers))
            {
                session.observe(bookmark);
            }
            match self.read(response).await {
                Ok(body) if status.is_success() => {
                    self.nodes().pleased(&node);
                    Ok(Reply {
                        attempts,
                        ..Reply::new(headers, body)
                    })
                }
                Ok(body) => Err(miss(
                    Reach::Answered,
                    failure(call, status, &headers, &body),
                )),
                // A failure is in the header as well; its text is all that was lost.
                Err(ReadError::Broken(_)) if headers.contains_key(FAILURE) => {
                    Err(miss(Reach::Answered, failure(call, status, &headers, &[])))
                }
                Err(ReadError::Broken(reason)) => Err(lost(reason)),
                Err(ReadError::TooLong { .. }) if !status.is_success() => {
                    Err(miss(Reach::Answered, failure(call, status, &headers, &[])))
                }
                Err(ReadError::TooLong { max }) => Err(miss(
                    Reach::Answered,
                    Error::decode(format!("answer exceeds the client's limit of {max} bytes")),
                )),
            }
        };
        let exchange = async {
            tokio::select! {
                outcome = exchange => outcome,
                () = self.gone(&node) => Err(lost("the node gives no sign of life".to_owned())),
            }
        };
        match timeout(left, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let reason = format!("no answer within {left:?}");
                Err(match call.effect {
                    Effect::None => miss(Reach::Sent, Error::failed(FailureKind::Deadline, reason)),
                    Effect::Possible => lost(reason),
                })
            }
        }
    }

    fn request(&self, call: &Call, node: &NodeUrl, left: Duration) -> reqwest::RequestBuilder {
        let told = left
            .saturating_sub((left / 10).min(ANSWER_TRIP_MAX))
            .min(DEADLINE_MAX);
        let told_ms = told.as_millis().max(1);
        let mut request = self
            .http()
            .request(call.method.clone(), format!("{node}{}", call.path))
            .headers(call.headers.clone())
            .header(DEADLINE, format!("{told_ms}ms"))
            .header(REQUEST_ID, call.request.to_string());
        if let Some(token) = self.authorization() {
            request = request.header(reqwest::header::AUTHORIZATION, token);
        }
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(body.clone());
        }
        request
    }

    pub(crate) async fn read(&self, mut response: Response) -> Result<Bytes, ReadError> {
        let max = self.answer_bytes_max();
        let too_long = || ReadError::TooLong { max };
        let expected = response.content_length().unwrap_or(0);
        let expected = usize::try_from(expected).map_err(|_| too_long())?;
        if expected > max {
            return Err(too_long());
        }
        let mut body = BytesMut::with_capacity(expected);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if chunk.len() > max - body.len() => return Err(too_long()),
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body.freeze()),
                Err(error) => return Err(ReadError::Broken(chain(&error))),
            }
        }
    }
}

pub(crate) enum ReadError {
    Broken(String),
    TooLong { max: usize },
}

/// What a status outside 2xx means.
fn failure(call: &Call, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(default)]
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        code: u32,
        message: String,
    }

    let entry = serde_json::from_slice::<Envelope>(body)
        .ok()
        .and_then(|envelope| envelope.errors.into_iter().next());
    let kind = headers
        .get(FAILURE)
        .and_then(kind_of)
        .or_else(|| entry.as_ref().and_then(|entry| kind_of_code(entry.code)))
        .or_else(|| kind_of_status(status));
    let (code, message) = match entry {
        Some(Entry { code, message }) => (Some(code), message),
        None => {
            let text: String = String::from_utf8_lossy(body)
                .chars()
                .take(FOREIGN_TEXT_MAX)
                .collect();
            (
                None,
                format!("HTTP {status} {}", text.trim())
                    .trim_end()
                    .to_owned(),
            )
        }
    };
    match kind {
        // A question that stays unanswered has still done nothing.
        None | Some(FailureKind::Unknown) if call.effect == Effect::None => {
            Error::failed(FailureKind::Unavailable, message)
        }
        None | Some(FailureKind::Unknown) => Error::Unknown {
            request: call.request,
            reason: message,
        },
        Some(kind) => Error::Failed {
            kind,
            message,
            code: code.unwrap_or_else(|| kind.code()),
            retry_after: headers.get(RETRY_AFTER).and_then(seconds),
        },
    }
}

fn bookmark(headers: &HeaderMap) -> Option<&str> {
    headers.get(BOOKMARK)?.to_str().ok()
}

fn kind_of(value: &HeaderValue) -> Option<FailureKind> {
    let text: StrDeserializer<'_, ValueError> = value.to_str().ok()?.into_deserializer();
    FailureKind::deserialize(text).ok()
}

/// The kind of a failure whose header was lost on the way, if its code is one that only nodes give.
fn kind_of_code(code: u32) -> Option<FailureKind> {
    FailureKind::ALL
        .into_iter()
        .find(|kind| OWN_CODES.contains(&code) && kind.code() == code)
}

/// The kind of a failure that no node has named: `None` if it may have happened all the same.
fn kind_of_status(status: StatusCode) -> Option<FailureKind> {
    match status {
        StatusCode::UNAUTHORIZED => Some(FailureKind::Unauthenticated),
        StatusCode::FORBIDDEN => Some(FailureKind::Forbidden),
        StatusCode::NOT_FOUND => Some(FailureKind::NoDatabase),
        StatusCode::PAYLOAD_TOO_LARGE => Some(FailureKind::TooLarge),
        StatusCode::TOO_MANY_REQUESTS => Some(FailureKind::Overloaded),
        // The second is how a node says that it does not know.
        StatusCode::REQUEST_TIMEOUT | StatusCode::FAILED_DEPENDENCY => None,
        status if status.is_server_error() => None,
        _ => Some(FailureKind::BadRequest),
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn retry_after(error: &Error) -> Duration {
    match error {
        Error::Failed {
            retry_after: Some(wait),
            ..
        } => *wait,
        Error::Failed { .. }
        | Error::Unknown { .. }
        | Error::Decode { .. }
        | Error::Config { .. } => Duration::ZERO,
    }
}

/// An error with its causes, as one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
