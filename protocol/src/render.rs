//! From SQLite's rows to D1's JSON bytes, with no tree in between.
//!
//! The engine runs statements and tells a [`ResultSink`] what it sees; [`Renderer`] is the sink that
//! writes the `result` array of D1's answers. One element per statement:
//! `{"results":…,"success":true,"meta":{…}}`.

use std::time::Duration;

use bytes::Bytes;

use crate::value::ValueRef;

/// Receives what statements yield, in order: for each statement `begin_statement`, perhaps `columns`
/// and rows, `end_statement`.
pub trait ResultSink {
    /// A statement starts.
    fn begin_statement(&mut self);

    /// Its result columns, before its first row. Not called for a statement without columns.
    fn columns(&mut self, names: &[&str]);

    /// A row starts; one `cell` per column follows, then `end_row`.
    fn begin_row(&mut self);

    /// The value of column `index`.
    fn cell(&mut self, index: usize, value: ValueRef<'_>);

    /// The row is complete. An error stops the request.
    fn end_row(&mut self) -> Result<(), AnswerLimit>;

    /// The statement is complete.
    fn end_statement(&mut self, statistics: &StatementStatistics);

    /// Forget everything: the request starts again from its first statement.
    fn reset(&mut self);

    /// The answer so far as bytes, to be recorded with the transaction for retries.
    fn recorded(&self) -> &[u8];
}

/// The answer outgrew its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerLimit {
    /// Too many bytes.
    #[error("the answer exceeds the limit of {max} bytes")]
    Bytes {
        /// The bound.
        max: usize,
    },
    /// Too many rows.
    #[error("the answer exceeds the limit of {max} rows")]
    Rows {
        /// The bound.
        max: u64,
    },
}

/// What SQLite counted during one statement. The fields of D1's `meta` that the engine knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatementStatistics {
    /// Time in SQLite.
    pub duration: Duration,
    /// Rows changed, including by triggers and cascades (`total_changes` difference).
    pub changes: i64,
    /// The connection's last inserted rowid, whatever statement set it.
    pub last_row_id: i64,
    /// Whether the statement wrote: it was not read-only and changed a page or a row.
    pub changed_db: bool,
    /// Bytes of the database after the statement.
    pub size_after: u64,
    /// libSQL's counter of rows read.
    pub rows_read: u64,
    /// libSQL's counter of rows written, index entries included.
    pub rows_written: u64,
}

/// Shape of `results`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RowShape {
    /// An array of objects (`/query`).
    #[default]
    Objects,
    /// `{"columns":[…],"rows":[[…]]}` (`/raw`).
    Arrays,
}

/// How values are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ValueForm {
    /// As D1 has them: every number a JavaScript double, blobs as arrays of bytes.
    #[default]
    D1,
    /// Without loss: 64-bit integers, reals always with a point or exponent, blobs as
    /// `{"base64":"…"}`, infinities as `{"real":"Infinity"}` and `{"real":"-Infinity"}`.
    Exact,
}

/// Who ran the statements: the same in every element of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServedBy {
    /// Region of the node.
    pub region: String,
    /// Whether it is the primary.
    pub primary: bool,
}

/// Bounds of one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnswerBounds {
    /// Rows of all statements together.
    pub rows_max: u64,
    /// Bytes of JSON.
    pub bytes_max: usize,
}

impl Default for AnswerBounds {
    fn default() -> Self {
        Self { rows_max: 1_000_000, bytes_max: 64 << 20 }
    }
}

/// Writes D1's `result` array.
#[derive(Debug)]
pub struct Renderer {
    shape: RowShape,
    form: ValueForm,
    bounds: AnswerBounds,
    /// `,"served_by":…` as far as it is the same for every statement.
    served_by: Vec<u8>,
    out: Vec<u8>,
    rows: u64,
    statements: usize,
    rows_of_statement: u64,
    /// Whether the statement in hand has announced its columns.
    has_columns: bool,
    /// Per column of the statement in hand: `"name":` ready to write; empty for one that a later
    /// column of the same name hides in an object.
    keys: Vec<Vec<u8>>,
    first_cell: bool,
}

impl Renderer {
    /// The finished `result` array.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.out)
    }
}
