//! A source, a replica that follows it, and what a test asks of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tidemark_engine::Threads;
use tidemark_net::TcpConnector;
use tidemark_protocol::env::Random;
use tidemark_protocol::node::{Answer, Node};
use tidemark_protocol::render::{RowShape, ValueForm};
use tidemark_protocol::{
    Bookmark, DatabaseId, Execute, Executed, Failure, Freshness, NodeId, OnMiss, Position,
    ReadContract, Rules, Statement,
};
use tidemark_replica::{Environment, Replica, ReplicaConfig};

use crate::source::{SECRET, Source};

/// Long enough for a slow machine; nothing that works takes as long.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The database most tests use.
pub const DB: DatabaseId = DatabaseId::from_bytes([0xd1; 16]);

pub struct World {
    pub source: Source,
    pub replica: Option<Arc<Replica>>,
    pub registry: Registry,
    pub directory: PathBuf,
    /// Short: databases close and open all the time.
    pub idle_wait: Duration,
    /// Where the replica looks for its source. Empty: at the source alone.
    pub upstreams: Vec<String>,
    temporary: Vec<tempfile::TempDir>,
}

struct SpawnedThreads;

impl Threads for SpawnedThreads {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        std::thread::spawn(job);
    }
}

struct Counter(AtomicU64);

impl Random for Counter {
    fn bytes16(&self) -> [u8; 16] {
        let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        (u128::from(next) * 0x2545_f491_4f6c_dd1d).to_le_bytes()
    }
}

impl World {
    /// A source with one database `db` of one table `t(id, v)`, and a replica that follows it.
    pub async fn new() -> Self {
        let mut world = Self::without_replica().await;
        world.start().await;
        world.caught_up(DB).await;
        world
    }

    pub async fn without_replica() -> Self {
        let mut source = Source::new();
        source.create(DB, "db");
        source.write(DB, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)", vec![]);
        source.serve().await;
        let temporary = tempfile::tempdir().unwrap();
        Self {
            source,
            replica: None,
            registry: Registry::default(),
            directory: temporary.path().join("data"),
            idle_wait: Duration::from_millis(40),
            upstreams: Vec::new(),
            temporary: vec![temporary],
        }
    }

    pub async fn start(&mut self) {
        let mut config = ReplicaConfig::new(
            self.directory.clone(),
            NodeId(9),
            "OC".parse().unwrap(),
            self.source.url(),
        );
        if !self.upstreams.is_empty() {
            config.upstreams = self.upstreams.clone();
        }
        config.cluster_secret = SECRET.to_owned();
        config.backoff_max = Duration::from_millis(200);
        // Smaller than some transactions: back-pressure is at work in every test.
        config.queue_bytes_max = 256 << 10;
        config.idle_wait = self.idle_wait;
        config.silence_slack = Duration::from_millis(1500);
        let environment = Environment {
            threads: Arc::new(SpawnedThreads),
            random: Arc::new(Counter(AtomicU64::new(1))),
            connector: Arc::new(TcpConnector),
        };
        self.registry = Registry::default();
        let replica = Replica::start(config, environment, &mut self.registry)
            .await
            .unwrap();
        self.replica = Some(replica);
    }

    /// Keeps a directory for as long as this.
    pub fn keep(&mut self, directory: tempfile::TempDir) {
        self.temporary.push(directory);
    }

    pub async fn stop(&mut self) {
        self.replica.take().expect("a running replica").stop().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub fn node(&self) -> &Replica {
        self.replica.as_ref().expect("a running replica")
    }

    pub fn files_of(&self, id: DatabaseId) -> PathBuf {
        self.directory.join("databases").join(id.to_string())
    }

    /// Where the replica says a database stands, and whether it is damaged.
    pub async fn status(&self, id: DatabaseId) -> Option<(Position, Option<String>)> {
        let status = self.node().status().await;
        let found = status
            .databases
            .into_iter()
            .find(|database| database.uuid == id);
        found.map(|database| (database.position, database.damaged))
    }

    /// Waits until the replica shows the source's newest state of a database.
    pub async fn caught_up(&self, id: DatabaseId) {
        let wanted = self.source.position(id);
        self.eventually("caught up", async || {
            self.status(id)
                .await
                .is_some_and(|(position, damaged)| position == wanted && damaged.is_none())
        })
        .await;
    }

    /// Waits until `condition` holds.
    pub async fn eventually(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while !condition().await {
            assert!(
                started.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}"
            );
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Whether this process has the files of a database closed.
    pub fn files_are_closed(&self, id: DatabaseId) -> bool {
        let main = self.files_of(id).join("main.db").canonicalize().unwrap();
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        !open
            .flatten()
            .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == main))
    }

    /// A metric with this start of a line, zero if there is none.
    pub fn metric(&self, start: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(start));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    pub async fn execute(&self, request: Execute) -> Result<Executed, Failure> {
        self.node().execute(request).await
    }

    /// Runs a request that must be answered here.
    pub async fn answer(&self, request: Execute) -> Answer {
        match self.execute(request.clone()).await {
            Ok(Executed::Answer(answer)) => answer,
            other => panic!("{request:?} gave {other:?}"),
        }
    }

    /// The first column of the first row of a request that must be answered here.
    pub async fn value(&self, request: Execute) -> serde_json::Value {
        first_value(&self.answer(request).await)
    }
}

pub fn first_value(answer: &Answer) -> serde_json::Value {
    let results: serde_json::Value = serde_json::from_slice(&answer.results).unwrap();
    results[0]["results"]["rows"][0][0].clone()
}

/// A request to [`DB`].
pub fn request(sql: &str, read: ReadContract) -> Execute {
    Execute {
        database: DB,
        statements: vec![Statement {
            sql: sql.to_owned(),
            params: vec![],
        }],
        request: None,
        read,
        freshness: Freshness::Any,
        deadline: Duration::from_secs(10),
        on_miss: OnMiss::Forward,
        shape: RowShape::Arrays.into(),
        form: ValueForm::Exact,
        rules: Rules::Request,
    }
}

pub fn unconstrained(sql: &str) -> Execute {
    request(sql, ReadContract::FirstUnconstrained)
}

pub fn at_least(sql: &str, bookmark: Bookmark) -> Execute {
    request(sql, ReadContract::Bookmark(bookmark))
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
