//! One database, by name or UUID.

use tidemark_protocol::Statement;

use crate::query::{Batch, Query};
use crate::session::{Session, SessionStart};
use crate::target::Target;

/// A database.
///
/// Requests made on it directly belong to no session: the primary answers them, whichever node is
/// asked, as D1 answers plain queries. For reads at the nearest replica open a [`Session`].
#[derive(Clone, Debug)]
pub struct Database {
    target: Target,
}

impl Database {
    pub(crate) fn new(target: Target) -> Self {
        Self { target }
    }

    /// The name or UUID it was asked for by.
    pub fn name(&self) -> &str {
        self.target.database()
    }

    /// Opens a session. Nothing is sent.
    pub fn session(&self, start: SessionStart) -> Session {
        Session::new(&self.target, start)
    }

    /// A statement, to be given values and run.
    pub fn prepare(&self, sql: impl Into<String>) -> Query {
        Query::new(self.target.clone(), sql.into())
    }

    /// Statements to be run as one transaction: all or none.
    pub fn batch<S: Into<Statement>>(&self, statements: impl IntoIterator<Item = S>) -> Batch {
        Batch::new(
            self.target.clone(),
            statements.into_iter().map(Into::into).collect(),
        )
    }

    /// SQL text of any number of statements, run as one transaction.
    pub fn exec(&self, sql: impl Into<String>) -> Batch {
        let statement = Statement {
            sql: sql.into(),
            params: Vec::new(),
        };
        Batch::new(self.target.clone(), vec![statement])
    }
}
