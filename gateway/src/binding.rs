//! What a Worker's D1 binding speaks: `POST /query` and `POST /execute`.
//!
//! The database is named by the header `x-d1-database-id`, which a Worker's configuration can add to what
//! it sends to a service, or by a path before the binding's own: `/d1/{database}`, for a Worker or a proxy
//! in between. `execute` differs from `query` in what the binding makes of the answer: of a failure it tells which
//! line it was, so that is said.
//!
//! The session travels in `x-cf-d1-session-commit-token`:
//!
//! - Absent: the primary answers, and no token comes back.
//! - `first-unconstrained`, `first-primary` or a bookmark: as `x-d1-bookmark` has it for the REST API.
//! - Anything else must not fail the query, and the binding may send it for ever, since it keeps whichever
//!   token sorts last: the primary answers each time, which is at or after every state there is. A bookmark
//!   that the history of the database does not contain is refused all the same: what it promises is lost.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use tidemark_protocol::render::{AnswerShape, Elements, RowShape};
use tidemark_protocol::{Failure, FailureKind, Node, ReadContract, d1, headers};

use crate::ask::Ask;
use crate::envelope;
use crate::forward::Effect;
use crate::gateway::{Gateway, check_database};
use crate::metrics::Route;
use crate::query::{Job, Ran};
use crate::router::bad_path;

const SESSION: HeaderName = HeaderName::from_static(headers::SESSION);

pub(crate) async fn by_path<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let database = path
        .map(|Path(database)| database)
        .map_err(|rejection| bad_path(&rejection));
    run(&gateway, database, request).await
}

pub(crate) async fn by_header<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    let named = request.headers().get(headers::DATABASE);
    let database = named
        .and_then(|name| name.to_str().ok())
        .map(str::to_owned)
        .ok_or_else(|| {
            let text = format!("Invalid header: {} => Required", headers::DATABASE);
            Failure::new(FailureKind::BadRequest, text)
        });
    run(&gateway, database, request).await
}

async fn run<N: Node>(
    gateway: &Gateway<N>,
    database: Result<String, Failure>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let refuse: fn(&Failure) -> Response = if head.uri.path().ends_with("/execute") {
        exec_failure
    } else {
        failure
    };
    let work = async {
        let database = database?;
        check_database(&database)?;
        let session = head.headers.contains_key(&SESSION);
        let mut ask = Ask::read_in(contract(&head.headers), &head.headers)?;
        let body = gateway.gate.read(&head.headers, body, ask.expires).await?;
        let shape = AnswerShape {
            rows: rows(&head.uri),
            elements: Elements::Texts,
        };
        let run = async |ask: &Ask| {
            let job = Job {
                head: &head,
                body: &body.bytes,
                ask,
                database: &database,
                effect: Effect::Unclear,
                shape,
                parse: d1::parse_binding,
            };
            job.run(gateway).await
        };
        let ran = match run(&ask).await {
            Err(failure) if failure.kind == FailureKind::BadBookmark => {
                ask.read = ReadContract::FirstPrimary;
                run(&ask).await
            }
            ran => ran,
        };
        match ran? {
            Ran::Elsewhere(response) => Ok(response),
            Ran::Misshaped(failure, bookmark) => {
                let mut response = refuse(&failure);
                envelope::note_repeated(&mut response, &bookmark);
                Ok(response)
            }
            Ran::Here(answer) => {
                let mut response = envelope::json(StatusCode::OK, Body::from(answer.results));
                envelope::note_delivered(&mut response, answer.delivered);
                if session {
                    let token = HeaderValue::try_from(answer.bookmark.to_string())
                        .expect("hex digits and dashes");
                    response.headers_mut().insert(SESSION, token);
                }
                Ok(response)
            }
        }
    };
    gateway.answer_as(refuse, Route::Binding, &head, work).await
}

/// What the session asks for, if there is one.
fn contract(from: &HeaderMap) -> Option<ReadContract> {
    let token = from.get(SESSION)?.to_str().ok();
    let understood = token.and_then(|token| token.trim().parse().ok());
    Some(understood.unwrap_or(ReadContract::FirstPrimary))
}

/// The shape that the query string asks for. `NONE` is what `run()` sends, whose rows programs read.
fn rows(uri: &Uri) -> RowShape {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    if pairs.any(|pair| pair == "resultsFormat=ROWS_AND_COLUMNS") {
        RowShape::Arrays
    } else {
        RowShape::Objects
    }
}

fn failure(failure: &Failure) -> Response {
    let body = d1::write_binding_failure(failure);
    envelope::refused(envelope::status(failure), body, failure)
}

fn exec_failure(failure: &Failure) -> Response {
    let body = d1::write_exec_failure(failure);
    envelope::refused(envelope::status(failure), body, failure)
}
