//! What comes back: rows, the server's account of the work, and the bookmark of the state.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemark_protocol::{Delivered, RequestId, Value};

use crate::error::Error;
use crate::exact::Exact;
use crate::row;

/// The server's account of one statement: D1's `meta`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Meta {
    /// What served it: the server's build.
    pub served_by: String,
    /// Region of the node that ran it.
    pub served_by_region: Option<String>,
    /// Whether that node was the primary.
    pub served_by_primary: bool,
    /// Time in SQLite, without the network. In JSON milliseconds, as D1 has it.
    #[serde(with = "milliseconds")]
    pub duration: Duration,
    /// Rows changed, those of triggers and cascades included.
    pub changes: i64,
    /// The last inserted rowid of the connection, whatever statement set it.
    pub last_row_id: i64,
    /// Whether the statement wrote.
    pub changed_db: bool,
    /// Bytes of the database after the statement.
    pub size_after: u64,
    /// Rows read, by libSQL's count.
    pub rows_read: u64,
    /// Rows written, by libSQL's count, index entries included.
    pub rows_written: u64,
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64() * 1000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let ms = f64::deserialize(from)?;
        // A strange duration is no reason to lose an answer.
        Ok(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default())
    }
}

/// Rows of one statement as `T`.
#[derive(Clone, PartialEq, Debug)]
pub struct QueryResult<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The server's account.
    pub meta: Meta,
    /// The state that was read or written.
    pub bookmark: Option<String>,
}

/// A statement that was run for its effect.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// The server's account. All zero and empty when an earlier try of the request had taken effect and
    /// its answer was not kept.
    pub meta: Meta,
    /// The state that was read or written.
    pub bookmark: Option<String>,
}

/// Rows of one statement as they are: columns in order, equal names included.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RawResult {
    /// Names of the columns. Empty for a statement without a result.
    pub columns: Vec<String>,
    /// One value per column each.
    pub rows: Vec<Vec<Value>>,
    /// The server's account.
    pub meta: Meta,
    /// The state that was read or written.
    pub bookmark: Option<String>,
}

impl RawResult {
    /// The rows as `T`: a struct by column name, a tuple by place, anything else from the only column.
    pub fn typed<T: DeserializeOwned>(self) -> Result<QueryResult<T>, Error> {
        let Self {
            columns,
            rows,
            meta,
            bookmark,
        } = self;
        let rows = rows
            .into_iter()
            .enumerate()
            .map(|(index, values)| {
                row::from_row(&columns, values)
                    .map_err(|error| Error::decode(format!("row {index}: {error}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(QueryResult {
            rows,
            meta,
            bookmark,
        })
    }

    /// The first row as `T`.
    pub(crate) fn first<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        let Some(values) = self.rows.into_iter().next() else {
            return Ok(None);
        };
        row::from_row(&self.columns, values)
            .map(Some)
            .map_err(|error| Error::decode(format!("row 0: {error}")))
    }

    /// The value of `column` in the first row as `T`.
    pub(crate) fn first_column<T: DeserializeOwned>(
        self,
        column: &str,
    ) -> Result<Option<T>, Error> {
        // The last of equal names, as in a row that is read by name.
        let Some(index) = self.columns.iter().rposition(|name| name == column) else {
            return Err(Error::decode(format!(
                "no column '{column}' among '{}'",
                self.columns.join("', '")
            )));
        };
        let Some(mut values) = self.rows.into_iter().next() else {
            return Ok(None);
        };
        // Rows were checked against the columns when the answer was read.
        row::from_value(values.swap_remove(index))
            .map(Some)
            .map_err(|error| Error::decode(format!("row 0: column '{column}': {error}")))
    }
}

/// The answer to one request: a result per statement, in order.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Answers {
    /// One result per statement. None at all when an earlier try of the same request had taken effect
    /// and its answer was not kept, such as one that was too long.
    pub results: Vec<RawResult>,
    /// The state that was read or written.
    pub bookmark: Option<String>,
    /// The node that ran it.
    pub served_by: Option<ServedBy>,
    /// Whether an earlier try of the same request had taken effect and this is its recorded answer, or
    /// what is left of it.
    pub repeated: bool,
    /// How long nodes waited, what the answer may miss, and why it was handed on, if it was.
    pub delivered: Delivered,
    /// The id the request was sent under.
    pub request: RequestId,
    /// How many times it was sent.
    pub attempts: u32,
}

impl Answers {
    /// The result of the last statement.
    pub(crate) fn into_last(mut self) -> Result<RawResult, Error> {
        if self.is_forgotten() {
            let Self {
                request, bookmark, ..
            } = self;
            let bookmark = bookmark.as_deref().unwrap_or("an unnamed state");
            return Err(Error::decode(format!(
                "request {request} took effect at {bookmark}, but the answer of its first try was not kept"
            )));
        }
        self.results
            .pop()
            .ok_or_else(|| Error::decode("the answer holds no result"))
    }

    /// What became of the last statement, whatever it gave.
    pub(crate) fn into_outcome(self) -> Result<Outcome, Error> {
        if self.is_forgotten() {
            return Ok(Outcome {
                meta: Meta::default(),
                bookmark: self.bookmark,
            });
        }
        let RawResult { meta, bookmark, .. } = self.into_last()?;
        Ok(Outcome { meta, bookmark })
    }

    /// Whether the request is known to have taken effect, and nothing else is left of its answer.
    fn is_forgotten(&self) -> bool {
        self.repeated && self.results.is_empty()
    }
}

/// The node that ran a request, as it names itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServedBy {
    /// Its region.
    pub region: String,
    /// `primary` or `replica`.
    pub role: String,
    /// Its identifier.
    pub node: String,
}

impl FromStr for ServedBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(region), Some(role), Some(node)) => Ok(Self { region, role, node }),
            _ => Err(Error::decode(format!("'{text}' is not REGION/role/node"))),
        }
    }
}

impl fmt::Display for ServedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.role, self.node)
    }
}

/// One element of the `result` array of `/raw`.
#[derive(Deserialize)]
pub(crate) struct StatementResult {
    #[serde(default)]
    results: Option<ColumnsAndRows>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize)]
struct ColumnsAndRows {
    columns: Vec<String>,
    rows: Vec<Vec<Exact>>,
}

impl StatementResult {
    pub(crate) fn into_raw(self, bookmark: Option<String>) -> Result<RawResult, Error> {
        let Self { results, meta } = self;
        let (columns, rows) = match results {
            Some(ColumnsAndRows { columns, rows }) => (columns, rows),
            None => (Vec::new(), Vec::new()),
        };
        if let Some(row) = rows.iter().find(|row| row.len() != columns.len()) {
            return Err(Error::decode(format!(
                "a row has {} values, expected {}",
                row.len(),
                columns.len()
            )));
        }
        let rows = rows
            .into_iter()
            .map(|row| row.into_iter().map(|Exact(value)| value).collect())
            .collect();
        Ok(RawResult {
            columns,
            rows,
            meta,
            bookmark,
        })
    }
}
