//! A primary on a temporary directory, and short ways to speak to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use tidemark_engine::Threads;
use tidemark_net::TcpConnector;
use tidemark_primary::{Environment, Primary, PrimaryConfig, PrimaryError};
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::node::{Answer, CreateDatabase};
use tidemark_protocol::render::{RowShape, ValueForm};
use tidemark_protocol::{
    DatabaseId, Execute, Executed, Failure, Freshness, Incarnation, Node, NodeId, OnMiss,
    ReadContract, RequestId, Rules, Statement, Value,
};

struct TokioThreads(tokio::runtime::Handle);

impl Threads for TokioThreads {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(job);
    }
}

struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the handle itself")]
impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        u64::try_from(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_millis(),
        )
        .unwrap()
    }
}

/// Repeatable identifiers: tests need no unpredictable ones.
#[derive(Default)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn bytes16(&self) -> [u8; 16] {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        bytes[8..].copy_from_slice(&number.wrapping_mul(0xD1B5_4A32_D192_ED03).to_le_bytes());
        bytes
    }
}

/// Starts a primary on `directory` and waits until it serves.
pub(crate) async fn start(directory: &Path) -> Arc<Primary> {
    start_again(directory, 0).await
}

/// As [`start`], where one was before that drew other numbers. See [`start_with`].
pub(crate) async fn start_again(directory: &Path, random: u64) -> Arc<Primary> {
    let config = PrimaryConfig {
        cluster_secret: "secret".to_owned(),
        ..PrimaryConfig::new(
            directory.to_owned(),
            NodeId(1),
            Incarnation(1),
            "ENAM".parse().unwrap(),
            "http://127.0.0.1:1".to_owned(),
        )
    };
    let primary = start_with(config, random).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), primary.wait_until_serving())
        .await
        .unwrap();
    primary
}

/// Starts a primary on this runtime. `random` sets it apart from others, in what it draws.
pub(crate) async fn start_with(
    config: PrimaryConfig,
    random: u64,
) -> Result<Arc<Primary>, PrimaryError> {
    start_registered(config, random, &mut Registry::default()).await
}

/// The same, counting in `registry`.
pub(crate) async fn start_registered(
    config: PrimaryConfig,
    random: u64,
    registry: &mut Registry,
) -> Result<Arc<Primary>, PrimaryError> {
    let environment = Environment {
        threads: Arc::new(TokioThreads(tokio::runtime::Handle::current())),
        clock: Arc::new(SystemClock),
        random: Arc::new(Counting(AtomicU64::new(random << 32))),
        connector: Arc::new(TcpConnector),
        slow_disk: None,
    };
    Primary::start(config, environment, registry).await
}

/// Makes a database.
pub(crate) async fn create(primary: &Primary, name: &str) -> DatabaseId {
    let create = CreateDatabase {
        name: name.to_owned(),
        primary_location_hint: None,
        jurisdiction: None,
        replicated: true,
        request: None,
    };
    primary.create(create).await.unwrap().uuid
}

/// A request with defaults.
pub(crate) fn request(database: DatabaseId, sql: &str, params: &[Value]) -> Execute {
    Execute {
        database,
        statements: vec![Statement {
            sql: sql.to_owned(),
            params: params.to_vec(),
        }],
        request: None,
        read: ReadContract::Primary,
        freshness: Freshness::Any,
        deadline: Duration::from_secs(10),
        on_miss: OnMiss::Error,
        shape: RowShape::Arrays.into(),
        form: ValueForm::Exact,
        rules: Rules::Request,
    }
}

/// The same under a client's name for it.
pub(crate) fn named(number: u128, execute: Execute) -> Execute {
    Execute {
        request: Some(RequestId::from_bytes(number.to_be_bytes())),
        ..execute
    }
}

/// Runs it here.
pub(crate) async fn run(primary: &Primary, execute: Execute) -> Result<Answer, Failure> {
    match primary.execute(execute).await? {
        Executed::Answer(answer) => Ok(answer),
        Executed::Forward(_) => panic!("the only voter forwards to nobody"),
    }
}

/// The rows of the last statement of an answer.
pub(crate) fn rows(answer: &Answer) -> serde_json::Value {
    let results: serde_json::Value = serde_json::from_slice(&answer.results).unwrap();
    results.as_array().unwrap().last().unwrap()["results"]["rows"].clone()
}
