//! `query` and `raw`: SQL in, rows out; and what the Worker binding's protocol shares with them.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use tidemark_protocol::d1::{BadQuery, QueryBounds};
use tidemark_protocol::node::{Answer, Execute, Executed, Rules};
use tidemark_protocol::render::{AnswerShape, RowShape, ValueForm};
use tidemark_protocol::{
    Bookmark, DatabaseId, Failure, FailureKind, Node, Statement, Why, d1, headers,
};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::ask::Ask;
use crate::envelope;
use crate::forward::{Effect, Outgoing, Passed, Search, speaks_of_outage};
use crate::gateway::{Gateway, check_database, missing, no_database};
use crate::handover::settled;
use crate::metrics::Route;
use crate::router::{bad_path, check_account};
use crate::trace;

/// A body up to this is parsed in well under a millisecond.
const PARSED_INLINE_BYTES_MAX: usize = 256 << 10;

/// Account and database.
pub(crate) type DatabasePath = Result<Path<(String, String)>, PathRejection>;

pub(crate) async fn query<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    let shape = RowShape::Objects;
    run(&gateway, Asked { shape, path }, request).await
}

pub(crate) async fn raw<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    let shape = RowShape::Arrays;
    run(&gateway, Asked { shape, path }, request).await
}

/// What the path of a query says.
pub(crate) struct Asked {
    shape: RowShape,
    path: DatabasePath,
}

/// What this path asks for, if it is that of [`query`] or [`raw`] with nothing in it that is encoded.
pub(crate) fn asked(method: &Method, path: &str) -> Option<Asked> {
    let path = path.strip_prefix("/client/v4/accounts/")?;
    let (path, shape) = if let Some(path) = path.strip_suffix("/query") {
        (path, RowShape::Objects)
    } else {
        (path.strip_suffix("/raw")?, RowShape::Arrays)
    };
    let slash = path.bytes().position(|byte| byte == b'/')?;
    let (account, rest) = path.split_at(slash);
    let database = rest.strip_prefix("/d1/database/")?;
    let plain = |name: &str| {
        let mut bytes = name.bytes();
        !name.is_empty() && bytes.all(|byte| byte != b'/' && byte != b'%')
    };
    (method == Method::POST && plain(account) && plain(database)).then(|| Asked {
        shape,
        path: Ok(Path((account.to_owned(), database.to_owned()))),
    })
}

pub(crate) async fn run<N: Node>(
    gateway: &Gateway<N>,
    Asked { shape, path }: Asked,
    request: Request,
) -> Response {
    let route = match shape {
        RowShape::Objects => Route::Query,
        RowShape::Arrays => Route::Raw,
    };
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
            effect: Effect::Unclear,
            shape: shape.into(),
            parse: d1::parse_query,
        };
        match job.run(gateway).await? {
            Ran::Here(answer) => Ok(envelope::answer(answer)),
            Ran::Elsewhere(response) => Ok(response),
            Ran::Misshaped(failure, bookmark) => {
                let mut response = envelope::failure(&failure);
                envelope::note_repeated(&mut response, &bookmark);
                Ok(response)
            }
        }
    };
    gateway.answer(route, &head, work).await
}

/// Statements to run, in whichever form they came.
pub(crate) struct Job<'r> {
    pub(crate) head: &'r Parts,
    pub(crate) body: &'r Bytes,
    pub(crate) ask: &'r Ask,
    pub(crate) database: &'r str,
    pub(crate) effect: Effect,
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
    /// They took effect in an earlier try, which asked for rows of another shape: what to say, and the state that
    /// it led to.
    Misshaped(Failure, Bookmark),
}

impl Job<'_> {
    /// Runs them here or has the node run them that leads, and looks again for that while an election goes
    /// on: this one may win it.
    pub(crate) async fn run<N: Node>(&self, gateway: &Gateway<N>) -> Result<Ran, Failure> {
        let begun = Instant::now();
        let mut search = Search::new(self.ask);
        let mut first_why = None;
        let mut name = self.ask.request;
        loop {
            let node = &*gateway.node;
            let why = match self.run_here(gateway).await {
                Ok(Executed::Answer(answer)) => return Ok(Ran::Here(answer)),
                Ok(Executed::Forward(why)) => *first_why.get_or_insert(why),
                Err(NotHere::Unknown) if node.ready().is_err() && search.goes_on(node).await => {
                    continue;
                }
                Err(NotHere::Unknown) => return Err(missing(node, self.database)),
                Err(NotHere::Failed(failure))
                    if self.another_may(&failure) && search.goes_on(node).await =>
                {
                    continue;
                }
                Err(NotHere::Failed(failure)) => return Err(failure),
                Err(NotHere::Misshaped(bookmark)) => {
                    return Ok(Ran::Misshaped(other_request(), bookmark));
                }
            };
            trace::handed_on(why);
            if self.effect == Effect::Unclear {
                name.get_or_insert_with(|| gateway.forwarder.name(self.ask));
            }
            let waited = begun.elapsed();
            let outgoing = Outgoing {
                head: self.head,
                body: self.body.clone(),
                effect: self.effect,
                name,
            };
            // Boxed: few go this way, and all would carry its future with them.
            let forwarded = Box::pin(gateway.forwarder.forward(node, outgoing, self.ask));
            match forwarded.await? {
                Passed::Undone(_) if search.goes_on(node).await => {}
                passed @ (Passed::Answered(_) | Passed::Undone(_)) => {
                    let mut response = passed.last_word(node)?;
                    envelope::note_forwarded(&mut response, why, waited);
                    return Ok(Ran::Elsewhere(response));
                }
            }
        }
    }

    /// Whether this node did nothing because it leads no more. Whoever passed a request on looks for itself.
    fn another_may(&self, failure: &Failure) -> bool {
        failure.kind == FailureKind::Unavailable
            && !speaks_of_outage(failure)
            && !self.ask.forwarded
    }

    async fn run_here<N: Node>(&self, gateway: &Gateway<N>) -> Result<Executed, NotHere> {
        let Self { ask, .. } = *self;
        // Also when another node will run them: what is malformed need not travel.
        let bounds = gateway.gate.limits().query;
        let statements = parsed(self.body, self.parse, ask.form, bounds).await?;
        match gateway.node.resolve(self.database) {
            Some(DatabaseId::CATALOGUE) => Err(no_database(self.database).into()),
            Some(database) => {
                // A read of the gateway's own, for its bookmark, is nobody's query.
                let is_asked = self.effect == Effect::Unclear;
                trace::database(database);
                let query = is_asked.then(|| gateway.statistics.identify(&statements));
                let execute = Execute {
                    database,
                    statements,
                    // Of what the gateway does beside its read it names the former.
                    request: ask.request.filter(|_| is_asked),
                    read: ask.read,
                    freshness: ask.freshness,
                    deadline: ask.remaining()?,
                    on_miss: ask.on_miss,
                    shape: self.shape,
                    form: ask.form,
                    rules: Rules::Request,
                };
                let deadline = execute.deadline;
                let executed = settled(deadline, gateway.node.execute(execute)).await?;
                if let (Executed::Answer(answer), Some(query)) = (&executed, &query) {
                    let now_ms = gateway.handles.clock.unix_ms();
                    let (tally, bytes) = (&answer.tally, answer.results.len());
                    let statistics = &gateway.statistics;
                    statistics.count(database, query, tally, bytes, now_ms);
                }
                if let Executed::Answer(answer) = &executed
                    && is_asked
                    && answer.repeated
                    && !has_shape(&answer.results, self.shape.rows)
                {
                    return Err(NotHere::Misshaped(answer.bookmark));
                }
                Ok(executed)
            }
            // A database that was created a moment ago may not have reached this node.
            None if gateway.node.upstream().is_some() => {
                Ok(Executed::Forward(Why::UnknownDatabase))
            }
            None => Err(NotHere::Unknown),
        }
    }
}

/// Whether rows come in this shape, as far as there are any.
fn has_shape(results: &[u8], rows: RowShape) -> bool {
    match results.strip_prefix(br#"[{"results":"#) {
        Some([b'{', ..]) => rows == RowShape::Arrays,
        Some([b'[', ..]) => rows == RowShape::Objects,
        _ => true,
    }
}

/// The answer to an earlier request is there, but it was not asked in the same way.
fn other_request() -> Failure {
    let text = format!(
        "Invalid header: {} => names an earlier request, which took effect and is not done again; it asked for \
         rows of another shape",
        headers::REQUEST_ID
    );
    Failure::new(FailureKind::BadRequest, text)
}

/// Why this node neither ran statements nor has another one to run them.
enum NotHere {
    /// It does not know the database.
    Unknown,
    Failed(Failure),
    /// It was done before, and this was asked for in another shape.
    Misshaped(Bookmark),
}

impl From<Failure> for NotHere {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
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
