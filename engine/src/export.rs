//! A database as SQL text, all of it from one committed state.
//!
//! On a connection of its own with an open read transaction: reads of clients wait for no export, the owner
//! goes on meanwhile, but the WAL cannot start over while one lasts.

use std::time::Instant;

use tidemark_protocol::dump::{Dump, DumpOptions, DumpOutput, SchemaReader};
use tidemark_protocol::render::ResultSink;
use tidemark_protocol::{Position, Rules, Statement, Value, ValueRef};

use crate::control::Control;
use crate::database::{Database, read_error};
use crate::error::{ExportError, ReadError};
use crate::ffi::Prepared;
use crate::readers::Reader;
use crate::sql::{Access, Terms, engine_error};

impl Database {
    /// Writes the newest committed state to `output`, and says which it was. Ends early, with an error, when
    /// the output wants no more or the deadline passes while SQLite works; waiting is the output's affair.
    pub fn export(
        &self,
        options: &DumpOptions,
        deadline: Instant,
        output: DumpOutput,
    ) -> Result<Position, ExportError> {
        let damaged = || ReadError::Damaged {
            database: self.id(),
        };
        self.position().ok_or_else(damaged)?;
        let mut reader = Reader::open(self.shared()).map_err(ReadError::from)?;
        let control = Control::until(deadline);
        reader.sql.begin_read().map_err(ReadError::from)?;

        let mut schema = SchemaReader::default();
        self.run(
            &mut reader,
            &SchemaReader::statements(),
            &control,
            &mut schema,
        )?;
        let position = reader.position().ok_or_else(damaged)?;
        let mut literal = Literal::new(&reader)?;
        let mut dump = Dump::new(schema.finish(options)?, output, |text: &str| {
            literal.read(text)
        });
        let statements = dump.statements();
        if !statements.is_empty() {
            let ran = self.run(&mut reader, &statements, &control, &mut dump);
            if dump.is_unwanted() {
                return Err(ExportError::Unwanted);
            }
            ran?;
        }
        if dump.finish() {
            Ok(position)
        } else {
            Err(ExportError::Unwanted)
        }
    }

    fn run<S: ResultSink>(
        &self,
        reader: &mut Reader,
        statements: &[Statement],
        control: &Control,
        sink: &mut S,
    ) -> Result<(), ReadError> {
        let shared = self.shared();
        let pages_known = || shared.pages();
        let terms = Terms {
            access: Access::Read,
            rules: Rules::Request,
            control,
            pages_known: &pages_known,
            between: &|| (),
        };
        reader
            .sql
            .run(statements, terms, sink)
            .map_err(|error| read_error(error, shared, control))?;
        Ok(())
    }
}

/// Asks SQLite what it makes of a number's text: of some it makes a neighbour of the nearest double.
struct Literal {
    cast: Prepared,
}

impl Literal {
    fn new(reader: &Reader) -> Result<Self, ReadError> {
        let connection = reader.sql.connection();
        let compiled = connection.prepare_internal(c"SELECT CAST(?1 AS REAL)");
        let cast = compiled
            .map_err(|code| ReadError::from(engine_error(connection, code, "read numbers")))?;
        Ok(Self { cast })
    }

    fn read(&mut self, text: &str) -> Option<f64> {
        let value = [Value::Text(text.to_owned())];
        let mut bound = self.cast.bind(&value).ok()?;
        bound.step().ok()?;
        match bound.column(0) {
            ValueRef::Real(real) => Some(real),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Text(_) | ValueRef::Blob(_) => None,
        }
    }
}
