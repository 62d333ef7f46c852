//! Where the statements of a database or a session go, and how they become a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};
use tidemark_protocol::contract::DEADLINE_MAX;
use tidemark_protocol::headers::{BOOKMARK, DELIVERED, ON_MISS, READ, REPEATED, SERVED_BY, VALUES};
use tidemark_protocol::{Freshness, OnMiss, RequestId, Statement, Value};

use crate::answer::{Answers, StatementResult};
use crate::client::Client;
use crate::error::Error;
use crate::exact::ExactJson;
use crate::session::SessionState;
use crate::transport::{Call, Effect};

/// What one request says for itself; the client's settings fill the rest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Options {
    pub(crate) deadline: Option<Duration>,
    pub(crate) on_miss: Option<OnMiss>,
    pub(crate) freshness: Freshness,
    pub(crate) request: Option<RequestId>,
}

/// A database, within a session or not.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    client: Client,
    database: Arc<str>,
    session: Option<Arc<SessionState>>,
}

impl Target {
    pub(crate) fn new(client: Client, database: String) -> Self {
        Self {
            client,
            database: database.into(),
            session: None,
        }
    }

    pub(crate) fn in_session(&self, session: Arc<SessionState>) -> Self {
        Self {
            session: Some(session),
            ..self.clone()
        }
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// Runs the statements as one transaction.
    pub(crate) async fn run(
        &self,
        statements: &[Statement],
        options: &Options,
    ) -> Result<Answers, Error> {
        let deadline = options.deadline.unwrap_or_else(|| self.client.deadline());
        check_deadline(deadline)?;
        let call = Call {
            method: Method::POST,
            path: self.client.database_path(&self.database, Some("raw"))?,
            headers: self.headers(options)?,
            body: Some(body(statements)?),
            request: options
                .request
                .unwrap_or_else(|| self.client.new_request_id()),
            deadline,
            // Only SQLite can tell a read from a write, so every request may be a write.
            effect: Effect::Possible,
            session: self.session.clone(),
        };
        let reply = self.client.call(&call).await.inspect_err(|error| {
            tracing::debug!(request = %call.request, %error, "request failed");
        })?;

        let bookmark = reply.bookmark().map(str::to_owned);
        let results = reply
            .result::<Vec<StatementResult>>()?
            .into_iter()
            .map(|result| result.into_raw(bookmark.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Answers {
            results,
            bookmark,
            served_by: text(&reply.headers, SERVED_BY).and_then(|text| text.parse().ok()),
            repeated: reply.headers.contains_key(REPEATED),
            delivered: text(&reply.headers, DELIVERED)
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            request: call.request,
            attempts: reply.attempts,
        })
    }

    fn headers(&self, options: &Options) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(VALUES, HeaderValue::from_static("exact"));
        if let Some(session) = &self.session {
            let constraint = session.constraint();
            let value = HeaderValue::from_str(&constraint).map_err(|_| {
                Error::config(format!(
                    "{constraint:?} cannot be a bookmark: want visible ASCII"
                ))
            })?;
            headers.insert(BOOKMARK, value);
        }
        if let Some(rule) = options.on_miss.or(self.client.on_miss()) {
            let rule = match rule {
                OnMiss::Forward => "forward",
                OnMiss::Stale => "stale",
                OnMiss::Error => "error",
            };
            headers.insert(ON_MISS, HeaderValue::from_static(rule));
        }
        if options.freshness != Freshness::Any {
            let wish = options.freshness.to_string();
            headers.insert(READ, HeaderValue::try_from(wish).expect("plain ASCII"));
        }
        Ok(headers)
    }
}

fn check_deadline(deadline: Duration) -> Result<(), Error> {
    if deadline.is_zero() || deadline > DEADLINE_MAX {
        let reason = format!("deadline {deadline:?} is not in 1ns..={DEADLINE_MAX:?}");
        return Err(Error::config(reason));
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn body(statements: &[Statement]) -> Result<Bytes, Error> {
    #[derive(Serialize)]
    struct Several<'a> {
        batch: Vec<One<'a>>,
    }

    let json = match statements {
        [statement] => serde_json::to_vec(&One::from(statement)),
        several => serde_json::to_vec(&Several {
            batch: several.iter().map(One::from).collect(),
        }),
    };
    json.map(Bytes::from)
        .map_err(|error| Error::config(format!("write request: {error}")))
}

#[derive(Serialize)]
struct One<'a> {
    sql: &'a str,
    #[serde(skip_serializing_if = "no_params", serialize_with = "exact")]
    params: &'a [Value],
}

impl<'a> From<&'a Statement> for One<'a> {
    fn from(statement: &'a Statement) -> Self {
        Self {
            sql: &statement.sql,
            params: &statement.params,
        }
    }
}

fn no_params(params: &&[Value]) -> bool {
    params.is_empty()
}

fn exact<S: Serializer>(params: &&[Value], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(params.len()))?;
    for value in *params {
        list.serialize_element(&ExactJson(value))?;
    }
    list.end()
}
