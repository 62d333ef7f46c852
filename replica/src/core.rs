//! What the parts of a replica share: its databases, the catalogue in memory, the connection's outbox.
//!
//! Lock order: `outbox`, then `leaving`, then `roster`, then a copy's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tidemark_engine::on_thread;
use tidemark_protocol::catalogue::{Catalogue, CatalogueEntry, CatalogueReading};
use tidemark_protocol::render::ServedBy;
use tidemark_protocol::{DatabaseId, Region};
use tokio::time::Instant;

use crate::config::ReplicaConfig;
use crate::copy::{Copy, Item};
use crate::metrics::{HeartbeatAge, Metrics};
use crate::outbox::Outbox;
use crate::site::Site;
use crate::sources::Sources;
use crate::standing::Condition;
use crate::term_file::TermFile;

/// The copies that are held.
type Roster = HashMap<DatabaseId, Arc<Copy>>;

/// What the parts of a replica share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: ReplicaConfig,
    pub(crate) sources: Sources,
    pub(crate) served_by: ServedBy,
    pub(crate) site: Arc<Site>,
    pub(crate) terms: TermFile,
    pub(crate) heartbeat: Arc<HeartbeatAge>,
    /// The database that lists all others.
    pub(crate) catalogue_copy: Arc<Copy>,
    roster: RwLock<Roster>,
    /// Copies that were let go of, until their files are gone.
    leaving: Mutex<Vec<Arc<Copy>>>,
    catalogue: RwLock<Option<Arc<Catalogue>>>,
    /// Of the connection that is up.
    outbox: Mutex<Option<Arc<Outbox>>>,
    source_region: Mutex<Option<Region>>,
    /// Since when there is no connection, while there is none.
    alone_since: Mutex<Option<Instant>>,
}

impl Core {
    pub(crate) fn new(
        config: ReplicaConfig,
        sources: Sources,
        site: Arc<Site>,
        terms: TermFile,
        heartbeat: Arc<HeartbeatAge>,
    ) -> Self {
        let catalogue_copy = Copy::new(DatabaseId::CATALOGUE, Arc::clone(&site), None, Vec::new());
        let roster = HashMap::from([(DatabaseId::CATALOGUE, Arc::clone(&catalogue_copy))]);
        let served_by = ServedBy {
            region: config.region.to_string(),
            primary: false,
        };
        Self {
            config,
            served_by,
            sources,
            site,
            terms,
            heartbeat,
            catalogue_copy,
            roster: RwLock::new(roster),
            leaving: Mutex::default(),
            catalogue: RwLock::new(None),
            outbox: Mutex::new(None),
            source_region: Mutex::new(None),
            alone_since: Mutex::new(Some(Instant::now())),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.site.metrics
    }

    /// The copy of a database.
    pub(crate) fn copy(&self, database: DatabaseId) -> Option<Arc<Copy>> {
        self.roster
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&database)
            .cloned()
    }

    /// All copies.
    pub(crate) fn copies(&self) -> Vec<Arc<Copy>> {
        self.roster
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// The catalogue as of the newest state read from its copy.
    pub(crate) fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.catalogue
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a newer catalogue: holds what it lists and what may lie in this region, and nothing else. What is listed
    /// again while the files of its former copy are still in use begins anew when those are gone: both have one
    /// name. `false`: it was not to be had.
    pub(crate) fn adopt(&self, reading: CatalogueReading) -> bool {
        match reading {
            CatalogueReading::Whole(catalogue) => {
                self.hold(|roster, place| {
                    let others = roster.keys().copied();
                    let others = others.filter(|id| *id != DatabaseId::CATALOGUE);
                    for id in others.collect::<Vec<_>>() {
                        place(roster, id, catalogue.get(id));
                    }
                    for entry in catalogue.entries() {
                        place(roster, entry.uuid, Some(entry));
                    }
                });
                *self.catalogue_write() = Some(Arc::new(catalogue));
            }
            CatalogueReading::Changes(changes) => {
                self.hold(|roster, place| {
                    for (id, entry) in changes.databases() {
                        place(roster, id, entry);
                    }
                });
                match &mut *self.catalogue_write() {
                    Some(catalogue) => Arc::make_mut(catalogue).apply(&changes),
                    None => return false,
                }
            }
            CatalogueReading::Lost => return false,
        }
        true
    }

    /// Has `work` place databases: held here if they are listed so, let go of if not.
    fn hold(
        &self,
        work: impl FnOnce(&mut Roster, &mut dyn FnMut(&mut Roster, DatabaseId, Option<&CatalogueEntry>)),
    ) {
        let may_hold = |entry: &&CatalogueEntry| {
            let ReplicaConfig {
                regions, region, ..
            } = &self.config;
            entry.replicated && regions.allow(entry.jurisdiction.as_deref(), region)
        };
        let outbox = self.lock_outbox();
        let mut gone = Vec::new();
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|copy| !copy.stands_so(|standing| standing.condition == Condition::Closed));
        {
            let mut roster = self.roster.write().unwrap_or_else(PoisonError::into_inner);
            let mut place = |roster: &mut Roster, id, entry: Option<&CatalogueEntry>| {
                if entry.filter(may_hold).is_none() {
                    gone.extend(roster.remove(&id));
                    return;
                }
                roster.entry(id).or_insert_with(|| {
                    let former = leaving.iter().chain(&gone).filter(|copy| copy.id() == id);
                    let former = former.map(|copy| copy.standing()).collect();
                    Copy::new(id, Arc::clone(&self.site), outbox.as_ref(), former)
                });
            };
            work(&mut roster, &mut place);
            self.metrics()
                .databases
                .set(i64::try_from(roster.len()).unwrap_or(i64::MAX));
        }
        for copy in &gone {
            copy.feed(Item::Delete);
        }
        leaving.extend(gone);
    }

    fn catalogue_write(&self) -> RwLockWriteGuard<'_, Option<Arc<Catalogue>>> {
        self.catalogue
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is up.
    pub(crate) fn connected(&self, outbox: &Arc<Outbox>, region: Region) {
        *self
            .source_region
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(region);
        *self.lock_alone_since() = None;
        let mut current = self.lock_outbox();
        *current = Some(Arc::clone(outbox));
        // The catalogue first: what it brings is needed to answer anything at all.
        self.catalogue_copy
            .feed(Item::Connected(Arc::clone(outbox)));
        for copy in self.copies() {
            copy.feed(Item::Connected(Arc::clone(outbox)));
        }
    }

    /// It is down.
    pub(crate) fn disconnected(&self, outbox: &Outbox) {
        let mut current = self.lock_outbox();
        *current = None;
        self.lock_alone_since().get_or_insert_with(Instant::now);
        for copy in self.copies() {
            copy.feed(Item::Disconnected(outbox.number()));
        }
    }

    /// For how long there has been no connection.
    pub(crate) fn alone_for(&self) -> Duration {
        self.lock_alone_since()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Region of the node that this one follows, if it was ever reached.
    pub(crate) fn source_region(&self) -> Option<Region> {
        self.source_region
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs something that blocks on the threads for that. `None` if it panicked.
    pub(crate) async fn on_thread<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        on_thread(&*self.site.threads, job).await
    }

    fn lock_alone_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.alone_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_outbox(&self) -> MutexGuard<'_, Option<Arc<Outbox>>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
