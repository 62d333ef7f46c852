//! The client: the nodes of a cluster, and how to speak to them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use tidemark_protocol::env::Random;
use tidemark_protocol::{OnMiss, RequestId};
use uuid::Builder;

use crate::builder::ClientBuilder;
use crate::database::Database;
use crate::error::Error;
use crate::nodes::Nodes;
use crate::target::Target;

/// A client of one cluster. Cheap to clone; clones share connections.
///
/// ```no_run
/// # async fn example() -> Result<(), tidemark_client::Error> {
/// use std::time::Duration;
/// use tidemark_client::Client;
///
/// let client = Client::builder("http://replica.eu.example:8787")
///     .url("http://primary.us.example:8787") // asked when the first cannot be reached
///     .token("secret")
///     .deadline(Duration::from_secs(3))
///     .build()?;
/// let database = client.database("shop");
/// let total: Option<i64> = database.prepare("SELECT count(*) FROM orders").first().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    settings: Arc<Settings>,
}

/// What a [`ClientBuilder`] has checked.
pub(crate) struct Settings {
    pub(crate) http: reqwest::Client,
    pub(crate) nodes: Nodes,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) account: String,
    pub(crate) deadline: Duration,
    pub(crate) on_miss: Option<OnMiss>,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) answer_bytes_max: usize,
    pub(crate) random: Arc<dyn Random>,
}

impl Client {
    /// Sets up a client that asks the node at `url`, such as `http://127.0.0.1:8787`.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(url.into())
    }

    /// The database of this name or UUID. Nothing is sent: whether it exists shows at the first query.
    pub fn database(&self, name_or_uuid: impl Into<String>) -> Database {
        Database::new(Target::new(self.clone(), name_or_uuid.into()))
    }

    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
        }
    }

    /// Path of a database, or of something below it.
    pub(crate) fn database_path(
        &self,
        database: &str,
        below: Option<&str>,
    ) -> Result<String, Error> {
        let name = path_segment(database)?;
        let base = self.databases_path();
        Ok(match below {
            Some(below) => format!("{base}/{name}/{below}"),
            None => format!("{base}/{name}"),
        })
    }

    /// Path of the list of databases.
    pub(crate) fn databases_path(&self) -> String {
        format!("/client/v4/accounts/{}/d1/database", self.settings.account)
    }

    /// A fresh id, for [`crate::Query::request_id`]: to be kept by whoever may have to ask again.
    pub fn new_request_id(&self) -> RequestId {
        let bytes = self.settings.random.bytes16();
        RequestId::new(Builder::from_random_bytes(bytes).into_uuid())
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.settings.http
    }

    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.settings.authorization.as_ref()
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    pub(crate) fn on_miss(&self) -> Option<OnMiss> {
        self.settings.on_miss
    }

    pub(crate) fn backoff(&self) -> (Duration, Duration) {
        (self.settings.backoff_min, self.settings.backoff_max)
    }

    pub(crate) fn answer_bytes_max(&self) -> usize {
        self.settings.answer_bytes_max
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        &self.settings.nodes
    }

    /// Something from 0 to 1.
    pub(crate) fn dice(&self) -> f64 {
        let [a, b, c, d, ..] = self.settings.random.bytes16();
        f64::from(u32::from_le_bytes([a, b, c, d])) / f64::from(u32::MAX)
    }
}

/// `name` as one segment of a path. What a database can be called needs no escaping.
pub(crate) fn path_segment(name: &str) -> Result<&str, Error> {
    let shaped = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if shaped {
        Ok(name)
    } else {
        Err(Error::config(format!(
            "{name:?} is no database's name: want ASCII letters, digits, '-' and '_'"
        )))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("nodes", &self.settings.nodes)
            .field("account", &self.settings.account)
            .finish_non_exhaustive()
    }
}
