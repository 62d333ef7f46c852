//! What a Worker's D1 binding sends and understands, where it differs from the REST API.
//!
//! The body is one statement, `{"sql", "params"?}`, or an array of them, which is one transaction. A
//! success is the bare array that [`crate::render`] writes; a failure is one object, because of an array
//! the binding looks at the first element alone:
//!
//! ```text
//! {"success":false,"error":"<message>"}
//! ```

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

/// The answer to a binding whose request failed.
pub fn write_binding_failure(failure: &Failure) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'f> {
        success: bool,
        error: &'f str,
    }
    let Failure { kind, message, .. } = failure;
    // Programs for D1 know what to repeat by these words alone: they see neither status nor header.
    let known = if *kind == FailureKind::Unavailable {
        Some("Network connection lost.")
    } else if *kind == FailureKind::Damaged {
        Some("Internal error in D1 DB storage caused object to be reset.")
    } else {
        None
    };
    let error = match known {
        Some(known) => &format!("{known} {message}"),
        None => message,
    };
    let body = Body {
        success: false,
        error,
    };
    serde_json::to_vec(&body).expect("a string into a Vec")
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
