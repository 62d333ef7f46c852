//! The envelope around every answer of the v4 API.
//!
//! ```text
//! {"result":T|null,"success":bool,"errors":[{"code","message"}],"messages":[],"result_info"?:{…}}
//! ```

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Failure;

/// What precedes the `result` of a success.
pub const ENVELOPE_HEAD: &[u8] = br#"{"result":"#;
/// What follows it.
pub const ENVELOPE_TAIL: &[u8] = br#","success":true,"errors":[],"messages":[]}"#;

/// An answer of the v4 API, as a client reads it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// What was asked for; `None` on failure.
    pub result: Option<T>,
    /// Whether it worked.
    pub success: bool,
    /// Why not.
    #[serde(default)]
    pub errors: Vec<ErrorItem>,
    /// Remarks.
    #[serde(default)]
    pub messages: Vec<ErrorItem>,
    /// Which page of a list this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_info: Option<ResultInfo>,
}

/// One error or remark.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorItem {
    /// D1's code, or one of our own.
    pub code: u32,
    /// For people.
    pub message: String,
}

impl From<&Failure> for ErrorItem {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.kind.code(),
            message: failure.message.clone(),
        }
    }
}

/// Which page of a list an answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResultInfo {
    /// From 1.
    pub page: u64,
    /// Items a full page has.
    pub per_page: u64,
    /// Items on this page.
    pub count: u64,
    /// Items on all pages.
    pub total_count: u64,
}

/// One element of the `result` of a query. `R` is an array of objects or `{columns, rows}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatementResult<R> {
    /// The rows.
    pub results: R,
    /// Always true: a failed statement fails the request.
    pub success: bool,
    /// What it cost and changed.
    pub meta: Meta,
}

/// D1's `meta`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// The build that answered.
    pub served_by: String,
    /// The region that answered.
    pub served_by_region: String,
    /// Whether the primary answered.
    pub served_by_primary: bool,
    /// Times.
    pub timings: Timings,
    /// Milliseconds in SQLite.
    pub duration: f64,
    /// Rows changed, by triggers and cascades too.
    #[serde(deserialize_with = "integer")]
    pub changes: i64,
    /// The connection's last inserted rowid.
    #[serde(deserialize_with = "integer")]
    pub last_row_id: i64,
    /// Whether the statement wrote.
    pub changed_db: bool,
    /// Bytes of the database afterwards.
    pub size_after: u64,
    /// Rows read.
    pub rows_read: u64,
    /// Rows written, index entries included.
    pub rows_written: u64,
    /// Tries it took.
    pub total_attempts: u32,
}

/// Times within one statement's `meta`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Timings {
    /// Milliseconds in SQLite.
    pub sql_duration_ms: f64,
}

/// Reads an integer that may have passed through a double: the largest rowid comes out above itself.
fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Integer(i64),
        Double(f64),
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, as it should"
    )]
    Ok(match Number::deserialize(from)? {
        Number::Integer(integer) => integer,
        Number::Double(double) => double as i64,
    })
}

/// The envelope of a success around `result`, which is JSON already.
pub fn write_success(result: &[u8], info: Option<&ResultInfo>) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENVELOPE_HEAD.len() + result.len() + ENVELOPE_TAIL.len() + 80);
    out.extend_from_slice(ENVELOPE_HEAD);
    out.extend_from_slice(result);
    out.extend_from_slice(ENVELOPE_TAIL);
    if let Some(info) = info {
        let closing = out.pop();
        debug_assert_eq!(closing, Some(b'}'));
        out.extend_from_slice(br#","result_info":"#);
        serde_json::to_writer(&mut out, info).expect("numbers into a Vec");
        out.push(b'}');
    }
    out
}

/// The envelope of a failure.
pub fn write_failure(error: &ErrorItem) -> Vec<u8> {
    let envelope = Envelope::<()> {
        result: None,
        success: false,
        errors: vec![error.clone()],
        messages: Vec::new(),
        result_info: None,
    };
    serde_json::to_vec(&envelope).expect("numbers and strings into a Vec")
}
