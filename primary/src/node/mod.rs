//! What the HTTP face asks of a primary.
//!
//! A request goes one of three ways:
//!
//! 1. The node leads: `leading` runs it.
//! 2. It does not, or cannot be sure to: a session's read is answered from this node's copy (`sessions`).
//! 3. All else is for the leader. While an election goes on, the request waits for its end; once one should be
//!    over and nobody leads, it is told so at once, and so is every request after it.

mod admin;
mod exporting;
mod leading;
mod reading;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use tidemark_protocol::dump::{DumpOptions, DumpOutput};
use tidemark_protocol::node::{
    CreateDatabase, DatabaseInfo, DatabaseList, DatabaseReplicas, DatabaseStatus, EditDatabase,
    ListDatabases, NodeStatus, Role, Verification,
};
use tidemark_protocol::{
    ClusterId, DatabaseId, Execute, Executed, Exported, Failure, FailureKind, Freshness, Node,
    ReadContract, RequestId, Why,
};
use tokio::time::Instant;

pub(crate) use self::admin::timestamp;
pub(crate) use self::exporting::EXPORTS_MAX;
use crate::cell::Primary;
use crate::consensus::Leader;
use crate::pipeline::{not_leading, shut_down};

/// How long to stay away when no majority can be reached.
const OUTAGE_WAIT: Duration = Duration::from_secs(1);

impl Node for Primary {
    async fn execute(&self, request: Execute) -> Result<Executed, Failure> {
        // Everything below shares this time.
        let expires = Instant::now() + request.deadline;
        // How old this copy is, nothing proves here: the leader is near.
        let in_session = request.freshness == Freshness::Any
            && matches!(
                request.read,
                ReadContract::FirstUnconstrained | ReadContract::Bookmark(_)
            );
        if in_session
            && !(self.serves() && self.contact.is_fresh())
            && let Some(answer) = Box::pin(self.read_copy(&request)).await?
        {
            return Ok(Executed::Answer(answer));
        }
        if !self.serves() {
            let left = expires.saturating_duration_since(Instant::now());
            let within = self.contact.patience().min(left / 4 * 3);
            Box::pin(self.wait_for_a_leader(within)).await;
        }
        let Some(term) = *self.serving.borrow() else {
            return self.elsewhere();
        };
        // Nothing could be committed, and what is executed would only wait behind what is in flight.
        if !self.contact.is_certainly_fresh(&self.consensus).await {
            return self.elsewhere();
        }
        match self.lead(request, term, expires).await {
            Ok(Some(answer)) => Ok(Executed::Answer(answer)),
            Ok(None) => self.elsewhere(),
            // Not taken into the log for want of a majority, and the next will not be either.
            Err(failure)
                if failure.kind == FailureKind::Unavailable
                    && self.contact.patience().is_zero() =>
            {
                Err(failure.retry_after(OUTAGE_WAIT))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn database(&self, name_or_id: &str) -> Result<Option<DatabaseInfo>, Failure> {
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        let Some(id) = catalogue.resolve(name_or_id) else {
            return Ok(None);
        };
        match catalogue.get(id) {
            Some(entry) => self.info(&catalogue, entry).await.map(Some),
            None => Ok(None),
        }
    }

    fn resolve(&self, name_or_id: &str) -> Option<DatabaseId> {
        self.catalogue()?.resolve(name_or_id)
    }

    async fn databases(&self, list: ListDatabases) -> Result<DatabaseList, Failure> {
        self.list_databases(&list)
    }

    async fn create(&self, create: CreateDatabase) -> Result<DatabaseInfo, Failure> {
        self.create_database(create).await
    }

    async fn delete(
        &self,
        database: DatabaseId,
        request: Option<RequestId>,
    ) -> Result<(), Failure> {
        self.delete_database(database, request).await
    }

    async fn edit(
        &self,
        database: DatabaseId,
        edit: EditDatabase,
    ) -> Result<DatabaseInfo, Failure> {
        self.edit_database(database, edit).await
    }

    async fn verify(&self, database: DatabaseId) -> Result<Verification, Failure> {
        let known = database == DatabaseId::CATALOGUE
            || self
                .catalogue()
                .is_some_and(|catalogue| catalogue.get(database).is_some());
        if !known {
            return Err(no_database(&database.to_string()));
        }
        let line = self.line(database).await?;
        let source = Arc::clone(line.database());
        self.on_sql_thread(move || reading::verify(&source)).await?
    }

    async fn export(
        &self,
        database: DatabaseId,
        options: DumpOptions,
        deadline: Duration,
        output: DumpOutput,
    ) -> Result<Exported, Failure> {
        self.export_database(database, options, deadline, output)
            .await
    }

    async fn replicas(&self, database: DatabaseId) -> Result<DatabaseReplicas, Failure> {
        if !(self.serves() && self.contact.is_certainly_fresh(&self.consensus).await) {
            return Err(self.no_leader());
        }
        let line = self.line(database).await?;
        let position = line.database().position();
        let position = position.unwrap_or_else(|| line.durable());
        Ok(DatabaseReplicas {
            uuid: database,
            position,
            replicas: self.followers.of(database, position),
        })
    }

    async fn status(&self) -> NodeStatus {
        let leadership = self.consensus.leadership().borrow().clone();
        let catalogue = self.catalogue();
        let name = |database| {
            let entry = catalogue.as_ref()?.get(database)?;
            Some(entry.name.clone())
        };
        let (lines, asleep) = self.databases.all_and_asleep();
        let open = lines.into_iter().map(|line| {
            let position = line.database().position();
            DatabaseStatus {
                uuid: line.id(),
                name: name(line.id()).unwrap_or_default(),
                position: position.unwrap_or_else(|| line.durable()),
                damaged: position
                    .is_none()
                    .then(|| "its content is at no known position".to_owned()),
            }
        });
        let asleep = asleep.into_iter().map(|(uuid, position)| DatabaseStatus {
            uuid,
            name: name(uuid).unwrap_or_default(),
            position,
            damaged: None,
        });
        let databases = open.chain(asleep);
        NodeStatus {
            node: self.config.node,
            role: Role::Primary,
            region: self.config.region.clone(),
            leading: self.serves() && self.contact.is_fresh(),
            term: leadership.term,
            primary_url: leadership.leader.map(|leader| leader.address),
            databases: databases.collect(),
            replicas: self.followers.status(),
            cell: Some(self.cell_status()),
        }
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(self.catalogue()?.cluster())
    }

    fn upstream(&self) -> Option<String> {
        let leader = self.other_leader()?;
        let way = self.config.via.get(&leader.node);
        Some(way.cloned().unwrap_or(leader.address))
    }

    fn patience(&self) -> Duration {
        self.contact.patience()
    }

    fn ready(&self) -> Result<(), Failure> {
        if self.is_retiring() {
            // Served to the end all the same: this tells balancers to send no more.
            return Err(shut_down());
        }
        // A leader without a majority may have been replaced, and does not know what there is by now. A
        // follower hands on, for which it has to know what there is.
        let leads = self.serves() && self.contact.is_fresh();
        if leads || (self.upstream().is_some() && self.catalogue().is_some()) {
            Ok(())
        } else {
            Err(self.no_leader())
        }
    }
}

impl Primary {
    /// Who leads instead of this node, under the address that the cell knows.
    pub(crate) fn other_leader(&self) -> Option<Leader> {
        // A leader that has been silent for longer than an election takes is none any more.
        if self.serves() || self.contact.patience().is_zero() {
            return None;
        }
        let leader = self.consensus.leadership().borrow().leader.clone()?;
        (leader.node != self.config.node).then_some(leader)
    }

    /// What to do with a request that needs a leader, which this node is not.
    fn elsewhere(&self) -> Result<Executed, Failure> {
        if self.upstream().is_some() {
            Ok(Executed::Forward(Why::NotLeading))
        } else {
            Err(self.no_leader())
        }
    }

    /// Why a request that needs a leader is not done: an election goes on, or none can succeed.
    fn no_leader(&self) -> Failure {
        if !self.contact.patience().is_zero() {
            return not_leading();
        }
        let text = "nobody leads this cell: a majority of its voters cannot be reached";
        Failure::new(FailureKind::Unavailable, text).retry_after(OUTAGE_WAIT)
    }

    /// Whether this node leads and has everything that was acknowledged.
    fn serves(&self) -> bool {
        self.serving.borrow().is_some()
    }
}

/// A request ran out of time before anything came of it.
pub(crate) fn deadline(limit: Duration) -> Failure {
    Failure::new(
        FailureKind::Deadline,
        format!("the statements did not end within the deadline of {limit:?}; nothing happened"),
    )
}

pub(crate) fn no_database(name: &str) -> Failure {
    Failure::new(
        FailureKind::NoDatabase,
        format!("The database {name} could not be found"),
    )
}
