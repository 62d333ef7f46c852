//! A database in a temporary directory, a sink that keeps rows, and a seeded random source.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidemark_engine::{
    CheckpointMode, Control, Database, ExecuteError, Opened, Options, Owner, ReadError, Stamp,
};
use tidemark_protocol::render::{AnswerLimit, ResultSink, StatementStatistics};
use tidemark_protocol::{DatabaseId, Position, Seq, Statement, Transaction, Value, ValueRef};

/// What one statement yielded.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Yielded {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) statistics: StatementStatistics,
}

/// Keeps everything.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) statements: Vec<Yielded>,
    pub(crate) resets: usize,
    pub(crate) rows_max: Option<u64>,
}

impl Rows {
    fn last(&mut self) -> &mut Yielded {
        self.statements.last_mut().unwrap()
    }

    /// The integer in the first cell of the last statement.
    pub(crate) fn integer(&self) -> i64 {
        let value = &self.statements.last().unwrap().rows[0][0];
        let Value::Integer(integer) = value else {
            panic!("{value:?} is no integer")
        };
        *integer
    }

    /// The text in the first cell of the last statement.
    pub(crate) fn text(&self) -> String {
        let value = &self.statements.last().unwrap().rows[0][0];
        let Value::Text(text) = value else {
            panic!("{value:?} is no text")
        };
        text.clone()
    }
}

impl ResultSink for Rows {
    fn begin_statement(&mut self) {
        self.statements.push(Yielded::default());
    }
    fn columns(&mut self, names: &[&str]) -> Result<(), AnswerLimit> {
        self.last().columns = names.iter().map(|&name| name.to_owned()).collect();
        Ok(())
    }
    fn begin_row(&mut self) {
        self.last().rows.push(Vec::new());
    }
    fn cell(&mut self, index: usize, value: ValueRef<'_>) {
        let row = self.last().rows.last_mut().unwrap();
        assert_eq!(index, row.len());
        row.push(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        });
    }
    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        let rows: usize = self
            .statements
            .iter()
            .map(|yielded| yielded.rows.len())
            .sum();
        match self.rows_max {
            Some(max) if rows as u64 > max => Err(AnswerLimit::Rows { max }),
            _ => Ok(()),
        }
    }
    fn end_statement(&mut self, statistics: &StatementStatistics) -> Result<(), AnswerLimit> {
        self.last().statistics = *statistics;
        Ok(())
    }
    fn reset(&mut self) {
        self.statements.clear();
        self.resets += 1;
    }
    fn recorded(&self) -> &[u8] {
        b"answer"
    }
}

/// How D1 refuses what controls transactions.
pub(crate) const TRANSACTION: &str = "To execute a transaction, please use the state.storage.transaction() or \
    state.storage.transactionSync() APIs instead of the SQL BEGIN TRANSACTION or SAVEPOINT statements.";

pub(crate) fn statement(sql: &str) -> Statement {
    Statement {
        sql: sql.to_owned(),
        params: Vec::new(),
    }
}

pub(crate) fn with(sql: &str, params: Vec<Value>) -> Statement {
    Statement {
        sql: sql.to_owned(),
        params,
    }
}

pub(crate) fn soon() -> Control {
    Control::until(Instant::now() + Duration::from_secs(20))
}

pub(crate) fn stamp() -> Stamp {
    Stamp {
        request: None,
        proposed_at_ms: 1,
        after: Seq::ZERO,
    }
}

pub(crate) fn id() -> DatabaseId {
    DatabaseId::new(uuid::Uuid::from_u128(7))
}

/// An open database in a directory.
pub(crate) struct Node {
    pub(crate) database: Arc<Database>,
    pub(crate) owner: Owner,
    pub(crate) path: PathBuf,
    _directory: Option<TempDir>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(&Options::default())
    }

    pub(crate) fn with(options: &Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database");
        let Opened { database, owner } = Database::open(&path, id(), options).unwrap();
        Self {
            database,
            owner,
            path,
            _directory: Some(directory),
        }
    }

    pub(crate) fn open(path: &Path) -> Self {
        let Opened { database, owner } = Database::open(path, id(), &Options::default()).unwrap();
        Self {
            database,
            owner,
            path: path.to_owned(),
            _directory: None,
        }
    }

    /// Closes it and keeps the files.
    pub(crate) fn closed(self) -> Closed {
        let Self {
            path, _directory, ..
        } = self;
        Closed { path, _directory }
    }

    /// Closes and opens again.
    pub(crate) fn reopen(self) -> Self {
        self.closed().open_again()
    }

    pub(crate) fn try_execute(
        &mut self,
        statements: &[Statement],
    ) -> Result<(Option<Transaction>, Rows), ExecuteError> {
        let mut rows = Rows::default();
        let transaction = self
            .owner
            .execute(statements, &stamp(), &soon(), &mut rows)?;
        Ok((transaction, rows))
    }

    /// Runs one text that must succeed.
    pub(crate) fn execute(&mut self, sql: &str) -> (Option<Transaction>, Rows) {
        self.try_execute(&[statement(sql)])
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs one text that must write, and acknowledges it.
    pub(crate) fn commit(&mut self, sql: &str) -> Transaction {
        let transaction = self
            .execute(sql)
            .0
            .unwrap_or_else(|| panic!("{sql} wrote nothing"));
        self.owner
            .acknowledge(transaction.header().next.seq)
            .unwrap();
        transaction
    }

    /// The message of a text that must be refused by the owner.
    pub(crate) fn refused(&mut self, sql: &str) -> String {
        match self.try_execute(&[statement(sql)]) {
            Err(ExecuteError::Sql(error)) => error.message,
            other => panic!("{sql}: {other:?}"),
        }
    }

    pub(crate) fn try_read(&self, statements: &[Statement]) -> Result<(Position, Rows), ReadError> {
        let mut rows = Rows::default();
        let position = self.database.read(statements, &soon(), &mut rows)?;
        Ok((position, rows))
    }

    /// Runs one text on a reader.
    pub(crate) fn read(&self, sql: &str) -> (Position, Rows) {
        self.try_read(&[statement(sql)])
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Checkpoints everything and returns the bytes of the database file.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let report = self.owner.checkpoint(CheckpointMode::Truncate).unwrap();
        assert_eq!(report.durable, self.owner.position(), "{report:?}");
        std::fs::read(self.path.join("main.db")).unwrap()
    }
}

/// The files of a closed database.
pub(crate) struct Closed {
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Closed {
    pub(crate) fn open_again(self) -> Node {
        Node {
            _directory: self._directory,
            ..Node::open(&self.path)
        }
    }
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
