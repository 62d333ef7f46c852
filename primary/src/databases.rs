//! The databases of a node: one [`Line`] each while it is open. Opened on demand, put to sleep when nobody
//! uses them, dropped with their files.

mod sleep;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidemark_engine::{
    Database, EngineError, OpenError, Options, Prepared, RebuildError, SMALL_BYTES_MAX, Threads,
    genesis_position, on_thread,
};
use tidemark_protocol::{DatabaseId, Position};
use tokio::sync::{Mutex, oneshot};

use self::slot::Slot;
pub(crate) use self::slot::{Asleep, HighestProposed};
use crate::pipeline::{Line, PipelineContext, adopt_fetched};

/// Extension of the directory of a deleted database whose files are not removed yet.
const DELETED: &str = "deleted";
/// Longest that a database to be replaced waits for its readers, who have deadlines of their own.
const READERS_WAIT: Duration = Duration::from_secs(120);
/// Longest that the log waits for a database that is being replaced.
const REPLACED_WAIT: Duration = Duration::from_secs(180);
/// How often it is looked whether the last user of a database is gone.
const CLOSE_CHECK: Duration = Duration::from_millis(1);
/// Locks under which files are opened and closed. Databases that share one wait for each other.
const CHANGING: usize = 64;

/// A database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabasesError {
    /// The engine refused.
    #[error("cannot open database {database}")]
    Open {
        /// Which.
        database: DatabaseId,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// A file operation failed.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// It was deleted. Its UUID is never used again.
    #[error("database {database} was deleted")]
    Gone {
        /// Which.
        database: DatabaseId,
    },
    /// A peer's copy is taking the place of the one here.
    #[error("database {database} is being replaced by a peer's copy")]
    Replacing {
        /// Which.
        database: DatabaseId,
    },
    /// The files of the old copy are still being read.
    #[error("database {database} is still read after {waited:?}")]
    StillRead {
        /// Which.
        database: DatabaseId,
        /// How long that was waited for.
        waited: Duration,
    },
    /// More was committed here than the peer's copy has.
    #[error("database {database} went on while a peer's copy came in")]
    WentOn {
        /// Which.
        database: DatabaseId,
    },
    /// The new files could not be put in place.
    #[error("cannot replace database {database}")]
    Replace {
        /// Which.
        database: DatabaseId,
        /// Why.
        #[source]
        source: RebuildError,
    },
    /// An open database failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The thread that did it is gone.
    #[error("the node is shutting down")]
    Stopped,
}

/// Looked up by every request. Ids are ours: nobody can choose them to collide. And the order is the same in every run of a
/// simulation.
type Slots = HashMap<DatabaseId, Slot, foldhash::fast::FixedState>;

/// The databases of a node.
#[derive(Debug)]
pub(crate) struct Databases {
    root: PathBuf,
    options: Options,
    context: Arc<PipelineContext>,
    slots: RwLock<Slots>,
    /// Looks at which databases are idle, counted: the time that lines note their uses by.
    looks: AtomicU64,
    /// Those that were deleted since this process started.
    gone: RwLock<HashSet<DatabaseId>>,
    /// Those whose files are being replaced.
    replacing: RwLock<HashSet<DatabaseId>>,
    /// Those whose new files are made or put in place.
    arriving: std::sync::Mutex<HashSet<DatabaseId>>,
    /// Those of peers' states that were taken over, for the catalogue to look through.
    taken_over: std::sync::Mutex<HashSet<DatabaseId>>,
    /// Held while one is being opened, closed or dropped: nobody opens the same files twice.
    changing: [Mutex<()>; CHANGING],
    /// Nothing is opened any more.
    closed: AtomicBool,
}

/// A peer's copy of a database on its way. Whoever writes any of its files owns this until it ends: what
/// was broken off may still run when the next try begins, and two of them would share their files.
#[derive(Debug)]
pub(crate) struct Arrival {
    databases: Arc<Databases>,
    database: DatabaseId,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.databases.arriving().remove(&self.database);
    }
}

impl Databases {
    /// Those below `root`, which is made if need be. What a deletion left behind is removed.
    pub(crate) fn new(
        root: PathBuf,
        options: Options,
        context: Arc<PipelineContext>,
    ) -> Result<Arc<Self>, DatabasesError> {
        std::fs::create_dir_all(&root).map_err(io("create", &root))?;
        for entry in std::fs::read_dir(&root).map_err(io("list", &root))? {
            let path = entry.map_err(io("list", &root))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == DELETED)
            {
                std::fs::remove_dir_all(&path).map_err(io("remove", &path))?;
            }
        }
        Ok(Arc::new(Self {
            root,
            options,
            context,
            slots: RwLock::default(),
            looks: AtomicU64::new(0),
            gone: RwLock::default(),
            replacing: RwLock::default(),
            arriving: std::sync::Mutex::default(),
            taken_over: std::sync::Mutex::default(),
            changing: std::array::from_fn(|_| Mutex::default()),
            closed: AtomicBool::new(false),
        }))
    }

    /// The databases that have files here.
    pub(crate) fn on_disk(&self) -> Result<Vec<DatabaseId>, DatabasesError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(io("list", &self.root))? {
            let entry = entry.map_err(io("list", &self.root))?;
            if let Some(Ok(id)) = entry.file_name().to_str().map(str::parse) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Takes note of those that have files here. `durable` says where they were when the log that is left
    /// began. Large ones are opened at once, for that takes time; small ones when they are needed.
    pub(crate) async fn recover(
        self: &Arc<Self>,
        durable: &HashMap<DatabaseId, Position>,
    ) -> Result<(), DatabasesError> {
        for database in self.on_disk()? {
            let at = durable.get(&database).copied();
            self.note(database, at.unwrap_or_else(genesis_position));
            let main = self.directory(database).join("main.db");
            let large = std::fs::metadata(main).is_ok_and(|file| file.len() > SMALL_BYTES_MAX);
            if large {
                self.open(database).await?;
            }
        }
        Ok(())
    }

    /// A listed database is here from now on, if it was not before. It gets files when they are needed.
    pub(crate) fn list(&self, database: DatabaseId) {
        if !self.has(database) && !self.is_gone(database) && !self.is_replacing(database) {
            self.note(database, genesis_position());
        }
    }

    fn note(&self, database: DatabaseId, durable: Position) {
        let mut slots = self.slots_write();
        slots.entry(database).or_insert_with(|| {
            self.context.recent.begin(database, durable);
            Slot::Asleep(Asleep {
                durable,
                proposed: HighestProposed::default(),
            })
        });
    }

    /// Whether it is here, open or asleep.
    pub(crate) fn has(&self, database: DatabaseId) -> bool {
        self.slots().contains_key(&database)
    }

    /// An open one, which is being used by that.
    pub(crate) fn get(&self, database: DatabaseId) -> Option<Arc<Line>> {
        let line = self.peek(database)?;
        line.note_use(self.looks.load(Ordering::Relaxed));
        Some(line)
    }

    /// As [`Databases::get`], without counting as a use.
    fn peek(&self, database: DatabaseId) -> Option<Arc<Line>> {
        match self.slots().get(&database)? {
            Slot::Open(line) => Some(Arc::clone(line)),
            Slot::Asleep(_) => None,
        }
    }

    /// One that is here, opened if it sleeps. `None`: it is not here, or cannot be opened at the moment.
    pub(crate) async fn wake(self: &Arc<Self>, database: DatabaseId) -> Option<Arc<Line>> {
        if !self.has(database) {
            return None;
        }
        let opened = self.open(database).await;
        opened
            .inspect_err(|error| tracing::warn!(%database, %error, "a database does not open"))
            .ok()
    }

    /// All open ones.
    pub(crate) fn all(&self) -> Vec<Arc<Line>> {
        self.all_and_asleep().0
    }

    /// All open ones, and where those are that sleep: at one moment.
    pub(crate) fn all_and_asleep(&self) -> (Vec<Arc<Line>>, HashMap<DatabaseId, Position>) {
        let slots = self.slots();
        let mut lines = Vec::new();
        let mut asleep = HashMap::new();
        for (database, slot) in &*slots {
            match slot {
                Slot::Open(line) => lines.push(Arc::clone(line)),
                Slot::Asleep(slot) => drop(asleep.insert(*database, slot.durable)),
            }
        }
        (lines, asleep)
    }

    /// Uses are noted as of another look from now on.
    fn begin_look(&self) -> u64 {
        self.looks.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn changing(&self, database: DatabaseId) -> &Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(database);
        let at = usize::try_from(hash % CHANGING as u64).expect("below CHANGING");
        &self.changing[at]
    }

    /// Opens one, or makes it if it has no files yet. Goes on to its end even if the caller does not.
    pub(crate) async fn open(
        self: &Arc<Self>,
        database: DatabaseId,
    ) -> Result<Arc<Line>, DatabasesError> {
        if let Some(line) = self.get(database) {
            return Ok(line);
        }
        let opening = tokio::spawn(Arc::clone(self).open_here(database));
        opening.await.map_err(|_| DatabasesError::Stopped)?
    }

    async fn open_here(self: Arc<Self>, database: DatabaseId) -> Result<Arc<Line>, DatabasesError> {
        let _changing = self.changing(database).lock().await;
        if let Some(line) = self.get(database) {
            return Ok(line);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(DatabasesError::Stopped);
        }
        if self.is_gone(database) {
            return Err(DatabasesError::Gone { database });
        }
        if self.is_replacing(database) {
            return Err(DatabasesError::Replacing { database });
        }
        let asleep = self.asleep(database);
        let (durable, proposed) = asleep.map_or_else(Default::default, |asleep| {
            (Some(asleep.durable), asleep.proposed)
        });
        let line = self.open_files(database, proposed).await?;
        let found = line.database().position();
        if let (Some(found), Some(durable)) = (found, durable)
            && !found.reached(&durable)
        {
            // A state of before, put in the place of what was here: what follows it is in no log any more.
            tracing::error!(%database, %found, %durable, "the files of a closed database changed");
            line.mark_damaged();
        }
        let opened = Slot::Open(Arc::clone(&line));
        self.slots_write().insert(database, opened);
        Ok(line)
    }

    /// As [`Databases::open`], once it is not being replaced any more: for the log, which cannot go on
    /// without it.
    pub(crate) async fn open_replaced(
        self: &Arc<Self>,
        database: DatabaseId,
    ) -> Result<Arc<Line>, DatabasesError> {
        let opened = async {
            loop {
                match self.open(database).await {
                    Err(DatabasesError::Replacing { .. }) => tokio::time::sleep(CLOSE_CHECK).await,
                    opened => return opened,
                }
            }
        };
        let opened = tokio::time::timeout(REPLACED_WAIT, opened).await;
        opened.unwrap_or(Err(DatabasesError::Replacing { database }))
    }

    /// Opens the files, for the caller to put to work. `changing` is held, or it is being replaced.
    async fn open_files(
        &self,
        database: DatabaseId,
        proposed: HighestProposed,
    ) -> Result<Arc<Line>, DatabasesError> {
        let directory = self.directory(database);
        let options = self.options.clone();
        let context = Arc::clone(&self.context);
        let (done, opened) = oneshot::channel();
        // Opening reads and hashes every page: not on a thread that answers requests.
        self.context.environment.threads.run(Box::new(move || {
            let result = open(&directory, database, proposed, &options, context);
            // Whoever is gone wants no database.
            let _ = done.send(result);
        }));
        let line = opened.await.map_err(|_| DatabasesError::Stopped)??;
        line.note_use(self.looks.load(Ordering::Relaxed));
        Ok(line)
    }

    fn asleep(&self, database: DatabaseId) -> Option<Asleep> {
        match self.slots().get(&database)? {
            Slot::Asleep(asleep) => Some(asleep.clone()),
            Slot::Open(_) => None,
        }
    }

    /// From now on nobody opens it any more.
    pub(crate) fn mark_gone(&self, database: DatabaseId) {
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        gone.insert(database);
    }

    /// Whether it was deleted, as far as this process knows.
    pub(crate) fn is_gone(&self, database: DatabaseId) -> bool {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        gone.contains(&database)
    }

    /// Reserves a database for a peer's copy: for making its files and for [`Databases::replace`].
    pub(crate) fn expect(
        self: &Arc<Self>,
        database: DatabaseId,
    ) -> Result<Arrival, DatabasesError> {
        if !self.arriving().insert(database) {
            return Err(DatabasesError::Replacing { database });
        }
        Ok(Arrival {
            databases: Arc::clone(self),
            database,
        })
    }

    fn arriving(&self) -> std::sync::MutexGuard<'_, HashSet<DatabaseId>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a peer's copy in place of the files of a database, or where there were none, and opens it.
    /// Reads in progress end on the old files first. Goes on to its end even if the caller does not.
    pub(crate) async fn replace(
        self: &Arc<Self>,
        arrival: Arrival,
        copy: Prepared,
    ) -> Result<(), DatabasesError> {
        let replacing = tokio::spawn(Arc::clone(self).replace_here(arrival, copy));
        replacing.await.map_err(|_| DatabasesError::Stopped)?
    }

    async fn replace_here(
        self: Arc<Self>,
        arrival: Arrival,
        copy: Prepared,
    ) -> Result<(), DatabasesError> {
        let database = arrival.database;
        let old = {
            let _changing = self.changing(database).lock().await;
            if self.is_gone(database) {
                return Err(DatabasesError::Gone { database });
            }
            self.replacing_write().insert(database);
            self.slots_write().remove(&database)
        };
        let replaced = self.replace_closed(database, old, copy).await;
        let _changing = self.changing(database).lock().await;
        self.replacing_write().remove(&database);
        if self.is_gone(database) {
            // Whoever deleted it found no line, and perhaps not these files.
            if let Ok((line, _)) = replaced {
                line.deleted();
            }
            self.remove_files(database).await?;
            return Err(DatabasesError::Gone { database });
        }
        let (line, content) = replaced?;
        self.slots_write().insert(database, Slot::Open(line));
        match content {
            Content::New => Ok(()),
            Content::Old => Err(DatabasesError::WentOn { database }),
        }
    }

    /// The line on what is there in the end, for the caller to put to work.
    async fn replace_closed(
        &self,
        database: DatabaseId,
        old: Option<Slot>,
        copy: Prepared,
    ) -> Result<(Arc<Line>, Content), DatabasesError> {
        let directory = self.directory(database);
        let (newest, proposed) = match old {
            Some(Slot::Open(old)) => {
                old.retire().await;
                (old.newest(), old.proposed().clone())
            }
            Some(Slot::Asleep(old)) => (Some(old.durable), old.proposed),
            None => (None, HighestProposed::default()),
        };
        let went_on = newest.is_some_and(|newest| !copy.position().reached(&newest));
        if !self
            .are_closed(std::slice::from_ref(&directory), READERS_WAIT)
            .await
        {
            let waited = READERS_WAIT;
            // What is committed from now on has no place to go to.
            self.context.give_up(format!(
                "database {database} is still read after {waited:?}"
            ));
            return Err(DatabasesError::StillRead { database, waited });
        }
        if went_on {
            // Nothing may be lost of that: the old copy again.
            let line = self.open_files(database, proposed).await?;
            return Ok((line, Content::Old));
        }
        let (done, installed) = oneshot::channel();
        self.threads().run(Box::new(move || {
            // Whoever is gone wants no outcome.
            let _ = done.send(put_in_place(&directory, database, copy));
        }));
        installed.await.map_err(|_| DatabasesError::Stopped)??;
        let line = self.open_files(database, proposed).await?;
        Ok((line, Content::New))
    }

    /// Whether a peer's copy is taking the place of the one here.
    pub(crate) fn is_replacing(&self, database: DatabaseId) -> bool {
        let replacing = self
            .replacing
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        replacing.contains(&database)
    }

    fn slots(&self) -> std::sync::RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_write(&self) -> std::sync::RwLockWriteGuard<'_, Slots> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn replacing_write(&self) -> std::sync::RwLockWriteGuard<'_, HashSet<DatabaseId>> {
        self.replacing
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// These were taken over from a peer, some of them perhaps deleted a moment later: the catalogue, which
    /// came with them, says so, and is to be read again.
    pub(crate) fn note_taken_over(&self, databases: HashSet<DatabaseId>) {
        self.put_back_taken_over(databases);
        self.context.catalogue_changed.notify_one();
    }

    /// As [`Databases::note_taken_over`], for who took it and could not read the catalogue.
    pub(crate) fn put_back_taken_over(&self, databases: HashSet<DatabaseId>) {
        self.taken_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(databases);
    }

    /// Takes what was noted. Only a catalogue that is read later says anything about it.
    pub(crate) fn take_taken_over(&self) -> HashSet<DatabaseId> {
        std::mem::take(
            &mut *self
                .taken_over
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// The threads that run SQL.
    pub(crate) fn threads(&self) -> &Arc<dyn Threads> {
        &self.context.environment.threads
    }

    /// Removes a deleted database and its files. Reads and writes in progress end on the open files.
    pub(crate) async fn remove(&self, database: DatabaseId) -> Result<(), DatabasesError> {
        self.mark_gone(database);
        let _changing = self.changing(database).lock().await;
        let slot = self.slots_write().remove(&database);
        if let Some(Slot::Open(line)) = slot {
            line.deleted();
        }
        self.context.recent.forget(database);
        self.remove_files(database).await
    }

    /// `changing` is held.
    async fn remove_files(&self, database: DatabaseId) -> Result<(), DatabasesError> {
        let directory = self.directory(database);
        // Out of the way at once: a crash in between must not leave half a database.
        let deleted = directory.with_extension(DELETED);
        match std::fs::rename(&directory, &deleted) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(io("move", &directory))?,
        }
        let path = deleted.clone();
        let removed = on_thread(&**self.threads(), move || std::fs::remove_dir_all(path)).await;
        let removed = removed.ok_or(DatabasesError::Stopped)?;
        removed.map_err(io("remove", &deleted))
    }

    /// Lets go of all of them, and waits until their files are closed: until the last request that uses
    /// one has ended. False if that did not happen within `limit`.
    pub(crate) async fn close(&self, limit: Duration) -> bool {
        self.closed.store(true, Ordering::Release);
        for changing in &self.changing {
            // What is being opened or closed comes to its end.
            drop(changing.lock().await);
        }
        let slots = std::mem::take(&mut *self.slots_write());
        let open = slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Open(_)));
        let open: Vec<_> = open
            .map(|(database, _)| self.directory(*database))
            .collect();
        drop(slots);
        self.are_closed(&open, limit).await
    }

    /// Waits until nobody holds these files open. False if that did not happen within `limit`.
    async fn are_closed(&self, directories: &[PathBuf], limit: Duration) -> bool {
        let closed = async {
            while directories
                .iter()
                .any(|directory| tidemark_engine::is_open(directory))
            {
                tokio::time::sleep(CLOSE_CHECK).await;
            }
        };
        tokio::time::timeout(limit, closed).await.is_ok()
    }

    /// Where a database's files are.
    pub(crate) fn directory(&self, database: DatabaseId) -> PathBuf {
        self.root.join(database.to_string())
    }
}

/// Which content a replacement ended with.
#[derive(Debug)]
enum Content {
    /// The peer's copy.
    New,
    /// What was there, because it went on meanwhile.
    Old,
}

fn open(
    directory: &Path,
    database: DatabaseId,
    proposed: HighestProposed,
    options: &Options,
    context: Arc<PipelineContext>,
) -> Result<Arc<Line>, DatabasesError> {
    let opened = Database::open(directory, database, options)
        .map_err(|source| DatabasesError::Open { database, source })?;
    match opened.database.position() {
        Some(position) => tracing::debug!(%database, %position, "database opened"),
        None => tracing::warn!(
            %database,
            durable = %opened.owner.durable(),
            "database opened with content at no known position; the log must bring it to one"
        ),
    }
    Line::new(opened, directory.to_owned(), proposed, context).map_err(io("read", directory))
}

/// The order matters, see [`crate::install`].
fn put_in_place(
    directory: &Path,
    database: DatabaseId,
    copy: Prepared,
) -> Result<(), DatabasesError> {
    fail::fail_point!("primary::before_adopt");
    adopt_fetched(directory).map_err(io("renew the table of requests in", directory))?;
    fail::fail_point!("primary::before_install");
    copy.install()
        .map_err(|source| DatabasesError::Replace { database, source })
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> DatabasesError + 'a {
    move |source| DatabasesError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
