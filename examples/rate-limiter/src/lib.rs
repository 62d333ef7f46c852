//! A rate limiter for the whole world: at most so many requests per key in any window of time, wherever they arrive.
//!
//! Each request that is let in is a row, and letting one in is a transaction:
//!
//! ```text
//! count the key's rows in the window ── fewer than the limit ──▶ insert one: admitted
//!                                    └─ as many ───────────────▶ insert nothing: refused
//! ```
//!
//! All transactions of a database run one after the other at its primary, so no two callers see the same last free
//! place, and no lock, lease or second system is needed. The price is a trip to the primary for every request that
//! asks; the README has it per region, beside what limiters that count by themselves would give.
//!
//! - **Once.** The client sends a request again under the same id when contact was lost; it takes one place.
//! - **Refusals write nothing.** A flood of them fills neither the log nor the way to the replicas.
//! - **One clock.** The primary's, unless one is handed in. Windows are not aligned to minutes: *any* window holds
//!   at most the limit.
//! - **No keys in the database.** It holds their SHA-256: whoever reads a copy of it can use none.

mod layer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tidemark_client::{Client, Database, Error, FailureKind, Statement, Value};

pub use crate::layer::{API_KEY, LEFT, limit};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS taken (id INTEGER PRIMARY KEY, key BLOB NOT NULL, at INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS taken_by_key ON taken (key, at);
CREATE INDEX IF NOT EXISTS taken_by_time ON taken (at);";
const TAKE: &str = include_str!("take.sql");
/// Each request that is let in takes up to ten rows away that no window needs, of whatever key: keys that never come
/// back leave nothing behind. Two windows old, as a primary's clock may be behind that of the one before it.
const SWEEP: &str = "
DELETE FROM taken WHERE changes() > 0 AND id IN (
  SELECT id FROM taken
  WHERE at <= coalesce(?1, CAST(unixepoch('subsec') * 1000 AS INTEGER)) - 2 * ?2
  ORDER BY at LIMIT 10
)";
const REPORT: &str = include_str!("report.sql");

/// Milliseconds of some clock.
pub type Clock = dyn Fn() -> i64 + Send + Sync;

/// Limits the requests of each key. Cheap to clone.
#[derive(Clone)]
pub struct Limiter {
    database: Database,
    requests: u32,
    window: Duration,
    deadline: Duration,
    clock: Option<Arc<Clock>>,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It may be served.
    Admitted {
        /// When it counts, in milliseconds of the clock.
        at_ms: i64,
        /// How many more would be, now.
        left: u32,
    },
    /// It may not.
    Refused {
        /// When the next place is free.
        retry_after: Duration,
    },
}

impl Limiter {
    /// A limiter of so many requests in any window of this length, whose rows are in the database of this name. Makes
    /// what is not there.
    pub async fn open(
        client: &Client,
        database: &str,
        requests: u32,
        window: Duration,
    ) -> Result<Self, Error> {
        match client.create_database(database).await {
            Ok(_) => {}
            Err(Error::Failed {
                kind: FailureKind::DatabaseExists,
                ..
            }) => {}
            Err(error) => return Err(error),
        }
        let database = client.database(database);
        database.exec(SCHEMA).await?;
        Ok(Self {
            database,
            requests,
            window,
            deadline: Duration::from_secs(2),
            clock: None,
        })
    }

    /// How long a verdict may take, retries included. Default 2 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Counts by this clock instead of the primary's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Asks for a place for a request of `key`.
    ///
    /// An error says that there is no verdict; the request may have taken a place all the same.
    pub async fn take(&self, key: &str) -> Result<Verdict, Error> {
        let key = Value::from(Sha256::digest(key).to_vec());
        let now = Value::from(self.clock.as_ref().map(|clock| clock()));
        let window_ms = i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX);
        let statement = |sql: &str, params: Vec<Value>| Statement {
            sql: sql.to_owned(),
            params,
        };
        let window = Value::from(window_ms);
        let places = Value::from(i64::from(self.requests));
        let batch = self.database.batch([
            statement(TAKE, vec![key.clone(), now.clone(), window.clone(), places]),
            statement(SWEEP, vec![now.clone(), window.clone()]),
            statement(REPORT, vec![key, now, window]),
        ]);
        let answers = batch.deadline(self.deadline).await?;

        let mut results = answers.results.into_iter();
        let (taken, report) = (results.next(), results.nth(1));
        let taken = taken.unwrap_or_default().typed::<i64>()?.rows;
        let report = report.unwrap_or_default().typed::<(u32, i64)>()?.rows;
        let (used, oldest_leaves_in) = report.first().copied().unwrap_or_default();
        Ok(match taken.first() {
            Some(at_ms) => Verdict::Admitted {
                at_ms: *at_ms,
                left: self.requests.saturating_sub(used),
            },
            None => Verdict::Refused {
                retry_after: Duration::from_millis(u64::try_from(oldest_leaves_in).unwrap_or(0)),
            },
        })
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("database", &self.database)
            .field("requests", &self.requests)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
