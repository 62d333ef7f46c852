//! Managing databases, and asking nodes about themselves.

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use tidemark_protocol::d1::{CreateBody, Envelope, ReadReplication, ReplicationMode};
use tidemark_protocol::node::{NodeStatus, Verification};

use crate::client::{Client, path_segment};
use crate::error::Error;
use crate::transport::{Call, Effect, Reply};

/// Databases asked for per page of a list.
const PAGE_LENGTH: u32 = 100;

/// A database as the cluster describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DatabaseInfo {
    /// Its identifier.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// When it was created: ISO 8601 with milliseconds and `Z`.
    pub created_at: String,
    /// Bytes of its file. A list leaves it out.
    pub file_size: Option<u64>,
    /// Its tables. A list leaves it out.
    pub num_tables: Option<u64>,
    /// Region of its primary. A list leaves it out.
    pub running_in_region: Option<String>,
    /// Whether replicas hold it. A list leaves it out.
    pub read_replication: Option<ReadReplication>,
    /// Where the data may lie.
    pub jurisdiction: Option<String>,
    /// Where its creator would have liked the primary.
    pub primary_location_hint: Option<String>,
}

/// A database to be made. A plain name is one too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewDatabase(CreateBody);

impl NewDatabase {
    /// A database of this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self(CreateBody {
            name: Some(name.into()),
            ..CreateBody::default()
        })
    }

    /// Where the primary would best be.
    #[must_use]
    pub fn location_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.primary_location_hint = Some(hint.into());
        self
    }

    /// Where the data may lie.
    #[must_use]
    pub fn jurisdiction(mut self, jurisdiction: impl Into<String>) -> Self {
        self.0.jurisdiction = Some(jurisdiction.into());
        self
    }

    /// Whether replicas hold it.
    #[must_use]
    pub fn replicated(mut self, replicated: bool) -> Self {
        let mode = if replicated {
            ReplicationMode::Auto
        } else {
            ReplicationMode::Disabled
        };
        self.0.read_replication = Some(ReadReplication { mode });
        self
    }
}

impl<N: Into<String>> From<N> for NewDatabase {
    fn from(name: N) -> Self {
        Self::named(name)
    }
}

impl Client {
    /// Makes a database.
    ///
    /// ```no_run
    /// # async fn example(client: tidemark_client::Client) -> Result<(), tidemark_client::Error> {
    /// use tidemark_client::NewDatabase;
    ///
    /// client.create_database("shop").await?;
    /// client.create_database(NewDatabase::named("scratch").replicated(false)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_database(
        &self,
        database: impl Into<NewDatabase>,
    ) -> Result<DatabaseInfo, Error> {
        let NewDatabase(database) = database.into();
        let body = serde_json::to_vec(&database)
            .map_err(|error| Error::config(format!("write request: {error}")))?;
        let mut call = self.plain(Method::POST, self.databases_path(), Effect::Possible);
        call.body = Some(body.into());
        self.call(&call).await?.result()
    }

    /// All databases.
    pub async fn list_databases(&self) -> Result<Vec<DatabaseInfo>, Error> {
        let mut databases: Vec<DatabaseInfo> = Vec::new();
        for number in 1_u32.. {
            let path = format!(
                "{}?page={number}&per_page={PAGE_LENGTH}",
                self.databases_path()
            );
            let reply = self
                .call(&self.plain(Method::GET, path, Effect::None))
                .await?;
            let page: Envelope<Vec<DatabaseInfo>> = reply.envelope()?;
            let result = page.result.unwrap_or_default();
            // A server that does not page would repeat its only page for ever.
            let repeated = result
                .first()
                .is_some_and(|first| databases.contains(first));
            if result.is_empty() || repeated {
                break;
            }
            databases.extend(result);
            let total = page.result_info.map(|info| info.total_count);
            if total.is_some_and(|total| databases.len() as u64 >= total) {
                break;
            }
        }
        Ok(databases)
    }

    /// A database by name or UUID.
    pub async fn describe_database(&self, name_or_uuid: &str) -> Result<DatabaseInfo, Error> {
        let path = self.database_path(name_or_uuid, None)?;
        self.call(&self.plain(Method::GET, path, Effect::None))
            .await?
            .result()
    }

    /// Deletes a database by name or UUID, with all its data, everywhere.
    pub async fn delete_database(&self, name_or_uuid: &str) -> Result<(), Error> {
        let path = self.database_path(name_or_uuid, None)?;
        let _: Reply = self
            .call(&self.plain(Method::DELETE, path, Effect::Possible))
            .await?;
        Ok(())
    }

    /// The account that the node which answers gives of itself.
    pub async fn node_status(&self) -> Result<NodeStatus, Error> {
        let path = "/tidemark/v1/status".to_owned();
        self.call(&self.plain(Method::GET, path, Effect::None))
            .await?
            .result()
    }

    /// Has the node which answers recompute the checksum of a database, given by name or UUID or as
    /// `catalogue`, from its pages.
    pub async fn verify_database(&self, name_or_uuid: &str) -> Result<Verification, Error> {
        let path = format!(
            "/tidemark/v1/databases/{}/verify",
            path_segment(name_or_uuid)?
        );
        self.call(&self.plain(Method::POST, path, Effect::None))
            .await?
            .result()
    }

    fn plain(&self, method: Method, path: String, effect: Effect) -> Call {
        Call {
            method,
            path,
            headers: HeaderMap::new(),
            body: None,
            request: self.new_request_id(),
            deadline: self.deadline(),
            effect,
            session: None,
        }
    }
}
