//! Making, finding, listing, changing and deleting databases.
//!
//! All of it is the primary's business. Another node passes such a request on; what only looks is
//! answered from this node's own catalogue when the primary cannot be reached.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tidemark_protocol::d1::{CreateBody, Database, DatabaseSummary, EditBody, ResultInfo};
use tidemark_protocol::node::{CreateDatabase, DatabaseInfo, EditDatabase, ListDatabases};
use tidemark_protocol::{DatabaseId, Failure, FailureKind, Node};
use tokio::time::timeout;
use tracing::warn;

use crate::ask::{Ask, deadline_passed};
use crate::envelope;
use crate::forward::{Effect, Outgoing, Passed, Search};
use crate::gateway::{Gateway, check_database, missing, no_database};
use crate::handover::settled;
use crate::metrics::Route;
use crate::query::DatabasePath;
use crate::router::{bad_path, check_account};

/// D1's own figures.
const PER_PAGE_DEFAULT: u64 = 1000;
const PER_PAGE_MAX: u64 = 10_000;

pub(crate) async fn create<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    account: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let work = async {
        check_account(&account.map_err(|rejection| bad_path(&rejection))?)?;
        let ask = Ask::read(&head.headers)?;
        let body = gateway.gate.read(&head.headers, body, ask.expires).await?;
        let create = CreateBody::parse(&body.bytes)?.validate()?;
        if let Some(response) = at_primary(&gateway, &head, &body.bytes, &ask).await? {
            return Ok(response);
        }
        let create = CreateDatabase {
            request: ask.request,
            ..create
        };
        let made = settled(ask.remaining()?, gateway.node.create(create)).await?;
        Ok(envelope::success(&Database::from(made), None))
    };
    gateway.answer(Route::Create, &head, work).await
}

pub(crate) async fn delete<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let Path((account, database)) = path.map_err(|rejection| bad_path(&rejection))?;
        check_account(&account)?;
        check_database(&database)?;
        let ask = Ask::read(&head.headers)?;
        if let Some(response) = at_primary(&gateway, &head, &Bytes::new(), &ask).await? {
            return Ok(response);
        }
        let known = gateway.node.resolve(&database);
        // Perhaps an earlier try of this request deleted it: the node knows.
        let gone = || database.parse().ok().filter(|_| ask.request.is_some());
        match known.or_else(gone) {
            Some(DatabaseId::CATALOGUE) => Err(no_database(&database)),
            None => Err(missing(&*gateway.node, &database)),
            Some(id) => {
                settled(ask.remaining()?, gateway.node.delete(id, ask.request)).await?;
                Ok(envelope::success(&(), None))
            }
        }
    };
    gateway.answer(Route::Delete, &head, work).await
}

/// `PUT`: the body stands for all that can be changed of a database.
pub(crate) async fn replace<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    change(&gateway, path, request, true).await
}

/// `PATCH`.
pub(crate) async fn edit<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    change(&gateway, path, request, false).await
}

async fn change<N: Node>(
    gateway: &Gateway<N>,
    path: DatabasePath,
    request: Request,
    whole: bool,
) -> Response {
    let (head, body) = request.into_parts();
    let work = async {
        let Path((account, database)) = path.map_err(|rejection| bad_path(&rejection))?;
        check_account(&account)?;
        check_database(&database)?;
        let ask = Ask::read(&head.headers)?;
        let body = gateway.gate.read(&head.headers, body, ask.expires).await?;
        let edit = EditBody::parse(&body.bytes)?.validate(whole)?;
        if let Some(response) = at_primary(gateway, &head, &body.bytes, &ask).await? {
            return Ok(response);
        }
        let id = match gateway.node.resolve(&database) {
            Some(DatabaseId::CATALOGUE) => return Err(no_database(&database)),
            None => return Err(missing(&*gateway.node, &database)),
            Some(id) => id,
        };
        let edit = EditDatabase {
            request: ask.request,
            ..edit
        };
        let edited = settled(ask.remaining()?, gateway.node.edit(id, edit)).await?;
        Ok(envelope::success(&Database::from(edited), None))
    };
    gateway.answer(Route::Edit, &head, work).await
}

/// Has the primary make a change, unless it is this node, or has become it in the meantime.
pub(crate) async fn at_primary<N: Node>(
    gateway: &Gateway<N>,
    head: &Parts,
    body: &Bytes,
    ask: &Ask,
) -> Result<Option<Response>, Failure> {
    let mut search = Search::new(ask);
    let node = &*gateway.node;
    let name = Some(gateway.forwarder.name(ask));
    while node.upstream().is_some() {
        let outgoing = Outgoing {
            head,
            body: body.clone(),
            effect: Effect::Writes,
            name,
        };
        match gateway.forwarder.forward(node, outgoing, ask).await? {
            Passed::Undone(_) if search.goes_on(node).await => {}
            passed @ (Passed::Answered(_) | Passed::Undone(_)) => {
                return passed.last_word(node).map(Some);
            }
        }
    }
    Ok(None)
}

/// One database, or those of its properties that `fields` names: in one list, or one by one.
pub(crate) async fn get<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let Path((account, database)) = path.map_err(|rejection| bad_path(&rejection))?;
        check_account(&account)?;
        check_database(&database)?;
        let ask = Ask::read(&head.headers)?;
        let gone = match ask_primary(&gateway, &head, &ask).await? {
            Primary::Said(response) => return Ok(response),
            Primary::Gone(failure) => Some(failure),
            Primary::Here => None,
        };
        match looked(&ask, gateway.node.database(&database)).await? {
            Some(info) => Ok(envelope::success(&shown(info, &head.uri), None)),
            // What is not in this copy of the catalogue may well be in the primary's.
            None => Err(gone.unwrap_or_else(|| missing(&*gateway.node, &database))),
        }
    };
    gateway.answer(Route::Get, &head, work).await
}

/// The database as the query string wants to see it.
fn shown(info: DatabaseInfo, uri: &Uri) -> Value {
    let mut whole =
        serde_json::to_value(Database::from(info)).expect("the API's types are plain data");
    let given = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let given = given.map(|Query(pairs)| pairs).unwrap_or_default();
    let fields: Vec<&str> = given
        .iter()
        .filter(|(name, _)| name == "fields")
        .flat_map(|(_, value)| value.split(','))
        .collect();
    if let Value::Object(properties) = &mut whole
        && !fields.is_empty()
    {
        properties.retain(|name, _| fields.contains(&name.as_str()));
    }
    whole
}

/// As text, so that a bad number is refused in our own words.
#[derive(Deserialize)]
pub(crate) struct ListQuery {
    name: Option<String>,
    page: Option<String>,
    per_page: Option<String>,
}

pub(crate) async fn list<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    account: Result<Path<String>, PathRejection>,
    query: Result<Query<ListQuery>, QueryRejection>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        check_account(&account.map_err(|rejection| bad_path(&rejection))?)?;
        let Query(ListQuery {
            name,
            page,
            per_page,
        }) = query.map_err(|rejection| {
            let text = format!("The request is malformed: {}", rejection.body_text());
            Failure::new(FailureKind::BadRequest, text)
        })?;
        let page = number("page", page.as_deref(), 1, u64::MAX)?;
        let per_page = number(
            "per_page",
            per_page.as_deref(),
            PER_PAGE_DEFAULT,
            PER_PAGE_MAX,
        )?;
        let ask = Ask::read(&head.headers)?;
        if let Primary::Said(response) = ask_primary(&gateway, &head, &ask).await? {
            return Ok(response);
        }
        let offset = (page - 1).saturating_mul(per_page);
        let wanted = ListDatabases {
            name,
            offset,
            limit: per_page,
        };
        let found = looked(&ask, gateway.node.databases(wanted)).await?;
        let databases: Vec<_> = found
            .databases
            .into_iter()
            .map(DatabaseSummary::from)
            .collect();
        let count = databases.len() as u64;
        let info = ResultInfo {
            page,
            per_page,
            count,
            total_count: found.total,
        };
        Ok(envelope::success(&databases, Some(&info)))
    };
    gateway.answer(Route::List, &head, work).await
}

/// A number from 1 to `max` of the query string.
fn number(property: &str, text: Option<&str>, default: u64, max: u64) -> Result<u64, Failure> {
    let Some(text) = text else {
        return Ok(default);
    };
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => {
            let text =
                format!("Invalid property: {property} => '{text}' is not a number from 1 to {max}");
            Err(Failure::new(FailureKind::BadRequest, text))
        }
    }
}

/// What the primary has to do with a request that only looks.
pub(crate) enum Primary {
    /// It answered.
    Said(Response),
    /// It is this node.
    Here,
    /// It cannot be asked; this node's own catalogue may be older.
    Gone(Failure),
}

pub(crate) async fn ask_primary<N: Node>(
    gateway: &Gateway<N>,
    head: &Parts,
    ask: &Ask,
) -> Result<Primary, Failure> {
    let node = &*gateway.node;
    // Half of the time for the primary leaves the other half for an answer of our own.
    let half = Ask {
        expires: ask.expires - ask.remaining()? / 2,
        ..*ask
    };
    let mut search = Search::new(&half);
    let name = Some(gateway.forwarder.name(ask));
    while node.upstream().is_some() {
        let outgoing = Outgoing {
            head,
            body: Bytes::new(),
            effect: Effect::Looks,
            name,
        };
        let passed = match gateway.forwarder.forward(node, outgoing, &half).await {
            Ok(Passed::Answered(response)) => return Ok(Primary::Said(response)),
            Ok(undone @ Passed::Undone(_)) => undone.last_word(node),
            Err(failure) => Err(failure),
        };
        if search.goes_on(node).await {
            continue;
        }
        return Ok(match passed {
            Ok(response) => Primary::Said(response),
            Err(failure) => {
                warn!(%failure, "looking into this node's own catalogue");
                Primary::Gone(failure)
            }
        });
    }
    Ok(Primary::Here)
}

/// Waits for a look at the catalogue.
pub(crate) async fn looked<T>(
    ask: &Ask,
    look: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(ask.remaining()?, look)
        .await
        .unwrap_or_else(|_| Err(deadline_passed()))
}
