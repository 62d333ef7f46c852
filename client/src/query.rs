//! Statements ready to run: one with its rows typed ([`Query`]), several as a transaction ([`Batch`]).

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tidemark_protocol::{Freshness, OnMiss, RequestId, Statement, Value};

use crate::answer::{Answers, Outcome, QueryResult, RawResult};
use crate::error::Error;
use crate::target::{Options, Target};

/// A statement with its values, and how it shall run.
///
/// ```no_run
/// # async fn example(database: tidemark_client::Database) -> Result<(), tidemark_client::Error> {
/// #[derive(serde::Deserialize)]
/// struct Song {
///     title: String,
///     plays: i64,
///     cover: Option<Vec<u8>>,
/// }
///
/// let songs = database
///     .prepare("SELECT title, plays, cover FROM songs WHERE artist = ? AND plays > ?")
///     .bind("Nina Simone")
///     .bind(1_000_000_i64)
///     .all::<Song>()
///     .await?;
/// for song in &songs.rows {
///     println!("{} {}", song.title, song.plays);
/// }
/// println!("{} rows read in {:?}", songs.meta.rows_read, songs.meta.duration);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct Query {
    target: Target,
    statement: Statement,
    options: Options,
}

impl Query {
    pub(crate) fn new(target: Target, sql: String) -> Self {
        Self {
            target,
            statement: Statement {
                sql,
                params: Vec::new(),
            },
            options: Options::default(),
        }
    }

    /// Gives the next parameter its value. `None` is NULL, `bool` is 0 or 1, bytes are a blob.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.statement.params.push(value.into());
        self
    }

    /// Gives the next parameters their values.
    pub fn bind_all<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        self.statement
            .params
            .extend(values.into_iter().map(Into::into));
        self
    }

    /// How long it may take, retries included, at most 120 s. The client's own setting otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// What a replica does that has not reached the session's bookmark in time.
    pub fn on_miss(mut self, rule: OnMiss) -> Self {
        self.options.on_miss = Some(rule);
        self
    }

    /// Answers with everything that was acknowledged to anybody before it arrives.
    pub fn linearizable(mut self) -> Self {
        self.options.freshness = Freshness::Linearizable;
        self
    }

    /// Answers with at least everything that was committed longer ago than this, at any node that can prove that
    /// of itself. Outside a session that is all that is asked for; within one, the session's bookmark holds too.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.options.freshness = Freshness::MaxStaleness(bound);
        self
    }

    /// Sends it under this id: to try again after [`Error::Unknown`], perhaps in another process.
    pub fn request_id(mut self, request: RequestId) -> Self {
        self.options.request = Some(request);
        self
    }

    /// All rows, as `T`: a struct by column name, a tuple by place, anything else from the only column.
    pub async fn all<T: DeserializeOwned>(self) -> Result<QueryResult<T>, Error> {
        self.raw().await?.typed()
    }

    /// The first row, as `T`. The statement runs unchanged: add `LIMIT 1` where that saves work.
    pub async fn first<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        self.raw().await?.first()
    }

    /// One column of the first row, as `T`.
    pub async fn first_column<T: DeserializeOwned>(self, column: &str) -> Result<Option<T>, Error> {
        self.raw().await?.first_column(column)
    }

    /// Runs it for its effect. Succeeds also when all that is left to know is that it took effect.
    pub async fn run(self) -> Result<Outcome, Error> {
        self.target
            .run(&[self.statement], &self.options)
            .await?
            .into_outcome()
    }

    /// Columns and values as they are. Of a text with several statements, the last one's.
    pub async fn raw(self) -> Result<RawResult, Error> {
        self.target
            .run(&[self.statement], &self.options)
            .await?
            .into_last()
    }
}

impl From<Query> for Statement {
    /// The statement alone: in a batch the batch says where and how.
    fn from(query: Query) -> Self {
        query.statement
    }
}

/// Statements that run as one transaction. Awaiting it runs it.
///
/// ```no_run
/// # async fn example(session: tidemark_client::Session) -> Result<(), tidemark_client::Error> {
/// let answers = session
///     .batch([
///         session.prepare("UPDATE accounts SET cents = cents - ? WHERE id = ?").bind(500).bind(1),
///         session.prepare("UPDATE accounts SET cents = cents + ? WHERE id = ?").bind(500).bind(2),
///     ])
///     .await?;
/// assert_eq!(answers.results.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a batch does nothing until it is awaited"]
pub struct Batch {
    target: Target,
    statements: Vec<Statement>,
    options: Options,
}

impl Batch {
    pub(crate) fn new(target: Target, statements: Vec<Statement>) -> Self {
        Self {
            target,
            statements,
            options: Options::default(),
        }
    }

    /// How long it may take, retries included, at most 120 s. The client's own setting otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// What a replica does that has not reached the session's bookmark in time.
    pub fn on_miss(mut self, rule: OnMiss) -> Self {
        self.options.on_miss = Some(rule);
        self
    }

    /// Answers with everything that was acknowledged to anybody before it arrives.
    pub fn linearizable(mut self) -> Self {
        self.options.freshness = Freshness::Linearizable;
        self
    }

    /// Answers with at least everything that was committed longer ago than this, at any node that can prove that
    /// of itself. Outside a session that is all that is asked for; within one, the session's bookmark holds too.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.options.freshness = Freshness::MaxStaleness(bound);
        self
    }

    /// Sends it under this id: to try again after [`Error::Unknown`], perhaps in another process.
    pub fn request_id(mut self, request: RequestId) -> Self {
        self.options.request = Some(request);
        self
    }
}

impl IntoFuture for Batch {
    type Output = Result<Answers, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.target.run(&self.statements, &self.options).await })
    }
}
