//! Databases themselves: making, listing, measuring and deleting them.
//!
//! The catalogue is a database of the cell: each change to it is a write like any other, and so are its
//! retries.

use std::time::Duration;

use tidemark_protocol::node::{
    CreateDatabase, DatabaseInfo, DatabaseList, EditDatabase, ListDatabases,
};
use tidemark_protocol::{
    Catalogue, CatalogueEntry, DatabaseId, Failure, FailureKind, PAGE_SIZE, RequestId, Statement,
    Term, Value,
};

use super::no_database;
use super::reading::read_failure;
use crate::cell::Primary;
use crate::pipeline::not_leading;

impl Primary {
    /// Makes a database.
    pub(super) async fn create_database(
        &self,
        create: CreateDatabase,
    ) -> Result<DatabaseInfo, Failure> {
        let term = self.leading_soon().await?;
        self.config.regions.check(&create, &self.config.region)?;
        let random = uuid::Builder::from_random_bytes(self.environment.random.bytes16());
        let uuid = DatabaseId::new(random.into_uuid());
        let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
        let insert = Statement {
            sql: "INSERT INTO databases(uuid, name, created_at, primary_location_hint, \
                  jurisdiction, replicated) VALUES (?, ?, ?, ?, ?, ?)"
                .to_owned(),
            params: vec![
                Value::Text(uuid.to_string()),
                Value::Text(create.name.clone()),
                Value::Text(timestamp(self.environment.clock.unix_ms())),
                text(create.primary_location_hint),
                text(create.jurisdiction),
                Value::Integer(i64::from(create.replicated)),
            ],
        };
        self.write_catalogue(vec![insert], create.request, term)
            .await
            .map_err(|failure| {
                if failure
                    .message
                    .starts_with("UNIQUE constraint failed: databases.name")
                {
                    Failure::new(
                        FailureKind::DatabaseExists,
                        format!("Database with name '{}' already exists", create.name),
                    )
                } else {
                    failure
                }
            })?;
        self.refresh_catalogue().await.map_err(|error| {
            // Committed all the same: a retry under the same request id finds it.
            Failure::new(FailureKind::Unknown, error.to_string())
        })?;
        // From its entry alone: nothing may fail now that it is committed.
        let catalogue = self.catalogue().ok_or_else(not_leading);
        let created = catalogue.ok().and_then(|catalogue| {
            let entry = catalogue.get(catalogue.resolve(&create.name)?)?;
            Some(self.listed(&catalogue, entry))
        });
        created.ok_or_else(|| {
            let text = format!("database '{}' was created, and deleted since", create.name);
            Failure::new(FailureKind::Unknown, text)
        })
    }

    /// Deletes a database.
    pub(super) async fn delete_database(
        &self,
        database: DatabaseId,
        request: Option<RequestId>,
    ) -> Result<(), Failure> {
        let term = self.leading_soon().await?;
        let listed = self
            .catalogue()
            .is_some_and(|catalogue| catalogue.get(database).is_some());
        if !listed && !self.contact.is_fresh() {
            // Another leader may have made it.
            return Err(self.no_leader());
        }
        // The catalogue's writer knows whether an earlier try of this request deleted it.
        if !listed && request.is_none() {
            return Err(no_database(&database.to_string()));
        }
        let delete = Statement {
            sql: "DELETE FROM databases WHERE uuid = ?".to_owned(),
            params: vec![Value::Text(database.to_string())],
        };
        // A retry that names a newer database of the same name deletes nothing: its first try counts.
        let deleted = self.write_catalogue(vec![delete], request, term).await?;
        if !listed && !deleted.wrote {
            return Err(no_database(&database.to_string()));
        }
        self.refresh_catalogue()
            .await
            .map_err(|error| Failure::new(FailureKind::Unknown, error.to_string()))
    }

    /// Changes what the catalogue says of a database.
    pub(super) async fn edit_database(
        &self,
        database: DatabaseId,
        edit: EditDatabase,
    ) -> Result<DatabaseInfo, Failure> {
        let EditDatabase {
            replicated,
            request,
        } = edit;
        let term = self.leading_soon().await?;
        if let Some(replicated) = replicated {
            let update = Statement {
                sql: "UPDATE databases SET replicated = ? WHERE uuid = ?".to_owned(),
                params: vec![
                    Value::Integer(i64::from(replicated)),
                    Value::Text(database.to_string()),
                ],
            };
            self.write_catalogue(vec![update], request, term).await?;
            self.refresh_catalogue()
                .await
                .map_err(|error| Failure::new(FailureKind::Unknown, error.to_string()))?;
        }
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        let entry = catalogue.get(database);
        entry
            .map(|entry| self.listed(&catalogue, entry))
            .ok_or_else(|| no_database(&database.to_string()))
    }

    /// Lists databases, from the catalogue alone.
    pub(super) fn list_databases(&self, list: &ListDatabases) -> Result<DatabaseList, Failure> {
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        let wanted = |entry: &&CatalogueEntry| {
            list.name
                .as_ref()
                .is_none_or(|part| entry.name.contains(part.as_str()))
        };
        let total = catalogue.entries().filter(wanted).count() as u64;
        let skip = usize::try_from(list.offset).unwrap_or(usize::MAX);
        let take = usize::try_from(list.limit).unwrap_or(usize::MAX);
        let mut databases = Vec::new();
        for entry in catalogue.entries().filter(wanted).skip(skip).take(take) {
            databases.push(self.listed(&catalogue, entry));
        }
        Ok(DatabaseList { databases, total })
    }

    /// The term in which this node serves, now or as soon as an election has ended.
    async fn leading_soon(&self) -> Result<Term, Failure> {
        self.wait_for_a_leader(self.contact.patience()).await;
        if !self.contact.is_certainly_fresh(&self.consensus).await {
            return Err(self.no_leader());
        }
        (*self.serving.borrow()).ok_or_else(|| self.no_leader())
    }

    /// What the catalogue knows of a database, as if it were empty.
    fn listed(&self, catalogue: &Catalogue, entry: &CatalogueEntry) -> DatabaseInfo {
        DatabaseInfo {
            uuid: entry.uuid,
            name: entry.name.clone(),
            created_at: entry.created_at.clone(),
            primary_location_hint: entry.primary_location_hint.clone(),
            jurisdiction: entry.jurisdiction.clone(),
            replicated: entry.replicated,
            file_size: PAGE_SIZE as u64,
            num_tables: 0,
            primary_region: catalogue.primary_region().clone(),
        }
    }

    /// What is known of a database, with its size here.
    pub(super) async fn info(
        &self,
        catalogue: &Catalogue,
        entry: &CatalogueEntry,
    ) -> Result<DatabaseInfo, Failure> {
        let line = self.line(entry.uuid).await?;
        let tables = line.database().table_count();
        Ok(DatabaseInfo {
            file_size: line.database().file_size(),
            num_tables: tables.map_err(|error| read_failure(error, Duration::ZERO))?,
            ..self.listed(catalogue, entry)
        })
    }
}

/// ISO 8601 in UTC with milliseconds.
pub(crate) fn timestamp(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}
