//! The open databases of a node: one [`Line`] each, opened on demand, dropped with their files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidemark_engine::{Database, OpenError, Options};
use tidemark_protocol::DatabaseId;
use tokio::sync::{Mutex, oneshot};

use crate::pipeline::{Line, PipelineContext};

/// Extension of the directory of a deleted database whose files are not removed yet.
const DELETED: &str = "deleted";
/// How often it is looked whether the last user of a database is gone.
const CLOSE_CHECK: Duration = Duration::from_millis(1);

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
    /// The thread that did it is gone.
    #[error("the node is shutting down")]
    Stopped,
}

/// The open databases of a node.
#[derive(Debug)]
pub(crate) struct Databases {
    root: PathBuf,
    options: Options,
    context: Arc<PipelineContext>,
    lines: RwLock<HashMap<DatabaseId, Arc<Line>>>,
    /// Those that were deleted since this process started.
    gone: RwLock<HashSet<DatabaseId>>,
    /// Held while one is being opened or dropped: nobody opens the same files twice.
    changing: Mutex<()>,
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
            lines: RwLock::default(),
            gone: RwLock::default(),
            changing: Mutex::default(),
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

    /// An open one.
    pub(crate) fn get(&self, database: DatabaseId) -> Option<Arc<Line>> {
        self.lines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&database)
            .cloned()
    }

    /// All open ones.
    pub(crate) fn all(&self) -> Vec<Arc<Line>> {
        self.lines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
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
        let _changing = self.changing.lock().await;
        if let Some(line) = self.get(database) {
            return Ok(line);
        }
        if self.is_gone(database) {
            return Err(DatabasesError::Gone { database });
        }
        let directory = self.directory(database);
        let options = self.options.clone();
        let context = Arc::clone(&self.context);
        let (done, opened) = oneshot::channel();
        // Opening reads and hashes every page: not on a thread that answers requests.
        self.context.environment.threads.run(Box::new(move || {
            let result = open(&directory, database, &options, context);
            // Whoever is gone wants no database.
            let _ = done.send(result);
        }));
        let line = opened.await.map_err(|_| DatabasesError::Stopped)??;
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.insert(database, Arc::clone(&line));
        Ok(line)
    }

    /// From now on nobody opens it any more.
    pub(crate) fn mark_gone(&self, database: DatabaseId) {
        let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
        gone.insert(database);
    }

    fn is_gone(&self, database: DatabaseId) -> bool {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        gone.contains(&database)
    }

    /// Removes a deleted database and its files. Reads and writes in progress end on the open files.
    pub(crate) async fn remove(&self, database: DatabaseId) -> Result<(), DatabasesError> {
        self.mark_gone(database);
        let _changing = self.changing.lock().await;
        let line = self
            .lines
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&database);
        if let Some(line) = line {
            line.deleted();
        }
        self.context.recent.forget(database);
        let directory = self.directory(database);
        // Out of the way at once: a crash in between must not leave half a database.
        let deleted = directory.with_extension(DELETED);
        match std::fs::rename(&directory, &deleted) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(io("move", &directory))?,
        }
        tokio::fs::remove_dir_all(&deleted)
            .await
            .map_err(io("remove", &deleted))
    }

    /// Lets go of all of them, and waits until their files are closed: until the last request that uses
    /// one has ended. False if that did not happen within `limit`.
    pub(crate) async fn close(&self, limit: Duration) -> bool {
        let _changing = self.changing.lock().await;
        let lines =
            std::mem::take(&mut *self.lines.write().unwrap_or_else(PoisonError::into_inner));
        let open: Vec<_> = lines
            .into_keys()
            .map(|database| self.directory(database))
            .collect();
        let closed = async {
            while open
                .iter()
                .any(|directory| tidemark_engine::is_open(directory))
            {
                tokio::time::sleep(CLOSE_CHECK).await;
            }
        };
        tokio::time::timeout(limit, closed).await.is_ok()
    }

    fn directory(&self, database: DatabaseId) -> PathBuf {
        self.root.join(database.to_string())
    }
}

fn open(
    directory: &Path,
    database: DatabaseId,
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
    Line::new(opened, directory.to_owned(), context).map_err(io("read", directory))
}

fn io<'a>(doing: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> DatabasesError + 'a {
    move |source| DatabasesError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
