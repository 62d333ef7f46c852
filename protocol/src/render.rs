//! From SQLite's rows to D1's JSON bytes, with no tree in between.
//!
//! The engine runs statements and tells a [`ResultSink`] what it sees; [`Renderer`] is the sink that
//! writes the `result` array of D1's answers. One element per statement, or per text of statements:
//! `{"results":…,"success":true,"meta":{…}}`.
//!
//! This is the hot path of every read: cells are written straight into one growing buffer and nothing
//! is allocated per cell or per row. Between statements the buffer is always a complete JSON array
//! (the next statement overwrites the closing bracket), which is what makes [`ResultSink::recorded`]
//! free.

mod json;
mod meta;
mod script;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use self::meta::Meta;
pub use self::script::ScriptRenderer;
use crate::value::ValueRef;

/// Receives what statements yield, in order: for each text `begin_text`, and for each statement in it
/// `begin_statement`, perhaps `columns` and rows, `end_statement`.
pub trait ResultSink {
    /// A text of the request starts. It may hold several statements, or none.
    fn begin_text(&mut self) {}

    /// A statement starts.
    fn begin_statement(&mut self);

    /// Its result columns, before its first row. Not called for a statement without columns. An error
    /// stops the request: names may be as long as SQL, and come without a single row.
    fn columns(&mut self, names: &[&str]) -> Result<(), AnswerLimit>;

    /// A row starts; one `cell` per column follows, then `end_row`.
    fn begin_row(&mut self);

    /// The value of column `index`.
    fn cell(&mut self, index: usize, value: ValueRef<'_>);

    /// The row is complete. An error stops the request.
    fn end_row(&mut self) -> Result<(), AnswerLimit>;

    /// The statement is complete. An error stops the request: statements without rows add up too.
    fn end_statement(&mut self, statistics: &StatementStatistics) -> Result<(), AnswerLimit>;

    /// Forget everything: the request starts again from its first statement.
    fn reset(&mut self);

    /// The answer so far as bytes, to be recorded with the transaction for retries. Asked between
    /// statements, as at the commit, it is a complete JSON array.
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

impl StatementStatistics {
    /// Of both statements, the later one `next`.
    #[must_use]
    fn then(&self, next: &Self) -> Self {
        Self {
            duration: self.duration.saturating_add(next.duration),
            changes: self.changes.saturating_add(next.changes),
            last_row_id: next.last_row_id,
            changed_db: self.changed_db || next.changed_db,
            size_after: next.size_after,
            rows_read: self.rows_read.saturating_add(next.rows_read),
            rows_written: self.rows_written.saturating_add(next.rows_written),
        }
    }
}

/// An answer, and what it cost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rendered {
    /// D1's `result` array.
    pub results: Bytes,
    /// What its statements came to.
    pub tally: Tally,
}

/// What the statements of a request came to, for statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Statements that ran.
    pub statements: u64,
    /// Rows in the answer.
    pub rows_returned: u64,
    /// libSQL's counter of rows read.
    pub rows_read: u64,
    /// libSQL's counter of rows written.
    pub rows_written: u64,
    /// Whether any statement changed the database.
    pub wrote: bool,
    /// Time in SQLite.
    pub duration: Duration,
}

impl Tally {
    fn add(&mut self, statement: &StatementStatistics) {
        self.statements += 1;
        self.rows_read = self.rows_read.saturating_add(statement.rows_read);
        self.rows_written = self.rows_written.saturating_add(statement.rows_written);
        self.wrote |= statement.changed_db;
        self.duration = self.duration.saturating_add(statement.duration);
    }
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

/// What one element of an answer stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Elements {
    /// A statement (the REST API).
    #[default]
    Statements,
    /// A text (a Worker's binding): the rows of its last statement, and in `meta` what all of them cost
    /// and changed. Nothing for a text without statements.
    Texts,
}

/// Shape of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AnswerShape {
    /// Of the rows.
    pub rows: RowShape,
    /// Of the array around them.
    pub elements: Elements,
}

impl From<RowShape> for AnswerShape {
    fn from(rows: RowShape) -> Self {
        Self {
            rows,
            elements: Elements::default(),
        }
    }
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
    /// Bytes of JSON. Bounds the statements of a request too: each takes some hundred bytes of `meta`.
    pub bytes_max: usize,
}

impl Default for AnswerBounds {
    fn default() -> Self {
        Self {
            rows_max: 1_000_000,
            bytes_max: 64 << 20,
        }
    }
}

/// Room for the answer of a point read.
const CAPACITY_INITIAL: usize = 1024;

/// One text of a request, while its statements run.
#[derive(Clone, Copy, Debug, Default)]
struct Text {
    /// Offset of its element; that of the closing bracket while there is none.
    start: usize,
    sum: Option<StatementStatistics>,
}

/// Writes D1's `result` array.
#[derive(Debug)]
pub struct Renderer {
    shape: RowShape,
    elements: Elements,
    form: ValueForm,
    bounds: AnswerBounds,
    meta: Meta,
    /// A complete array between statements.
    out: Vec<u8>,
    /// Where the element of the text in hand begins, and what its statements came to so far.
    text: Text,
    /// Of all statements.
    tally: Tally,
    rows_of_statement: u64,
    /// Whether the statement in hand has announced its columns.
    has_columns: bool,
    /// `"name":` of all columns of the statement in hand, one behind the other.
    keys: Vec<u8>,
    /// Where each column's key lies in `keys`; empty for one that a later column of the same name
    /// hides in an object.
    key_ranges: Vec<Range<usize>>,
    first_cell: bool,
    /// A cell was left out because it would have burst the bound on bytes.
    overflowed: bool,
}

impl Renderer {
    /// A renderer for one request.
    pub fn new(
        shape: impl Into<AnswerShape>,
        form: ValueForm,
        bounds: AnswerBounds,
        served_by: &ServedBy,
    ) -> Self {
        let AnswerShape { rows, elements } = shape.into();
        let mut out = Vec::with_capacity(CAPACITY_INITIAL);
        out.extend_from_slice(b"[]");
        Self {
            shape: rows,
            elements,
            form,
            bounds,
            meta: Meta::new(form, served_by),
            out,
            text: Text::default(),
            tally: Tally::default(),
            rows_of_statement: 0,
            has_columns: false,
            keys: Vec::new(),
            key_ranges: Vec::new(),
            first_cell: true,
            overflowed: false,
        }
    }

    /// The finished `result` array.
    pub fn finish(self) -> Rendered {
        Rendered {
            results: Bytes::from(self.out),
            tally: self.tally,
        }
    }

    fn check_bytes(&self) -> Result<(), AnswerLimit> {
        let max = self.bounds.bytes_max;
        if self.overflowed || self.out.len() > max {
            return Err(AnswerLimit::Bytes { max });
        }
        Ok(())
    }

    fn write_value(&mut self, value: ValueRef<'_>) {
        let out = &mut self.out;
        match (value, self.form) {
            (ValueRef::Null, _) => out.extend_from_slice(b"null"),
            (ValueRef::Integer(integer), ValueForm::D1) => json::integer_as_double(out, integer),
            (ValueRef::Integer(integer), ValueForm::Exact) => json::integer(out, integer),
            (ValueRef::Real(real), ValueForm::D1) => json::double(out, real),
            (ValueRef::Real(real), ValueForm::Exact) => json::real_exact(out, real),
            (ValueRef::Text(text), _) => json::text(out, text),
            (ValueRef::Blob(blob), ValueForm::D1) => json::byte_array(out, blob),
            (ValueRef::Blob(blob), ValueForm::Exact) => json::base64_object(out, blob),
        }
    }
}

impl ResultSink for Renderer {
    fn begin_text(&mut self) {
        self.text = Text {
            start: self.out.len() - 1,
            sum: None,
        };
    }

    fn begin_statement(&mut self) {
        if self.elements == Elements::Texts && self.text.sum.is_some() {
            self.out.truncate(self.text.start);
            self.out.push(b']');
        }
        // The closing bracket of the array makes room.
        let end = self.out.pop();
        debug_assert_eq!(
            end,
            Some(b']'),
            "a statement began before the last one ended"
        );
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        self.out.extend_from_slice(br#"{"results":"#);
        self.rows_of_statement = 0;
        self.has_columns = false;
    }

    fn columns(&mut self, names: &[&str]) -> Result<(), AnswerLimit> {
        self.has_columns = true;
        let bytes_max = self.bounds.bytes_max;
        let too_long = AnswerLimit::Bytes { max: bytes_max };
        match self.shape {
            RowShape::Objects => {
                self.keys.clear();
                self.key_ranges.clear();
                for (index, name) in names.iter().enumerate() {
                    let start = self.keys.len();
                    // Before the copy, here and below, as with cells.
                    if start.saturating_add(name.len()) > bytes_max {
                        return Err(too_long);
                    }
                    if !names[index + 1..].contains(name) {
                        json::string(&mut self.keys, name);
                        self.keys.push(b':');
                    }
                    self.key_ranges.push(start..self.keys.len());
                }
                self.out.push(b'[');
            }
            RowShape::Arrays => {
                self.out.extend_from_slice(br#"{"columns":["#);
                for (index, name) in names.iter().enumerate() {
                    if self.out.len().saturating_add(name.len()) > bytes_max {
                        return Err(too_long);
                    }
                    if index > 0 {
                        self.out.push(b',');
                    }
                    json::string(&mut self.out, name);
                }
                self.out.extend_from_slice(br#"],"rows":["#);
            }
        }
        self.check_bytes()
    }

    fn begin_row(&mut self) {
        if self.rows_of_statement > 0 {
            self.out.push(b',');
        }
        self.out.push(match self.shape {
            RowShape::Objects => b'{',
            RowShape::Arrays => b'[',
        });
        self.first_cell = true;
    }

    fn cell(&mut self, index: usize, value: ValueRef<'_>) {
        let bytes = match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
        };
        let key = match self.shape {
            RowShape::Objects => self.key_ranges[index].clone(),
            RowShape::Arrays => 0..0,
        };
        // Before the copy, not after: a row may be far larger than the bound.
        let bytes = bytes.saturating_add(key.len());
        if self.overflowed || self.out.len().saturating_add(bytes) > self.bounds.bytes_max {
            self.overflowed = true;
            return;
        }
        if self.shape == RowShape::Objects && key.is_empty() {
            return; // a later column of the same name wins
        }
        if !self.first_cell {
            self.out.push(b',');
        }
        self.first_cell = false;
        self.out.extend_from_slice(&self.keys[key]);
        self.write_value(value);
    }

    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        self.out.push(match self.shape {
            RowShape::Objects => b'}',
            RowShape::Arrays => b']',
        });
        self.tally.rows_returned += 1;
        self.rows_of_statement += 1;
        if self.tally.rows_returned > self.bounds.rows_max {
            return Err(AnswerLimit::Rows {
                max: self.bounds.rows_max,
            });
        }
        self.check_bytes()
    }

    fn end_statement(&mut self, statistics: &StatementStatistics) -> Result<(), AnswerLimit> {
        self.out
            .extend_from_slice(match (self.shape, self.has_columns) {
                (RowShape::Objects, true) => b"]",
                (RowShape::Objects, false) => b"[]",
                (RowShape::Arrays, true) => b"]}",
                (RowShape::Arrays, false) => br#"{"columns":[],"rows":[]}"#,
            });
        self.tally.add(statistics);
        let mut statistics = *statistics;
        if self.elements == Elements::Texts {
            if let Some(before) = self.text.sum {
                statistics = before.then(&statistics);
            }
            self.text.sum = Some(statistics);
        }
        self.meta.write(&mut self.out, &statistics);
        self.out.extend_from_slice(b"}]");
        self.check_bytes()
    }

    fn reset(&mut self) {
        self.out.clear();
        self.out.extend_from_slice(b"[]");
        self.text = Text::default();
        self.tally = Tally::default();
        self.overflowed = false;
    }

    fn recorded(&self) -> &[u8] {
        &self.out
    }
}
