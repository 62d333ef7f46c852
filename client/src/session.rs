//! Sessions: requests that each see at least what the earlier ones saw.

use std::sync::{Arc, Mutex, PoisonError};

use tidemark_protocol::{Bookmark, Statement};

use crate::query::{Batch, Query};
use crate::target::Target;

/// How fresh the first read of a session must be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SessionStart {
    /// Whatever the nearest node has: fastest, possibly old.
    #[default]
    Unconstrained,
    /// Everything committed so far: the first request goes to the primary.
    Primary,
    /// Not before this state: the bookmark of an earlier session, perhaps another process's.
    Bookmark(String),
}

/// A chain of requests to one database, each carrying the newest bookmark of those before it: it reads
/// its own writes and never goes back in time, at whatever node each request arrives.
///
/// Clones share the chain. Requests may run at the same time; their answers may arrive in any order.
///
/// ```no_run
/// # async fn example(database: tidemark_client::Database) -> Result<(), tidemark_client::Error> {
/// use tidemark_client::SessionStart;
///
/// let session = database.session(SessionStart::Unconstrained);
/// session.prepare("INSERT INTO visits (page) VALUES (?)").bind("/home").run().await?;
/// // Any replica answers this, and it counts the visit above.
/// let visits: Option<i64> = session.prepare("SELECT count(*) FROM visits").first().await?;
///
/// // The reader may go on in another process.
/// let cookie = session.bookmark();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    target: Target,
    state: Arc<SessionState>,
}

impl Session {
    pub(crate) fn new(target: &Target, start: SessionStart) -> Self {
        let state = Arc::new(SessionState::new(start));
        Self {
            target: target.in_session(Arc::clone(&state)),
            state,
        }
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

    /// The newest state this session has seen, as text: to be handed to whoever shall read on from it.
    /// `None` before the first answer of a session that did not start from a bookmark.
    pub fn bookmark(&self) -> Option<String> {
        self.state.newest()
    }
}

/// What the clones of a session share.
#[derive(Debug)]
pub(crate) struct SessionState {
    start: SessionStart,
    /// The greatest bookmark seen. Text order is age order.
    ///
    /// A std mutex: held for a comparison, never across an await.
    newest: Mutex<Option<String>>,
}

impl SessionState {
    fn new(start: SessionStart) -> Self {
        // A text that is no bookmark could be greater than every real one and would then hide them
        // all. It is sent once, so that the server judges it, and forgotten at the first answer.
        let newest = match &start {
            SessionStart::Bookmark(text) if text.parse::<Bookmark>().is_ok() => Some(text.clone()),
            SessionStart::Bookmark(_) | SessionStart::Unconstrained | SessionStart::Primary => None,
        };
        Self {
            start,
            newest: Mutex::new(newest),
        }
    }

    /// The value of `x-d1-bookmark` for the next request.
    pub(crate) fn constraint(&self) -> String {
        self.newest().unwrap_or_else(|| match &self.start {
            SessionStart::Unconstrained => "first-unconstrained".to_owned(),
            SessionStart::Primary => "first-primary".to_owned(),
            SessionStart::Bookmark(text) => text.clone(),
        })
    }

    /// Takes note of an answer's bookmark. Answers may arrive out of order, so the greatest counts.
    pub(crate) fn observe(&self, bookmark: &str) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.as_deref().is_none_or(|held| held < bookmark) {
            *newest = Some(bookmark.to_owned());
        }
    }

    fn newest(&self) -> Option<String> {
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
