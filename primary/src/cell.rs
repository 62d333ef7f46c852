//! A voter's life: recover, take part, lead, stop.
//!
//! 1. See which databases have files. One that is opened, by then or later, says by its checksum where it
//!    stands.
//! 2. Start consensus: it repeats the log from where the files were last known to be durable.
//! 3. When this node leads and the opening entry of its term is applied, wait until every writer has
//!    dealt with what was applied before it; only then serve. A read before that could miss an
//!    acknowledged write.
//! 4. The first leader of a new cell writes the catalogue.
//!
//! How the cell begins, and who is in it, is the affair of [`crate::members`].

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use tidemark_engine::{Control, Threads};
use tidemark_net::Connector;
use tidemark_protocol::catalogue::{
    BOOKMARK_KEY, CHANGES_SCHEMA, CatalogueReader, CatalogueReading, PRIMARY_REGION, SCHEMA,
};
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::render::{RowShape, ServedBy, ValueForm};
use tidemark_protocol::{
    Catalogue, DatabaseId, Execute, Failure, FailureKind, Freshness, Node, OnMiss, Position,
    ReadContract, RequestId, Rules, Seq, Statement, Term, Value,
};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chain::ChainFile;
use crate::config::PrimaryConfig;
use crate::consensus::{Consensus, ConsensusConfig, ConsensusError, Disk, SlowDisk};
use crate::contact::Contact;
use crate::databases::{Databases, DatabasesError};
use crate::install::Installer;
use crate::machine::CellMachine;
use crate::members::{Members, MembersError, first_members};
use crate::metrics::{ConsensusCollector, Metrics, ReplicaCollector};
use crate::node::EXPORTS_MAX;
use crate::pipeline::{Line, PipelineContext, Room};
use crate::ship::Followers;
use crate::ship::listed::Listed;
use crate::ship::recent::Recent;
use crate::ship::session::ShipContext;
use crate::transport::HttpTransport;

/// Time for one write to the catalogue.
const CATALOGUE_DEADLINE: Duration = Duration::from_secs(10);
/// How often the growth of the log is looked at.
const PERSIST_CHECK: Duration = Duration::from_secs(1);
/// Time for the last checkpoint at a graceful stop.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// What a node takes from the world.
#[derive(Clone)]
pub struct Environment {
    /// Threads that run SQL.
    pub threads: Arc<dyn Threads>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Reaches the other nodes of the cell.
    pub connector: Arc<dyn Connector>,
    /// Decides when the log is flushed, in a simulation. `None`: nobody need decide.
    pub slow_disk: Option<Arc<dyn SlowDisk>>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

/// A primary cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrimaryError {
    /// The databases.
    #[error(transparent)]
    Databases(#[from] DatabasesError),
    /// The log or the group.
    #[error("consensus")]
    Consensus(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Voters could not show it to each other.
    #[error("the cluster secret is not of visible ASCII")]
    ClusterSecret,
    /// The file that says where the databases stood when the log began.
    #[error("read the file chain")]
    Chain(#[source] std::io::Error),
    /// A database's files failed while committed transactions were written to them.
    #[error("files failed: {0}")]
    Files(String),
    /// The catalogue could not be written or read.
    #[error("the catalogue: {0}")]
    Catalogue(String),
    /// The note that this node joins a cell.
    #[error("read or write the file joining")]
    Joining(#[source] std::io::Error),
    /// This node cannot be part of its cell.
    #[error(transparent)]
    Members(Arc<MembersError>),
}

impl From<ConsensusError> for PrimaryError {
    fn from(error: ConsensusError) -> Self {
        Self::Consensus(Box::new(error))
    }
}

/// A voter of a cell.
#[derive(Debug)]
pub struct Primary {
    pub(crate) config: PrimaryConfig,
    pub(crate) environment: Environment,
    pub(crate) databases: Arc<Databases>,
    pub(crate) followers: Arc<Followers>,
    pub(crate) context: Arc<PipelineContext>,
    pub(crate) consensus: Consensus,
    pub(crate) catalogue: RwLock<Option<Arc<Catalogue>>>,
    /// The term in which this node serves as leader.
    pub(crate) serving: watch::Sender<Option<Term>>,
    pub(crate) ship: Arc<ShipContext>,
    pub(crate) contact: Contact,
    pub(crate) members: Members,
    /// Held by each export.
    pub(crate) exports: Arc<Semaphore>,
    /// Held while the catalogue is read, so that an older state never takes the place of a newer one.
    refreshing: tokio::sync::Mutex<Refreshing>,
    stop: CancellationToken,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

/// How far the catalogue was read.
#[derive(Debug, Default)]
struct Refreshing {
    /// Where the one stood that is known.
    read_at: Option<Position>,
    /// Databases that it no longer lists and whose files are still there.
    dropped: Vec<DatabaseId>,
}

/// What came of a newer catalogue.
struct Adopted {
    new: Arc<Catalogue>,
    /// Databases that were in the last one and are not in this one.
    gone: Vec<DatabaseId>,
    /// Databases in this one that may be new.
    listed: Vec<DatabaseId>,
}

impl Primary {
    /// Recovers from the node's files and takes part in the cell.
    pub async fn start(
        config: PrimaryConfig,
        environment: Environment,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, PrimaryError> {
        let metrics = Arc::new(Metrics::new(registry));
        let recent = Arc::new(Recent::new(config.recent_bytes_max));
        let followers = Arc::new(Followers::default());
        let context = Arc::new(PipelineContext {
            consensus: OnceLock::new(),
            catalogue_changed: Notify::new(),
            fatal: watch::Sender::new(None),
            recent: Arc::clone(&recent),
            environment: environment.clone(),
            served_by: ServedBy {
                region: config.region.to_string(),
                primary: true,
            },
            answer: config.answer,
            writes_in_flight_max: config.writes_in_flight_max,
            room: Room::new(config.committed_bytes_max),
            readers_max: config.engine.readers_max,
            metrics: Arc::clone(&metrics),
        });
        let databases = Databases::new(
            config.directory.join("databases"),
            config.engine.clone(),
            Arc::clone(&context),
        )?;
        databases.open(DatabaseId::CATALOGUE).await?;
        let chain = ChainFile::load(&config.directory).map_err(PrimaryError::Chain)?;
        databases.recover(&chain.1.positions).await?;
        let installer = Installer::new(
            Arc::clone(&databases),
            Arc::clone(&followers),
            &config,
            Arc::clone(&context),
        )
        .ok_or(PrimaryError::ClusterSecret)?;
        let machine = CellMachine::new(
            chain,
            Arc::clone(&databases),
            Arc::clone(&recent),
            Arc::clone(&followers),
            installer,
        );
        let connector = Arc::clone(&environment.connector);
        let transport = HttpTransport::new(&config.cluster_secret, config.via.clone(), connector)
            .ok_or(PrimaryError::ClusterSecret)?;
        let group = ConsensusConfig {
            log_segment_bytes: config.log_segment_bytes,
            log_entries_kept: config.log_entries_kept,
            log_bytes_kept: config.log_bytes_kept,
            ..ConsensusConfig::new(config.directory.clone(), config.node, config.incarnation)
        };
        let disk = Disk {
            threads: Arc::clone(&environment.threads),
            slow: environment.slow_disk.clone(),
        };
        let consensus = Consensus::start(group, disk, Arc::new(transport), machine).await?;
        let members =
            Members::new(&config, &environment.connector).ok_or(PrimaryError::ClusterSecret)?;
        registry.register_collector(Box::new(ConsensusCollector(consensus.clone())));
        registry.register_collector(Box::new(ReplicaCollector(Arc::clone(&followers))));
        context
            .consensus
            .set(consensus.clone())
            .expect("set once, here");
        let stop = CancellationToken::new();
        let serving = watch::Sender::new(None);
        let ship = Arc::new(ShipContext {
            node: config.node,
            region: config.region.clone(),
            databases: Arc::clone(&databases),
            regions: config.regions.clone(),
            listed: Listed::default(),
            recent,
            followers: Arc::clone(&followers),
            serving: serving.subscribe(),
            consensus: consensus.clone(),
            environment: environment.clone(),
            heartbeat: config.heartbeat,
            stop: stop.clone(),
            metrics,
        });
        let primary = Arc::new(Self {
            config,
            environment,
            databases,
            followers,
            context,
            consensus,
            catalogue: RwLock::default(),
            serving,
            ship,
            contact: Contact::new(),
            members,
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            refreshing: tokio::sync::Mutex::default(),
            stop,
            tasks: std::sync::Mutex::default(),
        });
        let tasks = [
            tokio::spawn({
                let primary = Arc::clone(&primary);
                async move {
                    primary
                        .contact
                        .follow(&primary.consensus, &primary.stop)
                        .await
                }
            }),
            tokio::spawn(Arc::clone(&primary).follow_leadership()),
            tokio::spawn(Arc::clone(&primary).follow_catalogue()),
            tokio::spawn(Arc::clone(&primary).persist_as_the_log_grows()),
            tokio::spawn(Arc::clone(&primary).repair_damaged()),
            tokio::spawn(Arc::clone(&primary.databases).close_idle(
                primary.config.idle_wait,
                primary.config.open_max,
                primary.stop.clone(),
            )),
        ];
        for task in tasks {
            primary.keep(task);
        }
        if let Err(error) = primary.enter_the_cell().await {
            primary.stop().await;
            return Err(error);
        }
        Ok(primary)
    }

    /// Has a task end with this node.
    pub(crate) fn keep(&self, task: JoinHandle<()>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(task);
    }

    /// Resolves when this node cannot go on and its process has to exit and recover from its files.
    pub async fn failed(&self) -> PrimaryError {
        let mut fatal = self.context.fatal.subscribe();
        tokio::select! {
            error = self.consensus.failed() => error.into(),
            error = self.members.broken() => PrimaryError::Members(error),
            // The sender lives in self.
            Ok(reason) = fatal.wait_for(Option::is_some) => {
                PrimaryError::Files(reason.clone().unwrap_or_default())
            }
        }
    }

    /// Resolves when this node serves as leader.
    pub async fn wait_until_serving(&self) {
        // The sender lives in self.
        let _ = self.serving.subscribe().wait_for(Option::is_some).await;
    }

    /// Stops serving, makes everything durable, closes. What was accepted before is finished. Hands over
    /// first, if [`Primary::retire`] has not.
    pub async fn stop(&self) {
        self.retire().await;
        self.serving.send_replace(None);
        self.stop.cancel();
        if let Err(error) = self.consensus.snapshot(STOP_DEADLINE).await {
            tracing::warn!(%error, "no last checkpoint; the log makes up for it at the next start");
        }
        self.consensus.stop().await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
        }
        if !self.databases.close(STOP_DEADLINE).await {
            tracing::warn!("some databases were still in use at the end");
        }
    }

    /// Waits, while nobody leads as far as this node knows, until somebody does, at most `within`.
    pub(crate) async fn wait_for_a_leader(&self, within: Duration) {
        let mut serving = self.serving.subscribe();
        let mut leadership = self.consensus.leadership();
        let led = async {
            loop {
                // Marked as seen first: a change from here on wakes.
                leadership.borrow_and_update();
                if serving.borrow_and_update().is_some() || self.upstream().is_some() {
                    return;
                }
                tokio::select! {
                    Ok(()) = serving.changed() => {}
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = self.stop.cancelled() => return,
                }
            }
        };
        // Whoever waited looks for itself.
        let _ = tokio::time::timeout(within, led).await;
    }

    /// The catalogue as of its newest committed state known here.
    pub(crate) fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.catalogue
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The line of a database that the catalogue lists.
    pub(crate) async fn line(&self, database: DatabaseId) -> Result<Arc<Line>, Failure> {
        let line = self.databases.open(database).await.map_err(|error| {
            if let DatabasesError::Gone { database } = error {
                return crate::node::no_database(&database.to_string());
            }
            if let DatabasesError::Replacing { .. } = error {
                return Failure::new(FailureKind::Unavailable, error.to_string())
                    .retry_after(Duration::from_millis(200));
            }
            tracing::error!(%error, "cannot open a database");
            Failure::new(FailureKind::Internal, error.to_string())
        })?;
        if line.is_damaged() {
            return Err(Failure::new(
                FailureKind::Damaged,
                format!("the copy of database {database} on this node is damaged"),
            ));
        }
        Ok(line)
    }

    /// Writes to the catalogue.
    pub(crate) async fn write_catalogue(
        &self,
        statements: Vec<Statement>,
        request: Option<RequestId>,
        term: Term,
    ) -> Result<crate::pipeline::Written, Failure> {
        let line = self.line(DatabaseId::CATALOGUE).await?;
        let request = Execute {
            database: DatabaseId::CATALOGUE,
            statements,
            request,
            read: ReadContract::Primary,
            freshness: Freshness::Any,
            deadline: CATALOGUE_DEADLINE,
            on_miss: OnMiss::Error,
            shape: RowShape::Objects.into(),
            form: ValueForm::D1,
            rules: Rules::Request,
        };
        let expires = tokio::time::Instant::now() + CATALOGUE_DEADLINE;
        line.write(request, Seq::ZERO, term, expires).await
    }

    /// Reads what is new in the catalogue, and drops the databases that it lists no more. On a follower too, which
    /// looks up there what it hands on. Nothing happens as long as nobody has written it.
    pub(crate) async fn refresh_catalogue(&self) -> Result<(), PrimaryError> {
        let mut refreshing = self.refreshing.lock().await;
        let line = match self.databases.open(DatabaseId::CATALOGUE).await {
            // It is read again when that is done.
            Err(DatabasesError::Replacing { .. }) => return Ok(()),
            opened => opened?,
        };
        if line.is_damaged() {
            // It may be an old one, by which databases would go that were made since.
            return Err(PrimaryError::Catalogue(
                "this node's copy of it is damaged".to_owned(),
            ));
        }
        // Before the read: a catalogue read earlier lists nothing of what is taken over meanwhile.
        let taken_over = self.databases.take_taken_over();
        let known = self.catalogue();
        let known = known.and_then(|known| Some((refreshing.read_at?, known.changes()?)));
        let (position, reading) = match read_catalogue(&line, known) {
            Ok(Some(read)) => read,
            unread => {
                self.databases.put_back_taken_over(taken_over);
                return unread.map(drop);
            }
        };
        let Adopted { new, gone, listed } = self.adopt_catalogue(reading);
        refreshing.read_at = Some(position);
        for database in gone {
            // At once: whoever asked for this refresh may not wait for its end.
            self.databases.mark_gone(database);
            refreshing.dropped.push(database);
        }
        // What was taken over from a peer is in no list before, and in this one unless it was deleted.
        let unlisted = |database: &DatabaseId| {
            *database != DatabaseId::CATALOGUE && new.get(*database).is_none()
        };
        for database in taken_over.into_iter().filter(unlisted) {
            self.databases.mark_gone(database);
            refreshing.dropped.push(database);
        }
        while let Some(database) = refreshing.dropped.last() {
            self.drop_database(*database).await;
            refreshing.dropped.pop();
        }
        // Replicas ask for a new database before anybody writes to it.
        for database in listed {
            self.databases.list(database);
        }
        Ok(())
    }

    /// Everybody sees the newer catalogue from now on.
    fn adopt_catalogue(&self, reading: CatalogueReading) -> Adopted {
        let mut held = self
            .catalogue
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match (reading, &mut *held) {
            (CatalogueReading::Changes(changes), Some(held)) => {
                self.ship.listed.change(&changes);
                Arc::make_mut(held).apply(&changes);
                let (listed, gone): (Vec<_>, Vec<_>) =
                    changes.databases().partition(|(_, entry)| entry.is_some());
                let ids = |of: Vec<(DatabaseId, _)>| of.into_iter().map(|(id, _)| id).collect();
                Adopted {
                    new: Arc::clone(held),
                    gone: ids(gone),
                    listed: ids(listed),
                }
            }
            (CatalogueReading::Whole(new), held) => {
                let new = Arc::new(new);
                self.ship.listed.adopt(&new);
                let old = held.replace(Arc::clone(&new));
                let before = old.iter().flat_map(|old| old.entries());
                let gone = before.filter(|entry| new.get(entry.uuid).is_none());
                Adopted {
                    gone: gone.map(|entry| entry.uuid).collect(),
                    listed: new.entries().map(|entry| entry.uuid).collect(),
                    new,
                }
            }
            (CatalogueReading::Changes(_) | CatalogueReading::Lost, _) => {
                unreachable!(
                    "changes are read of a known catalogue, and the whole if they are lost"
                )
            }
        }
    }

    async fn drop_database(&self, database: DatabaseId) {
        tracing::info!(%database, "database deleted");
        self.followers.dropped(database);
        if let Err(error) = self.databases.remove(database).await {
            tracing::error!(%database, %error, "files of a deleted database remain");
        }
    }

    async fn follow_leadership(self: Arc<Self>) {
        let mut leadership = self.consensus.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            let served = *self.serving.borrow();
            if served.is_some_and(|term| !now.leading || now.term != term) {
                self.serving.send_replace(None);
                self.databases
                    .all()
                    .iter()
                    .for_each(|line| line.step_down());
            }
            if now.leading && self.is_retiring() {
                self.decline().await;
            } else if now.leading && *self.serving.borrow() != Some(now.term) {
                match self.begin_to_serve(now.term).await {
                    Ok(()) => tracing::info!(term = %now.term, "serving as primary"),
                    Err(error) => {
                        tracing::error!(%error, "leads, but cannot serve");
                        tokio::time::sleep(PERSIST_CHECK).await;
                        continue;
                    }
                }
            }
            if leadership.changed().await.is_err() {
                self.serving.send_replace(None);
                return;
            }
        }
    }

    async fn begin_to_serve(&self, term: Term) -> Result<(), PrimaryError> {
        let lines = self.databases.all();
        let drained = join_all(lines.iter().map(|line| line.drained())).await;
        if drained.contains(&false) {
            return Err(PrimaryError::Files("a writer stopped".to_owned()));
        }
        let catalogue = self.databases.open(DatabaseId::CATALOGUE).await?;
        if catalogue
            .database()
            .position()
            .is_some_and(|position| position.seq == Seq::ZERO)
        {
            self.write_first_catalogue(term).await?;
        }
        self.refresh_catalogue().await?;
        if self.catalogue().is_none() {
            let reason = "its content is at no known position".to_owned();
            return Err(PrimaryError::Catalogue(reason));
        }
        if self
            .catalogue()
            .is_some_and(|known| known.changes().is_none())
        {
            // Of a version that did not number them.
            self.number_changes(term).await?;
        }
        let (got, newest) = (catalogue.database().position(), catalogue.newest());
        if newest.is_some_and(|newest| got.is_none_or(|got| !got.reached(&newest))) {
            let reason = format!("it is at {got:?}, committed is {newest:?}");
            return Err(PrimaryError::Catalogue(reason));
        }
        self.remove_leftovers().await?;
        self.serving.send_if_modified(|serving| {
            // Asked to retire meanwhile, it lets nothing new in.
            let begins = !self.is_retiring();
            if begins {
                *serving = Some(term);
            }
            begins
        });
        Ok(())
    }

    async fn write_first_catalogue(&self, term: Term) -> Result<(), PrimaryError> {
        let key = self.environment.random.bytes16().to_vec();
        let insert = "INSERT INTO settings(key, value) VALUES (?, ?), (?, ?)";
        let settings = vec![
            Value::Text(BOOKMARK_KEY.to_owned()),
            Value::Blob(key),
            Value::Text(PRIMARY_REGION.to_owned()),
            Value::Text(self.config.region.to_string()),
        ];
        let mut statements = vec![
            Statement {
                sql: SCHEMA.to_owned(),
                params: vec![],
            },
            Statement {
                sql: insert.to_owned(),
                params: settings,
            },
        ];
        let members = self.consensus.members().members;
        statements.extend(first_members(&members, &self.timestamp()));
        let written = self.write_catalogue(statements, None, term).await;
        written
            .map_err(|failure| PrimaryError::Catalogue(failure.to_string()))
            .map(drop)
    }

    async fn number_changes(&self, term: Term) -> Result<(), PrimaryError> {
        let statement = Statement {
            sql: CHANGES_SCHEMA.to_owned(),
            params: vec![],
        };
        let written = self.write_catalogue(vec![statement], None, term).await;
        written.map_err(|failure| PrimaryError::Catalogue(failure.to_string()))?;
        self.refresh_catalogue().await
    }

    /// Files of databases whose deletion was committed while this node was down.
    async fn remove_leftovers(&self) -> Result<(), PrimaryError> {
        let Some(catalogue) = self.catalogue() else {
            return Ok(());
        };
        for database in self.databases.on_disk()? {
            if database != DatabaseId::CATALOGUE && catalogue.get(database).is_none() {
                self.drop_database(database).await;
            }
        }
        Ok(())
    }

    async fn follow_catalogue(self: Arc<Self>) {
        loop {
            if let Err(error) = self.refresh_catalogue().await {
                tracing::error!(%error, "cannot read the catalogue");
            }
            self.context.catalogue_changed.notified().await;
        }
    }

    async fn persist_as_the_log_grows(self: Arc<Self>) {
        let mut tick = tokio::time::interval(PERSIST_CHECK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // By growth, not by size: a cell of several keeps much of the log for voters that were away.
        let mut found = self.consensus.log_bytes();
        let mut dealt_with = 0;
        loop {
            tick.tick().await;
            let written = self.consensus.metrics().written_bytes;
            if found + written.saturating_sub(dealt_with) < self.config.persist_every_bytes {
                continue;
            }
            match self.consensus.snapshot(STOP_DEADLINE).await {
                Ok(_) => (found, dealt_with) = (0, written),
                Err(error) => tracing::warn!(%error, "the log could not be purged"),
            }
        }
    }
}

/// The catalogue as its readers see it: what changed since the `known` one, read at that position with so many
/// changes, or the whole. `None` as long as nobody has written it.
fn read_catalogue(
    line: &Line,
    known: Option<(Position, u64)>,
) -> Result<Option<(Position, CatalogueReading)>, PrimaryError> {
    let position = line.database().position();
    if position.is_none_or(|position| position.seq == Seq::ZERO) {
        return Ok(None);
    }
    if let Some((read_at, changes)) = known {
        let (position, reading) = read_with(line, CatalogueReader::since(changes))?;
        let same_history = position.epoch == read_at.epoch;
        if same_history && !matches!(reading, CatalogueReading::Lost) {
            return Ok(Some((position, reading)));
        }
    }
    read_with(line, CatalogueReader::default()).map(Some)
}

fn read_with(
    line: &Line,
    mut reader: CatalogueReader,
) -> Result<(Position, CatalogueReading), PrimaryError> {
    let unreadable = |error: &dyn std::fmt::Display| PrimaryError::Catalogue(error.to_string());
    let control = Control::until(std::time::Instant::now() + CATALOGUE_DEADLINE);
    let position = line
        .database()
        .read(&reader.statements(), &control, &mut reader)
        .map_err(|error| unreadable(&error))?;
    let read = reader.finish().map_err(|error| unreadable(&error))?;
    Ok((position, read))
}
