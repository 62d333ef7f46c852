//! Who is asked: the `sqlite3` program, or a node through the Rust client.

use std::fmt::Write as _;

use tempfile::TempDir;
use tidemark_client::{Error, Session, Value};

use crate::sqlite3;

/// An empty database somewhere.
pub(super) enum Engine {
    /// A process per statement, as a node keeps nothing of a connection from request to request.
    Program(TempDir),
    /// Each request sees what those before it did.
    Node(Session),
}

/// What a statement came to: the rows of the last one of its text, or why it failed.
pub(super) type Answer = Result<Vec<Vec<Value>>, String>;

impl Engine {
    /// An empty database of the program, in memory's file system if there is one.
    pub(super) fn program() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let directory = if memory.is_dir() {
            TempDir::new_in(memory)
        } else {
            TempDir::new()
        };
        Self::Program(directory.expect("make a temporary directory"))
    }

    /// Runs a text as one transaction.
    pub(super) async fn ask(&self, sql: &str) -> Answer {
        match self {
            Self::Program(directory) => sqlite3::values(&directory.path().join("database"), sql),
            Self::Node(session) => match session.prepare(sql).raw().await {
                Ok(result) => Ok(result.rows),
                Err(Error::Failed { message, .. }) => Err(message),
                Err(error) => panic!("{sql}: {error}"),
            },
        }
    }
}

/// A value as SQL has it: text in quotes, blobs in hexadecimal, reals with a point. On one line.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) if real.is_infinite() => {
            if *real > 0.0 { "9e999" } else { "-9e999" }.to_owned()
        }
        Value::Real(real) => format!("{real:?}"),
        Value::Text(text) => {
            let text = text.replace('\\', "\\\\").replace('\'', "''");
            let text = text.replace('\n', "\\n").replace('\r', "\\r");
            format!("'{}'", text.replace('\t', "\\t"))
        }
        Value::Blob(bytes) => {
            bytes.iter().fold("x'".to_owned(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }) + "'"
        }
    }
}
