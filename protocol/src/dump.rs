//! A database as SQL text, nearly in the form of D1's exports.
//!
//! 1. [`SchemaReader`] reads what there is, and [`SchemaReader::finish`] makes a [`Plan`] of it.
//! 2. [`Dump`] runs the plan's statements in one read, thus on one state, and writes text as rows come. The
//!    first of them reads the schema again: if it changed since, nothing has been written yet, and the caller
//!    starts over.
//!
//! ```text
//! PRAGMA defer_foreign_keys=TRUE;
//! CREATE TABLE …;                               all, in the order in which they were made
//! INSERT INTO "t" ("a","b") VALUES(1,'x');
//! DELETE FROM sqlite_sequence; INSERT …         the counters of AUTOINCREMENT
//! CREATE INDEX …; CREATE TRIGGER …; CREATE VIEW …
//! ```
//!
//! In D1's, rows follow the table that they are of; such a text cannot be read back when they refer to a table
//! that was made later. Virtual tables are made and filled by their own names, and the tables that they keep their content in
//! come about by that. D1 refuses them.

mod literal;
mod plan;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use plan::{Plan, PlanError, SchemaReader};

use crate::render::{AnswerLimit, ResultSink, StatementStatistics};
use crate::value::{Statement, Value, ValueRef};

/// Text is handed over in pieces of about this.
const PIECE_BYTES: usize = 64 << 10;

/// What of a database to export.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DumpOptions {
    /// Leave out what makes tables, indexes, triggers and views.
    #[serde(default)]
    pub no_schema: bool,
    /// Leave out rows.
    #[serde(default)]
    pub no_data: bool,
    /// Only these tables, with what belongs to them; all of them if there are none.
    #[serde(default)]
    pub tables: Vec<String>,
}

/// Takes the text piece by piece, waiting if need be; `false` when nobody wants more.
pub type DumpOutput = Box<dyn FnMut(Bytes) -> bool + Send>;

/// How far a [`Dump`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DumpState {
    /// Nothing was written yet.
    Begun,
    /// The schema is not the plan's. Nothing was written: make another plan.
    Changed,
    /// Some text was written.
    Writing,
    /// Nobody wants the text any more.
    Unwanted,
}

/// The sink that writes the text.
pub struct Dump {
    plan: Plan,
    output: DumpOutput,
    state: DumpState,
    /// Statements begun.
    statement: usize,
    schema: Vec<Vec<Value>>,
    row: Vec<Value>,
    text: Vec<u8>,
}

impl Dump {
    /// Writes what `plan` says to `output`.
    pub fn new(plan: Plan, output: DumpOutput) -> Self {
        Self {
            plan,
            output,
            state: DumpState::Begun,
            statement: 0,
            schema: Vec::new(),
            row: Vec::new(),
            text: Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4),
        }
    }

    /// What to run, in one read.
    pub fn statements(&self) -> Vec<Statement> {
        let of = |sql: &str| Statement {
            sql: sql.to_owned(),
            params: Vec::new(),
        };
        let tables = self.plan.tables.iter().map(|table| of(&table.select));
        std::iter::once(of(plan::READ_SCHEMA))
            .chain(tables)
            .collect()
    }

    /// How far it came.
    pub fn state(&self) -> DumpState {
        self.state
    }

    /// Writes what follows the rows, once all statements have run. `false`: nobody wants it.
    pub fn finish(mut self) -> bool {
        self.text.extend_from_slice(self.plan.tail.as_bytes());
        self.flush();
        self.state != DumpState::Unwanted
    }

    /// The output, to try again.
    pub fn into_output(self) -> DumpOutput {
        self.output
    }

    fn flush(&mut self) {
        if self.state != DumpState::Unwanted && !self.text.is_empty() {
            let piece = Bytes::copy_from_slice(&self.text);
            self.text.clear();
            self.state = match (self.output)(piece) {
                true => DumpState::Writing,
                false => DumpState::Unwanted,
            };
        }
    }

    /// A sink can only stop a read by a bound.
    const STOP: AnswerLimit = AnswerLimit::Rows { max: 0 };
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump")
            .field("state", &self.state)
            .field("statement", &self.statement)
            .finish_non_exhaustive()
    }
}

impl ResultSink for Dump {
    fn begin_statement(&mut self) {
        self.statement += 1;
        if let Some(table) = self.statement.checked_sub(2) {
            let before = &self.plan.tables[table].before;
            self.text.extend_from_slice(before.as_bytes());
        }
    }

    fn columns(&mut self, _: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn begin_row(&mut self) {
        self.row.clear();
        if let Some(table) = self.statement.checked_sub(2) {
            let insert = &self.plan.tables[table].insert;
            self.text.extend_from_slice(insert.as_bytes());
        }
    }

    fn cell(&mut self, index: usize, value: ValueRef<'_>) {
        if self.statement == 1 {
            self.row.push(value.to_owned());
            return;
        }
        if index > 0 {
            self.text.push(b',');
        }
        literal::write(&mut self.text, value);
    }

    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        if self.statement == 1 {
            self.schema.push(std::mem::take(&mut self.row));
            return Ok(());
        }
        self.text.extend_from_slice(b");\n");
        if self.text.len() >= PIECE_BYTES {
            self.flush();
        }
        if self.state == DumpState::Unwanted {
            return Err(Self::STOP);
        }
        Ok(())
    }

    fn end_statement(&mut self, _: &StatementStatistics) -> Result<(), AnswerLimit> {
        if self.statement == 1 && self.schema != self.plan.schema {
            self.state = DumpState::Changed;
            return Err(Self::STOP);
        }
        Ok(())
    }

    fn reset(&mut self) {
        if self.state == DumpState::Begun || self.state == DumpState::Changed {
            self.statement = 0;
            self.schema.clear();
            self.text.clear();
        }
    }

    fn recorded(&self) -> &[u8] {
        &[]
    }
}
