//! A replica: started, watched, stopped.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tidemark_engine::{IdleRule, on_thread, open_files};
use tidemark_protocol::DatabaseId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditAge, audit};
use crate::catalogue_reader::{keep_catalogue, read_catalogue_once};
use crate::config::{Environment, ReplicaConfig};
use crate::copy::Item;
use crate::core::Core;
use crate::export::EXPORTS_MAX;
use crate::follow::Follower;
use crate::metrics::{AtScrape, HeartbeatAge, Metrics};
use crate::site::Site;
use crate::soundings::Soundings;
use crate::sources::Sources;
use crate::standing::{Condition, Standing};
use crate::term_file::TermFile;
use crate::upstream::UpstreamError;

/// How often it is looked which databases are idle.
const LOOK: Duration = Duration::from_secs(1);
/// Time that databases get for closing when the node stops.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// A regional read replica. Implements [`tidemark_protocol::Node`].
#[derive(Debug)]
pub struct Replica {
    core: Arc<Core>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A replica could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration names no upstream that could be followed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The node's directory cannot be used.
    #[error("prepare {path}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A SQL thread died.
    #[error("preparing the node's directory panicked")]
    Panicked,
}

impl Replica {
    /// Opens what is on disk and begins to follow, with or without a source in reach. Returns once the
    /// catalogue was looked at: with a usable one the node is ready; all other databases open in the
    /// background, and reads of them wait.
    pub async fn start(
        config: ReplicaConfig,
        environment: Environment,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, StartError> {
        let sources = Sources::new(&config.upstreams, config.via.clone())?;
        let directory = config.directory.clone();
        let databases = directory.join("databases");
        let prepare = {
            let databases = databases.clone();
            move || {
                fs::create_dir_all(&databases)?;
                TermFile::open(directory)
            }
        };
        let terms = on_thread(&*environment.threads, prepare)
            .await
            .ok_or(StartError::Panicked)?
            .map_err(|source| StartError::Directory {
                path: config.directory.clone(),
                source,
            })?;

        let heartbeat = Arc::new(HeartbeatAge::new());
        let age = Arc::new(AuditAge::new());
        let site = Arc::new(Site {
            directory: databases,
            options: config.engine.clone(),
            threads: Arc::clone(&environment.threads),
            runtime: Handle::current(),
            metrics: Metrics::default(),
            soundings: Soundings::new(),
            queue_bytes: Arc::new(Semaphore::new(config.queue_bytes_max)),
            looks: AtomicU64::new(0),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            resyncs: Arc::new(Semaphore::new(config.resyncs_max)),
            failed: CancellationToken::new(),
        });
        site.metrics.register(registry);
        registry.register_collector(Box::new(AtScrape {
            heartbeat: Arc::clone(&heartbeat),
            audit: Arc::clone(&age),
            queue: Arc::clone(&site.queue_bytes),
            queue_bytes_max: config.queue_bytes_max,
        }));

        let core = Arc::new(Core::new(config, sources, site, terms, heartbeat));
        let mut standing = core.catalogue_copy.standing();
        let opened = standing
            .wait_for(|standing| standing.condition != Condition::Opening)
            .await;
        drop(opened);
        read_catalogue_once(&core).await;

        let replica = Arc::new(Self {
            core: Arc::clone(&core),
            stop: CancellationToken::new(),
            tasks: Mutex::default(),
        });
        let stop = replica.stop.clone();
        replica.spawn(keep_catalogue(Arc::clone(&core), stop.clone()));
        replica.spawn(close_idle(Arc::clone(&core), stop.clone()));
        replica.spawn(audit(Arc::clone(&core), age, stop.clone()));
        replica.spawn(Follower::new(core, environment).run(stop));
        Ok(replica)
    }

    /// Stops following and closes every database, cleanly if reads of it end in time.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await; // a panic was reported through `failed`
        }
        let until = Instant::now() + STOP_WAIT;
        let closing: Vec<_> = self
            .core
            .copies()
            .iter()
            .map(|copy| {
                let (done, closed) = oneshot::channel();
                copy.feed(Item::Close(done));
                closed
            })
            .collect();
        for closed in closing {
            if timeout_at(until, closed).await.is_err() {
                tracing::warn!("databases were still open when the node stopped");
                return;
            }
        }
    }

    /// Resolves when a part of the node has failed for good: the process must end.
    pub async fn failed(&self) {
        self.core.site.failed.cancelled().await;
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Runs a task whose end before [`Replica::stop`], by panic or not, is the node's failure.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let guard = self.core.site.failed.clone().drop_guard();
        let stop = self.stop.clone();
        let task = tokio::spawn(async move {
            task.await;
            if stop.is_cancelled() {
                guard.disarm();
            }
        });
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
    }
}

/// Lets databases close their files that nobody uses, or that are used least recently while too many are open. One
/// timer for all of them.
async fn close_idle(core: Arc<Core>, stop: CancellationToken) {
    let ReplicaConfig {
        idle_wait,
        open_max,
        engine,
        ..
    } = &core.config;
    let look = LOOK.min(*idle_wait);
    let rule = IdleRule {
        looks_max: u64::try_from(idle_wait.as_millis() / look.as_millis().max(1))
            .unwrap_or(u64::MAX),
        open_max: *open_max,
        files_max: engine.files_max,
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            () = stop.cancelled() => return,
        }
        let now = core.site.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let copies = core.copies().into_iter();
        let awake = copies.filter(|copy| {
            copy.id() != DatabaseId::CATALOGUE && copy.stands_so(Standing::readable)
        });
        let awake: Vec<_> = awake.map(|copy| (copy.used_at(), copy)).collect();
        for copy in rule.pick(now, awake, open_files()) {
            copy.feed(Item::Sleep);
        }
    }
}

/// A replica that is dropped and not stopped is a crash to its files: it only stops following.
impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
