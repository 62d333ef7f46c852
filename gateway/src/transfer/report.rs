//! What D1 answers to whoever starts an import or an export, or asks how it goes.
//!
//! Failures of one are inside an answer that went well: `success` of the envelope is true.

use serde::Serialize;

use super::jobs::Told;

/// Which kind of job it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Import,
    Export,
}

/// How it goes.
#[derive(Serialize)]
pub(super) struct Report<R> {
    success: bool,
    #[serde(rename = "type")]
    kind: Kind,
    status: Status,
    at_bookmark: String,
    messages: Vec<String>,
    /// The documentation has `error`, wrangler reads `errors` of an import.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<R>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Active,
    Complete,
    Error,
}

impl<R> Report<R> {
    pub(super) fn new(kind: Kind, told: Told<R>) -> Self {
        let Told { at, messages, end } = told;
        let (status, result, error) = match end {
            None => (Status::Active, None, None),
            Some(Ok(result)) => (Status::Complete, Some(result), None),
            Some(Err(error)) => (Status::Error, None, Some(error)),
        };
        Self {
            success: true,
            kind,
            status,
            at_bookmark: at,
            messages,
            errors: error.iter().cloned().collect(),
            error,
            result,
        }
    }
}

/// There is nothing to tell of, or it cannot be begun.
#[derive(Serialize)]
pub(super) struct Refused {
    success: bool,
    #[serde(rename = "type")]
    kind: Kind,
    error: String,
}

impl Refused {
    pub(super) fn new(kind: Kind, error: impl Into<String>) -> Self {
        Self {
            success: false,
            kind,
            error: error.into(),
        }
    }
}

/// Either.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Outcome<R> {
    Told(Report<R>),
    Refused(Refused),
}
