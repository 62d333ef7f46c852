//! What a Worker's D1 binding sends and understands, where it differs from the REST API.
//!
//! The body is one statement, `{"sql", "params"?}`, or an array of them, which is one transaction. A
//! success is the bare array that [`crate::render`] writes; a failure is one object, because of an array
//! the binding looks at the first element alone:
//!
//! ```text
//! {"success":false,"error":"<message>"}
//! ```
//!
//! `exec()` alone looks at every element of an array, to name the line that failed.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::query::{BadQuery, BatchSeed, Context, QueryBounds, StatementSeed};
use crate::error::{Failure, FailureKind};
use crate::render::ValueForm;
use crate::value::Statement;

/// Reads the body of a binding's `query` or `execute`. At least one statement is returned.
pub fn parse_binding(
    body: &[u8],
    form: ValueForm,
    bounds: &QueryBounds,
) -> Result<Vec<Statement>, BadQuery> {
    let statements = Context::parse(form, bounds, body, |context, from| {
        BodySeed(context).deserialize(from)
    })?;
    if statements.is_empty() {
        return Err(BadQuery::NoStatements);
    }
    Ok(statements)
}

/// The failed element of an answer, or all of the answer.
#[derive(Clone, Copy, Serialize)]
struct Failed<'f> {
    success: bool,
    error: &'f str,
}

/// An element that stands for a text before the one that failed. `exec()` adds up the durations.
#[derive(Clone, Copy, Serialize)]
struct Before {
    success: bool,
    results: [(); 0],
    meta: NoTime,
}

#[derive(Clone, Copy, Serialize)]
struct NoTime {
    duration: u32,
}

#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
enum Element<'f> {
    Before(Before),
    Failed(Failed<'f>),
}

/// The answer to a binding whose `query` failed.
pub fn write_binding_failure(failure: &Failure) -> Vec<u8> {
    let error = &words(failure);
    let failed = Failed {
        success: false,
        error,
    };
    serde_json::to_vec(&failed).expect("a string into a Vec")
}

/// The answer to a binding whose `execute` failed: behind an element for each text before the one that
/// did. Nothing of those remains, but the binding counts them.
pub fn write_exec_failure(failure: &Failure) -> Vec<u8> {
    let Some(count) = failure.text.filter(|count| *count > 0) else {
        return write_binding_failure(failure);
    };
    let before = Before {
        success: true,
        results: [],
        meta: NoTime { duration: 0 },
    };
    let error = &words(failure);
    let failed = Failed {
        success: false,
        error,
    };
    let before = std::iter::repeat_n(Element::Before(before), count);
    let elements: Vec<_> = before.chain([Element::Failed(failed)]).collect();
    serde_json::to_vec(&elements).expect("strings and numbers into a Vec")
}

/// Programs for D1 know what to repeat by these words alone: they see neither status nor header.
fn words(failure: &Failure) -> Cow<'_, str> {
    let Failure { kind, message, .. } = failure;
    let known = if *kind == FailureKind::Unavailable {
        "Network connection lost."
    } else if *kind == FailureKind::Damaged {
        "Internal error in D1 DB storage caused object to be reset."
    } else {
        return Cow::Borrowed(message);
    };
    Cow::Owned(format!("{known} {message}"))
}

struct BodySeed<'c>(&'c mut Context);

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Vec<Statement>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = Vec<Statement>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with sql, or an array of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let one = StatementSeed(self.0).visit_map(map)?;
        match one.sql {
            Some(sql) => Ok(vec![Statement {
                sql,
                params: one.params,
            }]),
            None => Err(self.0.refuse(BadQuery::NoSql { statement: 0 })),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Ok(BatchSeed(self.0).visit_seq(seq)?.unwrap_or_default())
    }
}
