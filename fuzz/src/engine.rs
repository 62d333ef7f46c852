//! Databases in memory's file system, for targets that need real ones.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidemark_engine::{Control, Database, ExecuteError, OpenError, Opened, Options, Owner, Stamp};
use tidemark_protocol::dump::DumpOptions;
use tidemark_protocol::render::{AnswerLimit, ResultSink, StatementStatistics};
use tidemark_protocol::{DatabaseId, Rules, Seq, Statement, Transaction, ValueRef};

/// Where files need no disk.
const MEMORY: &str = "/dev/shm";
/// Longest that statements may run, and the steps they may take.
const PATIENCE: Duration = Duration::from_millis(500);
const STEPS_MAX: u64 = 50_000;
/// Rows that are looked at.
const ROWS_MAX: u64 = 1000;
/// Bytes of an export that are kept.
const EXPORT_BYTES_MAX: usize = 4 << 20;

/// The identifier of every database here.
pub(crate) const ID: DatabaseId = DatabaseId::from_bytes([7; 16]);

/// A directory without files.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new(MEMORY);
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("make a directory")
}

/// Opens what is there, or an empty one.
pub(crate) fn open(directory: &Path) -> Result<Opened, OpenError> {
    let options = Options {
        cache_kib: 512,
        readers_max: 2,
        statements_cached: 4,
        // Nobody else reads.
        checkpoint_wait: Duration::from_millis(1),
        ..Options::default()
    };
    Database::open(directory, ID, &options)
}

/// Runs texts on the tip.
pub(crate) fn execute(
    owner: &mut Owner,
    rules: Rules,
    texts: &[&str],
) -> Result<Option<Transaction>, ExecuteError> {
    let stamp = Stamp {
        request: None,
        proposed_at_ms: 1,
        after: Seq::ZERO,
    };
    owner.execute_under(
        rules,
        &statements(texts),
        &stamp,
        &control(),
        &mut Counted::default(),
    )
}

/// Reads with each text, and says how many could be.
pub(crate) fn read(database: &Database, texts: &[&str]) -> usize {
    let read = |text| {
        let statements = statements(&[text]);
        database.read(&statements, &control(), &mut Counted::default())
    };
    texts.iter().filter(|text| read(**text).is_ok()).count()
}

/// The database as SQL text, if it can be written as such within the bounds.
pub(crate) fn exported(database: &Database) -> Option<String> {
    let text = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&text);
    let output = move |piece: bytes::Bytes| {
        let mut text = into.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(&piece);
        text.len() <= EXPORT_BYTES_MAX
    };
    let deadline = Instant::now() + PATIENCE;
    database
        .export(&DumpOptions::default(), deadline, Box::new(output))
        .ok()?;
    let text = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
    Some(String::from_utf8(text).expect("an export is UTF-8"))
}

fn control() -> Control {
    Control {
        deadline: Instant::now() + PATIENCE,
        steps_max: Some(STEPS_MAX),
    }
}

fn statements(texts: &[&str]) -> Vec<Statement> {
    let statement = |text: &&str| Statement {
        sql: (*text).to_owned(),
        params: Vec::new(),
    };
    texts.iter().map(statement).collect()
}

/// Looks at every cell and keeps none.
#[derive(Default)]
struct Counted {
    rows: u64,
    bytes: u64,
}

impl ResultSink for Counted {
    fn begin_statement(&mut self) {}

    fn columns(&mut self, _: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn begin_row(&mut self) {
        self.rows += 1;
    }

    fn cell(&mut self, _: usize, value: ValueRef<'_>) {
        if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = value {
            self.bytes += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
    }

    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        if self.rows > ROWS_MAX {
            return Err(AnswerLimit::Rows { max: ROWS_MAX });
        }
        Ok(())
    }

    fn end_statement(&mut self, _: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn reset(&mut self) {}

    fn recorded(&self) -> &[u8] {
        b"[]"
    }
}
