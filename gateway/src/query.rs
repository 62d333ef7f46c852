//! `query` and `raw`: SQL in, rows out; and what the Worker binding's protocol shares with them.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use tidemark_protocol::d1::{BadQuery, QueryBounds};
use tidemark_protocol::node::{Answer, Execute, Executed};
use tidemark_protocol::render::{AnswerShape, RowShape, ValueForm};
use tidemark_protocol::{DatabaseId, Failure, Node, Statement, d1};
use tokio::task::spawn_blocking;

use crate::ask::Ask;
use crate::envelope;
use crate::forward::{Effect, Outgoing};
use crate::gateway::{Gateway, check_database, missing, no_database};
use crate::handover::settled;
use crate::metrics::Route;
use crate::router::{bad_path, check_account};

/// A body up to this is parsed in well under a millisecond.
const PARSED_INLINE_BYTES_MAX: usize = 256 << 10;

/// Account and database.
pub(crate) type DatabasePath = Result<Path<(String, String)>, PathRejection>;

pub(crate) async fn query<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    run(&gateway, Route::Query, RowShape::Objects, path, request).await
}

pub(crate) async fn raw<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    run(&gateway, Route::Raw, RowShape::Arrays, path, request).await
}

async fn run<N: Node>(
    gateway: &Gateway<N>,
    route: Route,
    shape: RowShape,
    path: DatabasePath,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let work = async {
        let Path((account, database)) = path.map_err(|rejection| bad_path(&rejection))?;
        check_account(&account)?;
        check_database(&database)?;
        let ask = Ask::read(&head.headers)?;
        let body = gateway.gate.read(&head.headers, body, ask.expires).await?;
        let job = Job {
            head: &head,
            body: &body.bytes,
            ask: &ask,
            database: &database,
            shape: shape.into(),
            parse: d1::parse_query,
        };
        match job.run(gateway).await? {
            Ran::Here(answer) => Ok(envelope::answer(answer)),
            Ran::Elsewhere(response) => Ok(response),
        }
    };
    gateway.answer(route, &head.headers, work).await
}

/// Statements to run, in whichever form they came.
pub(crate) struct Job<'r> {
    pub(crate) head: &'r Parts,
    pub(crate) body: &'r Bytes,
    pub(crate) ask: &'r Ask,
    pub(crate) database: &'r str,
    pub(crate) shape: AnswerShape,
    pub(crate) parse: Parser,
}

/// Reads a body.
pub(crate) type Parser = fn(&[u8], ValueForm, &QueryBounds) -> Result<Vec<Statement>, BadQuery>;

/// Statements that ran.
pub(crate) enum Ran {
    Here(Answer),
    /// What the node said that they were passed on to.
    Elsewhere(Response),
}

impl Job<'_> {
    pub(crate) async fn run<N: Node>(&self, gateway: &Gateway<N>) -> Result<Ran, Failure> {
        let Self {
            head,
            body,
            ask,
            database,
            shape,
            parse,
        } = *self;
        // Also when another node will run them: what is malformed need not travel.
        let statements = parsed(body, parse, ask.form, gateway.gate.limits().query).await?;
        let executed = match gateway.node.resolve(database) {
            Some(DatabaseId::CATALOGUE) => return Err(no_database(database)),
            Some(database) => {
                let execute = Execute {
                    database,
                    statements,
                    request: ask.request,
                    read: ask.read,
                    deadline: ask.remaining()?,
                    on_miss: ask.on_miss,
                    shape,
                    form: ask.form,
                };
                settled(execute.deadline, gateway.node.execute(execute)).await?
            }
            // A database that was created a moment ago may not have reached this node.
            None if gateway.node.upstream().is_some() => Executed::Forward,
            None => return Err(missing(&*gateway.node, database)),
        };
        match executed {
            Executed::Answer(answer) => Ok(Ran::Here(answer)),
            Executed::Forward => {
                let upstream = gateway.node.upstream();
                let outgoing = Outgoing {
                    head,
                    body: body.clone(),
                    effect: Effect::Unclear,
                };
                let forwarded = gateway.forwarder.forward(upstream, outgoing, ask).await;
                forwarded.map(Ran::Elsewhere)
            }
        }
    }
}

/// A large body is parsed off the runtime's threads, which other requests wait for.
async fn parsed(
    body: &Bytes,
    parse: Parser,
    form: ValueForm,
    bounds: QueryBounds,
) -> Result<Vec<Statement>, Failure> {
    if body.len() <= PARSED_INLINE_BYTES_MAX {
        return Ok(parse(body, form, &bounds)?);
    }
    let body = body.clone();
    let parsed = spawn_blocking(move || parse(&body, form, &bounds)).await;
    // Nothing was handed on yet: as a panic it becomes an internal error.
    Ok(parsed.expect("the parser does not panic")?)
}
