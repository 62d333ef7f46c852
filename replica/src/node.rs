//! What the HTTP face asks of a replica.

use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::VerifyError;
use tidemark_protocol::catalogue::CatalogueEntry;
use tidemark_protocol::dump::{DumpOptions, DumpOutput};
use tidemark_protocol::node::{
    CreateDatabase, DatabaseInfo, DatabaseList, DatabaseStatus, ListDatabases, NodeStatus, Role,
    Verification,
};
use tidemark_protocol::{
    ClusterId, DatabaseId, Epoch, Execute, Executed, Exported, Failure, FailureKind, Node,
    Position, Region, RequestId, Seq, StateChecksum,
};
use tokio::time::Instant;

use crate::copy::Copy;
use crate::core::Core;
use crate::export;
use crate::read;
use crate::replica::Replica;

/// Time for opening a database that sleeps.
pub(crate) const WAKE_WAIT: Duration = Duration::from_secs(10);
/// Time in which a cell that has lost its leader should have another, and this replica have found it.
pub(crate) const SUCCESSOR_WAIT: Duration = Duration::from_secs(3);
/// The position of a copy that has none.
const NOWHERE: Position = Position {
    epoch: Epoch(0),
    seq: Seq::ZERO,
    checksum: StateChecksum(0),
};

impl Node for Replica {
    async fn execute(&self, request: Execute) -> Result<Executed, Failure> {
        read::execute(self.core(), request).await
    }

    async fn database(&self, name_or_id: &str) -> Result<Option<DatabaseInfo>, Failure> {
        let catalogue = self.core().catalogue();
        let entry = catalogue.as_ref().and_then(|catalogue| {
            catalogue
                .resolve(name_or_id)
                .and_then(|id| catalogue.get(id))
                .cloned()
        });
        let Some(entry) = entry else { return Ok(None) };
        if let Some(copy) = self.core().copy(entry.uuid)
            && copy.is_unmeasured()
        {
            // One that cannot be opened counts as empty.
            copy.awake(Instant::now() + WAKE_WAIT).await;
        }
        let infos = infos(self.core(), vec![entry]).await?;
        Ok(infos.into_iter().next())
    }

    fn resolve(&self, name_or_id: &str) -> Option<DatabaseId> {
        self.core().catalogue()?.resolve(name_or_id)
    }

    async fn databases(&self, list: ListDatabases) -> Result<DatabaseList, Failure> {
        let ListDatabases {
            name,
            offset,
            limit,
        } = list;
        let Some(catalogue) = self.core().catalogue() else {
            return Err(no_catalogue());
        };
        let matching = || {
            let named = |entry: &&CatalogueEntry| {
                name.as_ref()
                    .is_none_or(|part| entry.name.contains(part.as_str()))
            };
            catalogue.entries().filter(named)
        };
        let total = matching().count() as u64;
        let narrow = |n| usize::try_from(n).unwrap_or(usize::MAX);
        let page = matching()
            .skip(narrow(offset))
            .take(narrow(limit))
            .cloned()
            .collect();
        Ok(DatabaseList {
            databases: infos(self.core(), page).await?,
            total,
        })
    }

    async fn create(&self, create: CreateDatabase) -> Result<DatabaseInfo, Failure> {
        let message = format!("a replica cannot create database '{}'", create.name);
        Err(Failure::new(FailureKind::Unavailable, message))
    }

    async fn delete(
        &self,
        database: DatabaseId,
        _request: Option<RequestId>,
    ) -> Result<(), Failure> {
        let message = format!("a replica cannot delete database {database}");
        Err(Failure::new(FailureKind::Unavailable, message))
    }

    async fn verify(&self, database: DatabaseId) -> Result<Verification, Failure> {
        let Some(copy) = self.core().copy(database) else {
            let message = format!("database {database} is not on this replica");
            return Err(Failure::new(FailureKind::NoDatabase, message));
        };
        let Some(open) = copy.awake(Instant::now() + WAKE_WAIT).await else {
            let message = format!("the copy of database {database} cannot be read now");
            return Err(Failure::new(FailureKind::Damaged, message));
        };
        let verified = self.core().on_thread(move || open.database.verify());
        let verified = verified.await;
        let verified = verified.ok_or_else(|| internal("verifying panicked"))?;
        verified.map_err(|error| {
            let message = error.to_string();
            match error {
                VerifyError::Slow { .. } => Failure::new(FailureKind::Deadline, message),
                VerifyError::Busy { .. } => Failure::new(FailureKind::Overloaded, message),
                VerifyError::Large { .. } => Failure::new(FailureKind::TooLarge, message),
                VerifyError::Engine(_) | _ => internal(&message),
            }
        })
    }

    async fn export(
        &self,
        database: DatabaseId,
        options: DumpOptions,
        deadline: Duration,
        output: DumpOutput,
    ) -> Result<Exported, Failure> {
        export::export(self.core(), database, options, deadline, output).await
    }

    async fn status(&self) -> NodeStatus {
        let core = self.core();
        let catalogue = core.catalogue();
        let name_of = |id| catalogue.as_ref()?.get(id).map(|entry| entry.name.clone());
        let mut databases: Vec<_> = core
            .copies()
            .iter()
            .map(|copy| {
                let standing = copy.stands();
                DatabaseStatus {
                    uuid: copy.id(),
                    name: name_of(copy.id()).unwrap_or_default(),
                    position: standing.position.unwrap_or(NOWHERE),
                    damaged: standing.damage().map(str::to_owned),
                }
            })
            .collect();
        databases.sort_by_key(|status| status.uuid);
        NodeStatus {
            node: core.config.node,
            role: Role::Replica,
            region: core.config.region.clone(),
            leading: false,
            term: core.terms.newest(),
            primary_url: self.upstream(),
            databases,
            replicas: Vec::new(),
            cell: None,
        }
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.core().catalogue()?.cluster())
    }

    fn upstream(&self) -> Option<String> {
        Some(self.core().sources.now().url)
    }

    fn patience(&self) -> Duration {
        SUCCESSOR_WAIT.saturating_sub(self.core().alone_for())
    }

    fn ready(&self) -> Result<(), Failure> {
        self.core().catalogue().map(|_| ()).ok_or_else(no_catalogue)
    }
}

/// What the catalogue and the copies say of databases. Those that were never open here count as empty.
async fn infos(core: &Core, entries: Vec<CatalogueEntry>) -> Result<Vec<DatabaseInfo>, Failure> {
    let primary_region = primary_region(core);
    let copies: Vec<_> = entries.iter().map(|entry| core.copy(entry.uuid)).collect();
    let sizes = core.on_thread(move || {
        let measure = |copy: &Option<Arc<Copy>>| copy.as_ref().and_then(|copy| copy.measure());
        copies
            .iter()
            .map(|copy| measure(copy).unwrap_or_default())
            .collect()
    });
    let sizes: Vec<(u64, u64)> = sizes
        .await
        .ok_or_else(|| internal("measuring databases panicked"))?;
    let info = |(entry, (file_size, num_tables)): (CatalogueEntry, (u64, u64))| {
        let CatalogueEntry {
            uuid,
            name,
            created_at,
            primary_location_hint,
            jurisdiction,
            replicated,
        } = entry;
        DatabaseInfo {
            uuid,
            name,
            created_at,
            primary_location_hint,
            jurisdiction,
            replicated,
            file_size,
            num_tables,
            primary_region: primary_region.clone(),
        }
    };
    Ok(entries.into_iter().zip(sizes).map(info).collect())
}

fn primary_region(core: &Core) -> Region {
    core.catalogue()
        .map(|catalogue| catalogue.primary_region().clone())
        .or_else(|| core.source_region())
        .unwrap_or_else(|| core.config.region.clone())
}

fn no_catalogue() -> Failure {
    let message = "this replica has no catalogue yet: it never reached its source";
    Failure::new(FailureKind::Unavailable, message)
}

fn internal(message: &str) -> Failure {
    Failure::new(FailureKind::Internal, message)
}
