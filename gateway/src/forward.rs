//! Passing a request on to the node that leads, and its answer back.
//!
//! 1. A request that was passed on already stops here: a ring of nodes that each believe in another
//!    must not spin.
//! 2. It goes out as it came, under a [`guard`], with its name (`tidemark-request-id`, made up once if need be), this
//!    node's (`tidemark-forwarded-by`) and the time that is left.
//! 3. The answer is streamed back unchanged.
//! 4. If it certainly was not done there, because nobody was reached or a node said that it does not lead,
//!    whoever asked looks again who leads, this node perhaps, for as long as an election goes on ([`Search`]).
//! 5. A node that leads no more, or that nobody is about to succeed, is waited for no longer once it is silent,
//!    whatever it was doing. One that stops in order takes no connections any more, but answers what it has.
//!
//! What a broken connection means depends on whether the request had begun to leave; [`mod@watched`] knows.
//! What is in doubt is never sent again from here: that is for the client, under its own request id.

mod search;
mod stream;
mod watched;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use tidemark_net::{Answer, HttpClient, HttpError, HttpOptions};
use tidemark_protocol::contract::DEADLINE_MAX;
use tidemark_protocol::guard::Damaged;
use tidemark_protocol::{Failure, FailureKind, Node, NodeId, RequestId, headers};
use tokio::time::{sleep, timeout};
use tower_http::timeout::TimeoutBody;
use tracing::field::display;
use tracing::{Instrument, Span, warn};

use crate::ask::{Ask, deadline_passed};
use crate::config::Handles;
pub(crate) use crate::forward::search::Search;
use crate::forward::watched::watched;
use crate::guard;
use crate::handover::unknown;
use crate::router::HEALTH;
use crate::trace;
use crate::transfer::forwarded_host;

const FORWARDED_BY: HeaderName = HeaderName::from_static(headers::FORWARDED_BY);
const REQUEST_ID: HeaderName = HeaderName::from_static(headers::REQUEST_ID);
const DEADLINE: HeaderName = HeaderName::from_static(headers::DEADLINE);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How long a connection may take to come about: a few round trips around the world.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// Connections kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// Shorter than any server keeps an idle connection, so that none is used that is about to be closed.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The other node answers by the deadline that it was given; its answer may be this much on its way.
const LATENESS_MAX: Duration = Duration::from_secs(2);
/// Longest silence within an answer.
const SILENCE_MAX: Duration = DEADLINE_MAX.saturating_add(LATENESS_MAX);
/// How often to look whether the node that works on a request still leads.
const LOOK_WAIT: Duration = Duration::from_millis(200);
/// How long one that does not may take to say that it lives: a round trip around the world, and a connection.
const LIFE_WAIT: Duration = Duration::from_millis(800);
/// What it says then.
const LIFE_BYTES_MAX: usize = 64 << 10;
/// How long to wait before trying again when nobody leads: an election takes about a second.
const UNAVAILABLE_WAIT: Duration = Duration::from_millis(200);
/// The same when nobody is about to lead. From a second on, an answer speaks of an outage ([`speaks_of_outage`]).
const OUTAGE_WAIT: Duration = Duration::from_secs(1);

/// Headers that concern one connection, not the request.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// What a request does where it goes, as far as this node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// It changes nothing.
    Looks,
    /// It changes something.
    Writes,
    /// It has SQL that was not looked into.
    Unclear,
}

/// A request to pass on.
pub(crate) struct Outgoing<'r> {
    pub(crate) head: &'r Parts,
    pub(crate) body: Bytes,
    pub(crate) effect: Effect,
    /// The name under which it goes: its own, or one that was made up for it and stays the same however often it is
    /// passed on. `None` where a name says that something is the same as before: a made-up one would say that it
    /// is not.
    pub(crate) name: Option<RequestId>,
}

/// What became of a request that was passed on.
pub(crate) enum Passed {
    /// The other node answered.
    Answered(Response),
    /// It certainly did not do it, but another node might. What to say if none does.
    Undone(Result<Response, Failure>),
}

impl Passed {
    /// The answer, of whoever would give one, to a request for which `node` looks no further. Where nobody is
    /// about to lead it asks to stay away for longer than a search takes.
    pub(crate) fn last_word<N: Node>(self, node: &N) -> Result<Response, Failure> {
        match self {
            Self::Answered(response) => Ok(response),
            Self::Undone(outcome) if !node.patience().is_zero() => outcome,
            Self::Undone(Ok(mut response)) => {
                let wait = HeaderValue::from(OUTAGE_WAIT.as_secs());
                response.headers_mut().insert(RETRY_AFTER, wait);
                Ok(response)
            }
            Self::Undone(Err(failure)) => Err(failure.retry_after(OUTAGE_WAIT)),
        }
    }
}

/// Passes requests on.
pub(crate) struct Forwarder {
    client: HttpClient<Body>,
    node: NodeId,
    handles: Handles,
}

impl Forwarder {
    pub(crate) fn new(node: NodeId, handles: Handles) -> Self {
        let options = HttpOptions {
            connect_wait: CONNECT_WAIT_MAX,
            idle_max: IDLE_MAX,
            idle_count_max: IDLE_CONNECTIONS_MAX,
        };
        Self {
            client: HttpClient::new(Arc::clone(&handles.connector), options),
            node,
            handles,
        }
    }

    /// Sends `outgoing` to the node that leads, as far as `node` knows, and returns its answer, whatever
    /// it is.
    pub(crate) async fn forward<N: Node>(
        &self,
        node: &N,
        outgoing: Outgoing<'_>,
        ask: &Ask,
    ) -> Result<Passed, Failure> {
        if ask.forwarded {
            return Err(unavailable(
                "the request was passed on once, and this node cannot do it",
            ));
        }
        let Some(upstream) = node.upstream() else {
            return Ok(Passed::Undone(Err(unavailable("no primary is known"))));
        };
        let remaining = ask.remaining()?;
        let Outgoing {
            head,
            body,
            effect,
            name,
        } = outgoing;
        let span = trace::forward(&upstream, name);
        let mut headers = self.outgoing_headers(&span, &head.headers, name, remaining);
        guard::guard_request(head, &mut headers, Some(&body));
        let (body, watch) = watched(body);
        let request = addressed(&upstream, head, headers, Body::new(body))?;
        self.handles.metrics.forwarded();
        let sent = timeout(
            remaining.saturating_add(LATENESS_MAX),
            self.client.send(request),
        );
        // Log lines of both nodes have it, whoever named the request.
        let request = name.map(display);
        let sent = tokio::select! {
            biased;
            // An answer that is there counts.
            sent = sent.instrument(span.clone()) => sent,
            () = self.lost(node, &upstream) => {
                warn!(%upstream, request, ?effect, "a node that led is not heard of any more");
                return if watch.withdraw() || effect == Effect::Looks {
                    let failure = unavailable(format!("{upstream} cannot be reached"));
                    Ok(Passed::Undone(Err(failure)))
                } else {
                    Err(unknown(format!("{upstream} leads no more and did not answer")))
                };
            }
        };
        match sent {
            Ok(Ok(answer)) => match returned(answer) {
                Ok(answer) if leads_not(&answer) => Ok(Passed::Undone(Ok(answer))),
                Ok(answer) => {
                    trace::answered(&span, answer.status().as_u16());
                    if let Some(kind) = fault(&answer) {
                        warn!(%upstream, request, kind, "a request that was passed on failed there");
                    }
                    Ok(Passed::Answered(answer))
                }
                Err(damaged) => {
                    warn!(%upstream, %damaged, ?effect, "an answer is not what was sent");
                    if effect == Effect::Looks {
                        let failure = unavailable(format!("the answer of {upstream} was damaged"));
                        Ok(Passed::Undone(Err(failure)))
                    } else {
                        let text = format!("the answer of {upstream} was damaged: {damaged}");
                        Err(unknown(text))
                    }
                }
            },
            Ok(Err(error)) => {
                let cause = error.io_kind();
                warn!(%upstream, request, %error, ?cause, ?effect, "request was not passed on well");
                let unsent = error.is_connect() || watch.withdraw();
                if unsent || effect == Effect::Looks {
                    let failure = unavailable(format!("{upstream} cannot be reached"));
                    Ok(Passed::Undone(Err(failure)))
                } else {
                    Err(unknown(format!("the connection to {upstream} broke")))
                }
            }
            Err(_) if watch.withdraw() || effect == Effect::Looks => Err(deadline_passed()),
            Err(_) => Err(unknown(format!(
                "{upstream} did not answer by the deadline"
            ))),
        }
    }

    /// Resolves once `upstream` leads no more as far as `node` knows, or nobody is about to lead, and there is no
    /// sign of life from there.
    async fn lost<N: Node>(&self, node: &N, upstream: &str) {
        let url = format!("{}{HEALTH}", upstream.trim_end_matches('/'));
        loop {
            sleep(LOOK_WAIT).await;
            let leads = node.upstream().as_deref() == Some(upstream);
            if leads && !node.patience().is_zero() {
                continue;
            }
            let question = Request::builder().method(Method::GET).uri(&url);
            let Ok(question) = question.body(Body::empty()) else {
                // Nobody is there who could be asked.
                return;
            };
            let answer = self.client.exchange(question, LIFE_WAIT, LIFE_BYTES_MAX);
            if answer.await.is_err_and(|error| is_silence(&error)) {
                return;
            }
        }
    }

    fn outgoing_headers(
        &self,
        span: &Span,
        came: &HeaderMap,
        request: Option<RequestId>,
        remaining: Duration,
    ) -> HeaderMap {
        let mut out = end_to_end(came);
        out.remove(HOST);
        out.remove(CONTENT_LENGTH);
        // The page of a browser was let in here: to the other node, whose page it is not, it would be a stranger.
        out.remove(ORIGIN);
        out.remove(SEC_FETCH_SITE);
        let plain = |text: String| HeaderValue::try_from(text).expect("plain ASCII");
        if let Some(request) = request {
            out.insert(REQUEST_ID, plain(request.to_string()));
        }
        out.insert(FORWARDED_BY, plain(self.node.to_string()));
        // Rounded up: zero would be no time at all.
        let remaining_ms = remaining.as_micros().div_ceil(1000);
        out.insert(DEADLINE, plain(format!("{remaining_ms}ms")));
        // Links in the answer lead to where the client is, not to the other node.
        out.extend(forwarded_host(came));
        trace::goes_on(span, &mut out);
        out
    }

    /// The name of a request, or one for it if it came without.
    pub(crate) fn name(&self, ask: &Ask) -> RequestId {
        ask.request.unwrap_or_else(|| self.made_up())
    }

    fn made_up(&self) -> RequestId {
        let random = self.handles.random.bytes16();
        RequestId::new(uuid::Builder::from_random_bytes(random).into_uuid())
    }
}

/// Whether nothing came back. A refused connection is a sign of life of the machine: were the process gone as
/// well, the connection that the request went out on would have broken.
fn is_silence(error: &HttpError) -> bool {
    if error.is_connect() {
        let refused = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset];
        !error.io_kind().is_some_and(|kind| refused.contains(&kind))
    } else {
        // Of anything else something came back, or somebody ended the connection.
        matches!(error, HttpError::Late { .. })
    }
}

/// Whether a node says that it did nothing because it does not lead, or not yet. One that asks to stay away for
/// longer than an election takes speaks of an outage.
fn leads_not(answer: &Response) -> bool {
    let kind = answer.headers().get(headers::FAILURE);
    answer.status() == StatusCode::SERVICE_UNAVAILABLE
        && kind.is_some_and(|kind| kind == FailureKind::Unavailable.name())
        && !answer.headers().contains_key(RETRY_AFTER)
}

/// What went wrong at another node that is no fault of the client and no passing shortage.
fn fault(answer: &Response) -> Option<&str> {
    let kind = answer.headers().get(headers::FAILURE)?.to_str().ok()?;
    let faults = crate::gateway::FAULTS.map(FailureKind::name);
    faults.contains(&kind).then_some(kind)
}

/// Whether a node that did nothing asks to stay away for longer than an election takes.
pub(crate) fn speaks_of_outage(failure: &Failure) -> bool {
    failure.retry_after.is_some_and(|wait| wait >= OUTAGE_WAIT)
}

/// The request as it goes to `upstream`.
fn addressed(
    upstream: &str,
    head: &Parts,
    headers: HeaderMap,
    body: Body,
) -> Result<Request<Body>, Failure> {
    let path = guard::target(&head.uri);
    let url = format!("{}{path}", upstream.trim_end_matches('/'));
    let request = Request::builder().method(head.method.clone()).uri(url);
    let mut request = request.body(body).map_err(|error| {
        let reason = format!("cannot ask {upstream}: {error}");
        unavailable(reason)
    })?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn returned(answer: Answer) -> Result<Response, Damaged> {
    let (mut head, body) = answer.into_parts();
    let body = Body::new(TimeoutBody::new(SILENCE_MAX, body));
    let body = guard::answered(head.status, &mut head.headers, body)?;
    head.headers = end_to_end(&head.headers);
    head.extensions.clear();
    Ok(Response::from_parts(head, body))
}

/// The headers that are not for this connection alone.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for value in headers.get_all(CONNECTION) {
        for name in value.to_str().unwrap_or_default().split(',') {
            kept.remove(name.trim_ascii());
        }
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

fn unavailable(reason: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Unavailable, reason).retry_after(UNAVAILABLE_WAIT)
}
