//! GraphQL as far as D1's tools speak it: lists of groups of figures, of one database or of each.
//!
//! The query is parsed and its fields are answered that there are, with all their figures, whatever was selected
//! of them: `d1StorageAdaptiveGroups` (sizes), `d1AnalyticsAdaptiveGroups` (per hour) and
//! `d1QueriesAdaptiveGroups` (per query), with `limit`, `orderBy` and a `filter` of moments and `databaseId`. The figures are those
//! of [`crate::statistics`].

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use graphql_parser::query::{
    Definition, Field, OperationDefinition, Selection, SelectionSet, Value as Argument, parse_query,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidemark_protocol::{DatabaseId, Failure, FailureKind, Node};

use crate::ask::Ask;
use crate::databases::looked;
use crate::envelope;
use crate::gateway::{Gateway, check_database};
use crate::metrics::Route;
use crate::statistics::{Hour, HourFigures, Query, milliseconds};

const STORAGE: &str = "d1StorageAdaptiveGroups";
const ANALYTICS: &str = "d1AnalyticsAdaptiveGroups";
const QUERIES: &str = "d1QueriesAdaptiveGroups";
/// Lists in one question.
const FIELDS_MAX: usize = 8;
/// Fields to order a list by.
const ORDER_MAX: usize = 4;
/// Longest question, in bytes: what is said in it is copied for each list.
const QUESTION_BYTES_MAX: usize = 16 << 10;
/// Values and bytes of text that variables may bring, each as often as it is used: all that a question can say, in
/// each list.
const VARIABLES_MAX: usize = FIELDS_MAX * QUESTION_BYTES_MAX;
/// Groups in a list that asks for no bound, and most that it may ask for. As D1's API has it.
const LIMIT_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Question {
    query: String,
    #[serde(default)]
    variables: Map<String, Value>,
}

/// What one field asks for.
struct Wanted {
    database: Option<String>,
    hours: RangeInclusive<Hour>,
    limit: usize,
    order: Vec<String>,
}

pub(crate) async fn graphql<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let work = async {
        let ask = Ask::read(&head.headers)?;
        let body = gateway.gate.read(&head.headers, body, ask.expires).await?;
        let question = Question::parse(&body.bytes)?;
        let fields = match fields(&question) {
            Ok(fields) => fields,
            Err(error) => return Ok(refused(&error)),
        };
        let mut groups = Map::new();
        for (name, field, wanted) in fields {
            let list = match field.as_str() {
                STORAGE => sizes(&gateway, &wanted, &ask).await?,
                ANALYTICS => by_hour(&gateway, &wanted),
                QUERIES => by_query(&gateway, &wanted),
                // What there is of other products is none of ours.
                _ => json!([]),
            };
            groups.insert(name, list);
        }
        Ok(answer(&groups.into()))
    };
    gateway.answer(Route::Analytics, &head, work).await
}

impl Question {
    fn parse(body: &[u8]) -> Result<Self, Failure> {
        let bytes = body.len();
        if bytes > QUESTION_BYTES_MAX {
            let text = format!("the question has {bytes} bytes, the limit is {QUESTION_BYTES_MAX}");
            return Err(Failure::new(FailureKind::TooLarge, text));
        }
        serde_json::from_slice(body).map_err(|error| {
            let text = format!("The request is malformed: {error}");
            Failure::new(FailureKind::BadRequest, text)
        })
    }
}

/// Reads a question as if it were to be answered.
#[cfg(feature = "fuzzing")]
pub(crate) fn understood(body: &[u8]) {
    if let Ok(question) = Question::parse(body) {
        let _ = fields(&question);
    }
}

/// The fields of the account: the name of each in the answer, its own, and what it asks for.
fn fields(question: &Question) -> Result<Vec<(String, String, Wanted)>, String> {
    let document = parse_query::<String>(&question.query).map_err(|error| error.to_string())?;
    let mut variables = Variables {
        given: &question.variables,
        left: VARIABLES_MAX,
    };
    let mut found = Vec::new();
    for definition in &document.definitions {
        let Definition::Operation(operation) = definition else {
            continue;
        };
        let selected = match operation {
            OperationDefinition::SelectionSet(set) => set,
            OperationDefinition::Query(query) => &query.selection_set,
            OperationDefinition::Mutation(_) | OperationDefinition::Subscription(_) => {
                return Err("only queries are answered".to_owned());
            }
        };
        for viewer in named(selected, "viewer") {
            for account in named(&viewer.selection_set, "accounts") {
                for field in all(&account.selection_set) {
                    if found.len() == FIELDS_MAX {
                        return Err(format!("more than {FIELDS_MAX} lists at a time"));
                    }
                    let name = field.alias.as_ref().unwrap_or(&field.name).clone();
                    let wanted = wanted(field, &mut variables)?;
                    found.push((name, field.name.clone(), wanted));
                }
            }
        }
    }
    Ok(found)
}

fn all<'s>(
    set: &'s SelectionSet<'s, String>,
) -> impl Iterator<Item = &'s Field<'s, String>> + use<'s> {
    set.items.iter().filter_map(|item| match item {
        Selection::Field(field) => Some(field),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => None,
    })
}

fn named<'s>(
    set: &'s SelectionSet<'s, String>,
    name: &'static str,
) -> impl Iterator<Item = &'s Field<'s, String>> + use<'s> {
    all(set).filter(move |field| field.name == name)
}

/// What was given for the variables of a question.
struct Variables<'q> {
    given: &'q Map<String, Value>,
    /// What they may still bring: one that is long and used often would be copied as often.
    left: usize,
}

impl Variables<'_> {
    fn get(&mut self, name: &str) -> Result<Value, String> {
        let Some(value) = self.given.get(name) else {
            return Ok(Value::Null);
        };
        let left = self.left.checked_sub(size(value));
        self.left =
            left.ok_or_else(|| format!("variables are too long for all uses of '${name}'"))?;
        Ok(value.clone())
    }
}

/// Values in it, and bytes of their text.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => {
            let field = |(name, field): (&String, &Value)| name.len() + size(field);
            fields.iter().map(field).sum()
        }
    }
}

fn wanted(field: &Field<'_, String>, variables: &mut Variables<'_>) -> Result<Wanted, String> {
    let mut arguments = BTreeMap::new();
    for (name, argument) in &field.arguments {
        arguments.insert(name.as_str(), plain(argument, variables)?);
    }
    let limit = arguments.get("limit").and_then(Value::as_u64);
    let limit = limit.map_or(LIMIT_MAX, |limit| {
        usize::try_from(limit).unwrap_or(LIMIT_MAX)
    });
    let order = match arguments.get("orderBy") {
        Some(Value::Array(fields)) => fields
            .iter()
            .filter_map(Value::as_str)
            .take(ORDER_MAX)
            .collect(),
        Some(Value::String(field)) => vec![field.as_str()],
        _ => Vec::new(),
    };
    let mut wanted = Wanted {
        database: None,
        hours: Hour(0)..=Hour(u64::MAX),
        limit: limit.min(LIMIT_MAX),
        order: order.into_iter().map(str::to_owned).collect(),
    };
    if let Some(filter) = arguments.get("filter") {
        narrow(&mut wanted, filter)?;
    }
    Ok(wanted)
}

/// An argument as JSON, its variables put in.
fn plain(argument: &Argument<'_, String>, variables: &mut Variables<'_>) -> Result<Value, String> {
    Ok(match argument {
        Argument::Variable(name) => variables.get(name)?,
        Argument::Int(number) => json!(number.as_i64()),
        Argument::Float(number) => json!(number),
        Argument::String(text) | Argument::Enum(text) => json!(text),
        Argument::Boolean(flag) => json!(flag),
        Argument::Null => Value::Null,
        Argument::List(items) => {
            let items = items.iter().map(|item| plain(item, variables));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Argument::Object(fields) => {
            let field = |(name, field): (&String, _)| Ok((name.clone(), plain(field, variables)?));
            Value::Object(fields.iter().map(field).collect::<Result<_, String>>()?)
        }
    })
}

/// Takes the conditions of a filter, also those within `AND`. Moments count by the hour they are in.
fn narrow(wanted: &mut Wanted, filter: &Value) -> Result<(), String> {
    if let Value::Array(all) = filter {
        return all.iter().try_for_each(|one| narrow(wanted, one));
    }
    let Value::Object(conditions) = filter else {
        return Ok(());
    };
    for (name, value) in conditions {
        let unknown = || format!("the condition '{name}' is none that is answered");
        match (name.as_str(), value) {
            ("AND", conditions) => narrow(wanted, conditions)?,
            ("databaseId", Value::String(database)) => wanted.database = Some(database.clone()),
            (name, Value::String(moment)) => {
                let (what, bound) = name.rsplit_once('_').unwrap_or((name, "eq"));
                if !matches!(what, "datetimeHour" | "datetime" | "date") {
                    return Err(unknown());
                }
                let Span {
                    first,
                    last,
                    begins,
                } = span(moment)?;
                let (start, end) = (*wanted.hours.start(), *wanted.hours.end());
                wanted.hours = match bound {
                    "eq" => start.max(first)..=end.min(last),
                    "geq" => start.max(first)..=end,
                    "gt" => start.max(Hour(last.0.saturating_add(u64::from(what == "date"))))..=end,
                    "leq" => start..=end.min(last),
                    "lt" if begins => start..=end.min(Hour(first.0.saturating_sub(1))),
                    "lt" => start..=end.min(first),
                    _ => return Err(unknown()),
                };
            }
            _ => return Err(unknown()),
        }
    }
    Ok(())
}

/// A moment or a day, in hours.
struct Span {
    first: Hour,
    last: Hour,
    /// Nothing of the first hour is before it.
    begins: bool,
}

fn span(text: &str) -> Result<Span, String> {
    const HOUR_MS: i64 = 3_600_000;
    let wrong = |error: jiff::Error| format!("'{text}' is no moment: {error}");
    let is_day = !text.contains('T');
    let at = if is_day {
        let day: jiff::civil::Date = text.parse().map_err(wrong)?;
        TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0))
    } else {
        text.parse()
    };
    let ms = at.map_err(wrong)?.as_millisecond();
    let first = Hour::of(u64::try_from(ms).unwrap_or(0));
    Ok(Span {
        first,
        last: Hour(first.0 + if is_day { 23 } else { 0 }),
        begins: ms % HOUR_MS == 0,
    })
}

/// Bytes of the database that the filter names.
async fn sizes<N: Node>(
    gateway: &Gateway<N>,
    wanted: &Wanted,
    ask: &Ask,
) -> Result<Value, Failure> {
    let Some(database) = &wanted.database else {
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

/// Whether the figures of a database are wanted: `None` if it is unknown here, of all if none is named.
fn of_whom<N: Node>(gateway: &Gateway<N>, wanted: &Wanted) -> Option<Option<DatabaseId>> {
    match &wanted.database {
        None => Some(None),
        Some(name) => gateway.node.resolve(name).map(Some),
    }
}

fn by_hour<N: Node>(gateway: &Gateway<N>, wanted: &Wanted) -> Value {
    let Some(database) = of_whom(gateway, wanted) else {
        return json!([]);
    };
    let hours = gateway.statistics.hours(wanted.hours.clone(), database);
    let groups = hours.into_iter().take(wanted.limit);
    groups
        .map(|(hour, database, figures)| hour_group(hour, database, &figures))
        .collect()
}

fn hour_group(hour: Hour, database: DatabaseId, figures: &HourFigures) -> Value {
    let seconds = i64::try_from(hour.0.saturating_mul(3600)).unwrap_or(i64::MAX);
    let begun = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let count = figures.count();
    json!({
        "count": count,
        "sum": {
            "readQueries": figures.read_queries,
            "writeQueries": figures.write_queries,
            "rowsRead": figures.rows_read,
            "rowsWritten": figures.rows_written,
            "queryBatchResponseBytes": figures.answer_bytes,
        },
        "avg": { "queryBatchTimeMs": average(milliseconds(figures.duration), count) },
        "quantiles": { "queryBatchTimeMsP90": figures.duration_p90().map(milliseconds) },
        "dimensions": {
            "datetimeHour": begun.to_string(),
            "date": begun.strftime("%F").to_string(),
            "databaseId": database,
        },
    })
}

fn by_query<N: Node>(gateway: &Gateway<N>, wanted: &Wanted) -> Value {
    let Some(database) = of_whom(gateway, wanted) else {
        return json!([]);
    };
    let mut queries = gateway.statistics.queries(wanted.hours.clone(), database);
    queries.sort_by(|one, other| {
        let by = |field: &String| {
            let (figure, descending) = match field.rsplit_once('_') {
                Some((figure, "DESC")) => (figure, true),
                Some((figure, "ASC")) => (figure, false),
                _ => (field.as_str(), false),
            };
            let order = measure(figure, one).total_cmp(&measure(figure, other));
            if descending { order.reverse() } else { order }
        };
        let given = wanted.order.iter().map(by);
        let given = given.fold(Ordering::Equal, Ordering::then);
        // Always the same order, whatever the maps inside have.
        given.then_with(|| (&one.text, one.database).cmp(&(&other.text, other.database)))
    });
    queries.iter().take(wanted.limit).map(query_group).collect()
}

/// A figure by its name in `orderBy`. One that is not known orders nothing.
fn measure(figure: &str, query: &Query) -> f64 {
    let figures = &query.figures;
    let of = |name: &str| match name {
        "queryDurationMs" => milliseconds(figures.duration),
        "rowsRead" => figures.rows_read as f64,
        "rowsWritten" => figures.rows_written as f64,
        "rowsReturned" => figures.rows_returned as f64,
        _ => 0.0,
    };
    match figure.split_once('_') {
        Some(("sum", name)) => of(name),
        Some(("avg", name)) => average(of(name), figures.count),
        _ if figure == "count" => figures.count as f64,
        _ => 0.0,
    }
}

fn query_group(query: &Query) -> Value {
    let figures = &query.figures;
    let of = |sum: u64| average(sum as f64, figures.count);
    json!({
        "count": figures.count,
        "sum": {
            "queryDurationMs": milliseconds(figures.duration),
            "rowsRead": figures.rows_read,
            "rowsWritten": figures.rows_written,
            "rowsReturned": figures.rows_returned,
        },
        "avg": {
            "queryDurationMs": average(milliseconds(figures.duration), figures.count),
            "rowsRead": of(figures.rows_read),
            "rowsWritten": of(figures.rows_written),
            "rowsReturned": of(figures.rows_returned),
        },
        "dimensions": { "query": &*query.text, "databaseId": query.database },
    })
}

fn average(sum: f64, count: u64) -> f64 {
    sum / count.max(1) as f64
}

/// GraphQL's own envelope.
fn answer(groups: &Value) -> Response {
    let body = json!({ "data": { "viewer": { "accounts": [groups] } }, "errors": null });
    envelope::json(StatusCode::OK, Body::from(body.to_string()))
}

/// The same for what is no query.
fn refused(error: &str) -> Response {
    let body = json!({ "data": null, "errors": [{ "message": error }] });
    envelope::json(StatusCode::OK, Body::from(body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each use of a variable is a copy of it: within the bound on a question, a long one that is used often would
    /// take half a gigabyte.
    #[test]
    fn a_long_variable_that_is_used_often_is_refused() {
        let fields = |uses: usize, length: usize| {
            let argument = "$v".repeat(uses);
            let query = format!("{{ viewer {{ accounts {{ a(orderBy: [{argument}]) }} }} }}");
            let body = json!({ "query": query, "variables": { "v": vec![0; length] } });
            let question = Question::parse(body.to_string().as_bytes()).expect("short enough");
            super::fields(&question).map(|fields| fields.len())
        };
        assert_eq!(fields(1, 4000), Ok(1));
        assert_eq!(fields(30, 4000), Ok(1));
        let refused = fields(3500, 4000).expect_err("far too much");
        assert!(refused.contains("'$v'"), "{refused}");
    }
}
