//! The three shapes of GraphQL that D1's tools ask for. They are told apart by the field that a query names;
//! there is no GraphQL here.
//!
//! Sizes are real. Queries are not counted yet: their lists are empty, which is how D1 says that it has no
//! figures.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemark_protocol::{Failure, FailureKind, Node};

use crate::ask::Ask;
use crate::databases::looked;
use crate::envelope;
use crate::gateway::{Gateway, check_database};
use crate::metrics::Route;

const STORAGE: &str = "d1StorageAdaptiveGroups";
const QUERIES: [&str; 2] = ["d1AnalyticsAdaptiveGroups", "d1QueriesAdaptiveGroups"];

#[derive(Deserialize)]
struct Question {
    query: String,
    #[serde(default)]
    variables: Value,
}

pub(crate) async fn graphql<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let work = async {
        let ask = Ask::read(&head.headers)?;
        let body = gateway.gate.read(&head.headers, body, ask.expires).await?;
        let question: Question = serde_json::from_slice(&body.bytes).map_err(|error| {
            let text = format!("The request is malformed: {error}");
            Failure::new(FailureKind::BadRequest, text)
        })?;
        let mut groups = serde_json::Map::new();
        if question.query.contains(STORAGE) {
            groups.insert(STORAGE.to_owned(), sizes(&gateway, &question, &ask).await?);
        }
        for field in QUERIES {
            if question.query.contains(field) {
                groups.insert(field.to_owned(), json!([]));
            }
        }
        Ok(answer(&groups.into()))
    };
    gateway.answer(Route::Analytics, &head, work).await
}

/// Bytes of the database that the filter names, wherever in its conditions.
async fn sizes<N: Node>(
    gateway: &Gateway<N>,
    question: &Question,
    ask: &Ask,
) -> Result<Value, Failure> {
    let Some(database) = named(&question.variables) else {
        return Ok(json!([]));
    };
    check_database(database)?;
    let found = looked(ask, gateway.node.database(database)).await?;
    Ok(found.map_or_else(
        || json!([]),
        |info| {
            json!([{
                "max": { "databaseSizeBytes": info.file_size },
                "dimensions": { "databaseId": info.uuid },
            }])
        },
    ))
}

fn named(variables: &Value) -> Option<&str> {
    match variables {
        Value::Object(properties) => match properties.get("databaseId") {
            Some(Value::String(database)) => Some(database),
            _ => properties.values().find_map(named),
        },
        Value::Array(items) => items.iter().find_map(named),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// GraphQL's own envelope.
fn answer(groups: &Value) -> Response {
    let body = json!({ "data": { "viewer": { "accounts": [groups] } }, "errors": null });
    envelope::json(StatusCode::OK, Body::from(body.to_string()))
}
