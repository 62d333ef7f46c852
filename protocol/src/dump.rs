//! A database as SQL text, nearly in the form of D1's exports.
//!
//! In one read, thus on one state:
//!
//! 1. [`SchemaReader`] reads what there is, and [`SchemaReader::finish`] makes a [`Plan`] of it.
//! 2. [`Dump`] writes text as the rows of [`Dump::statements`] come.
//!
//! ```text
//! PRAGMA defer_foreign_keys=TRUE;
//! CREATE TABLE …;                               all, in the order in which they were made
//! INSERT INTO "t" ("a","b") VALUES(1,'x');
//! DELETE FROM sqlite_sequence; INSERT …         the counters of AUTOINCREMENT, if there are any
//! CREATE INDEX …; CREATE VIEW …; CREATE TRIGGER …
//! ```
//!
//! In D1's, rows follow the table that they are of; such a text cannot be read back when they refer to a table
//! that was made later. Virtual tables are made and filled by their own names, and the tables that they keep their content in
//! come about by that. D1 refuses them.
//!
//! Not kept are rowids that no column shows, as in the dumps of SQLite's shell.

mod literal;
mod plan;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use plan::{Plan, PlanError, SchemaReader};

use crate::render::{AnswerLimit, ResultSink, StatementStatistics};
use crate::value::{Statement, ValueRef};

/// Text is handed over in pieces of about this.
const PIECE_BYTES: usize = 64 << 10;
/// With room for the row that makes it full.
const PIECE_CAPACITY: usize = PIECE_BYTES + PIECE_BYTES / 4;

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

/// The sink that writes the text. `F` says which double SQLite makes of a literal.
pub struct Dump<F> {
    plan: Plan,
    output: DumpOutput,
    reads: F,
    /// Nobody wants the text any more.
    unwanted: bool,
    /// Statements begun.
    statement: usize,
    text: Vec<u8>,
}

impl<F> Dump<F> {
    /// Writes what `plan` says to `output`.
    pub fn new(plan: Plan, output: DumpOutput, reads: F) -> Self {
        Self {
            plan,
            output,
            reads,
            unwanted: false,
            statement: 0,
            text: Vec::with_capacity(PIECE_CAPACITY),
        }
    }

    /// What to run. Nothing, if there are no rows to be written.
    pub fn statements(&self) -> Vec<Statement> {
        let of = |table: &plan::Table| Statement {
            sql: table.select.clone(),
            params: Vec::new(),
        };
        self.plan.tables.iter().map(of).collect()
    }

    /// Whether nobody wants the text any more.
    pub fn is_unwanted(&self) -> bool {
        self.unwanted
    }

    /// Writes what follows the rows, once all statements have run. `false`: nobody wants it.
    pub fn finish(mut self) -> bool {
        self.text.extend_from_slice(self.plan.tail.as_bytes());
        self.flush();
        !self.unwanted
    }

    fn flush(&mut self) {
        if !self.unwanted && !self.text.is_empty() {
            let piece = std::mem::replace(&mut self.text, Vec::with_capacity(PIECE_CAPACITY));
            self.unwanted = !(self.output)(Bytes::from(piece));
        }
    }

    /// A sink can only stop a read by a bound.
    const STOP: AnswerLimit = AnswerLimit::Rows { max: 0 };
}

impl<F> std::fmt::Debug for Dump<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump")
            .field("unwanted", &self.unwanted)
            .field("statement", &self.statement)
            .finish_non_exhaustive()
    }
}

impl<F: FnMut(&str) -> Option<f64>> ResultSink for Dump<F> {
    fn begin_statement(&mut self) {
        self.statement += 1;
        let Self { plan, text, .. } = self;
        text.extend_from_slice(plan.tables[self.statement - 1].before.as_bytes());
    }

    fn columns(&mut self, _: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn begin_row(&mut self) {
        let Self { plan, text, .. } = self;
        let table = &mut plan.tables[self.statement - 1];
        text.extend_from_slice(std::mem::take(&mut table.first).as_bytes());
        text.extend_from_slice(table.insert.as_bytes());
    }

    fn cell(&mut self, index: usize, value: ValueRef<'_>) {
        if index > 0 {
            self.text.push(b',');
        }
        literal::write(&mut self.text, value, &mut self.reads);
    }

    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        self.text.extend_from_slice(b");\n");
        if self.text.len() >= PIECE_BYTES {
            self.flush();
        }
        if self.unwanted {
            return Err(Self::STOP);
        }
        Ok(())
    }

    fn end_statement(&mut self, _: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }

    /// What was handed over cannot be taken back: a read that failed is not to be tried again.
    fn reset(&mut self) {}

    fn recorded(&self) -> &[u8] {
        &[]
    }
}
