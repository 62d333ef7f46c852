//! What may be deleted while a peer's state is taken over, and what must not be.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use prometheus_client::registry::Registry;
use tidemark_engine::{Options, Prepared, Rebuild, Threads};
use tidemark_net::TcpConnector;
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::render::ServedBy;
use tidemark_protocol::{DatabaseId, Incarnation, NodeId, PAGE_SIZE, PageNo, Position, Seq};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::Installer;
use super::serve::DELETED;
use crate::cell::Environment;
use crate::chain::Chain;
use crate::config::PrimaryConfig;
use crate::consensus::LogIndex;
use crate::databases::{Databases, DatabasesError};
use crate::metrics::Metrics;
use crate::pipeline::{PipelineContext, Room, keep_fetched};
use crate::ship::Followers;
use crate::ship::recent::Recent;

const DATABASE: DatabaseId = DatabaseId::from_bytes([7; 16]);
const OTHER: DatabaseId = DatabaseId::from_bytes([8; 16]);
/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);
const NOWHERE: &str = "http://127.0.0.1:1";

/// Threads that run so many jobs and keep the others.
struct Gate {
    runtime: Handle,
    state: Mutex<GateState>,
}

struct GateState {
    allowed: usize,
    kept: Vec<Box<dyn FnOnce() + Send>>,
}

impl Gate {
    fn allow(&self, jobs: usize) {
        self.state.lock().unwrap().allowed = jobs;
    }

    fn open(&self) {
        let kept = {
            let mut state = self.state.lock().unwrap();
            state.allowed = usize::MAX;
            std::mem::take(&mut state.kept)
        };
        for job in kept {
            self.runtime.spawn_blocking(job);
        }
    }

    async fn keeps_one(&self) {
        let kept = async {
            while self.state.lock().unwrap().kept.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, kept).await.unwrap();
    }
}

impl Threads for Gate {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        let mut state = self.state.lock().unwrap();
        match state.allowed.checked_sub(1) {
            Some(allowed) => {
                state.allowed = allowed;
                self.runtime.spawn_blocking(job);
            }
            None => state.kept.push(job),
        }
    }
}

/// Time stands still, and all who draw lots draw the same.
struct Fixed;

impl Clock for Fixed {
    fn unix_ms(&self) -> u64 {
        1_000_000
    }
}

impl Random for Fixed {
    fn bytes16(&self) -> [u8; 16] {
        [1; 16]
    }
}

/// The databases of a voter, without the voter.
struct Receiver {
    databases: Arc<Databases>,
    installer: Installer,
    gate: Arc<Gate>,
}

impl Receiver {
    fn new(directory: &Path) -> Self {
        let gate = Arc::new(Gate {
            runtime: Handle::current(),
            state: Mutex::new(GateState {
                allowed: usize::MAX,
                kept: Vec::new(),
            }),
        });
        let config = PrimaryConfig::new(
            directory.to_owned(),
            NodeId(1),
            Incarnation(1),
            "ENAM".parse().unwrap(),
            NOWHERE.to_owned(),
        );
        let context = Arc::new(PipelineContext {
            consensus: OnceLock::new(),
            catalogue_changed: Notify::new(),
            fatal: watch::Sender::new(None),
            recent: Arc::new(Recent::new(1 << 20)),
            environment: Environment {
                threads: Arc::clone(&gate) as Arc<dyn Threads>,
                clock: Arc::new(Fixed),
                random: Arc::new(Fixed),
                connector: Arc::new(TcpConnector),
                slow_disk: None,
            },
            served_by: ServedBy {
                region: config.region.to_string(),
                primary: true,
            },
            answer: config.answer,
            writes_in_flight_max: config.writes_in_flight_max,
            room: Room::new(config.committed_bytes_max),
            readers_max: config.engine.readers_max,
            metrics: Arc::new(Metrics::new(&mut Registry::default())),
        });
        let root = directory.join("databases");
        let databases = Databases::new(root, Options::default(), Arc::clone(&context)).unwrap();
        let followers = Arc::new(Followers::default());
        let installer =
            Installer::new(Arc::clone(&databases), followers, &config, context).unwrap();
        Self {
            databases,
            installer,
            gate,
        }
    }

    /// A copy of `database`, ready beside its files, as a peer would have it after `seq` transactions.
    async fn copy(&self, database: DatabaseId, seq: u64) -> Prepared {
        let empty = self.databases.open(OTHER).await.unwrap();
        let table = empty.requests().await.unwrap();
        let position = at(seq, empty.database().position().unwrap());
        let mut snapshot = empty.database().snapshot().unwrap();
        let page_count = u32::try_from(snapshot.hashes().unwrap().len()).unwrap();
        let directory = self.databases.directory(database);
        let mut rebuild = Rebuild::begin(&directory, database, position, page_count).unwrap();
        let mut bytes = [0; PAGE_SIZE];
        for page in (1..=page_count).map(PageNo) {
            snapshot.page(page, &mut bytes).unwrap();
            rebuild.write(page, &bytes).unwrap();
        }
        assert!(keep_fetched(&directory, &table).unwrap());
        rebuild.prepare().unwrap()
    }

    /// Has the copy of an earlier try.
    async fn hold(&self, database: DatabaseId, seq: u64) -> Position {
        let copy = self.copy(database, seq).await;
        let position = copy.position();
        let arrival = self.databases.expect(database).unwrap();
        self.databases.replace(arrival, copy).await.unwrap();
        position
    }
}

fn at(seq: u64, like: Position) -> Position {
    Position {
        seq: Seq(seq),
        ..like
    }
}

fn chain(index: u64, positions: &[(DatabaseId, Position)]) -> Chain {
    Chain {
        index: Some(LogIndex(index)),
        positions: positions.iter().copied().collect::<HashMap<_, _>>(),
    }
}

/// A server that gives everybody this answer.
async fn peer(status: StatusCode, named: Option<DatabaseId>) -> String {
    let answer = move || async move {
        let mut response = status.into_response();
        if let Some(database) = named {
            let value = database.to_string().parse().unwrap();
            response.headers_mut().insert(DELETED, value);
        }
        response
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn database_of_a_broken_off_try_outlives_an_older_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(directory.path());
    receiver.hold(DATABASE, 3).await;
    let (older, before) = (chain(800, &[]), chain(500, &[]));
    let taken = receiver.installer.take_over(&older, &before, NOWHERE);
    taken.await.unwrap();
    assert!(receiver.databases.get(DATABASE).is_some());
    assert!(!receiver.databases.is_gone(DATABASE));
    assert!(
        receiver.databases.take_taken_over().is_empty(),
        "an older catalogue lists nothing of it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn database_that_only_the_chain_so_far_has_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(directory.path());
    let position = receiver.hold(DATABASE, 3).await;
    let (newer, before) = (chain(800, &[]), chain(500, &[(DATABASE, position)]));
    let taken = receiver.installer.take_over(&newer, &before, NOWHERE);
    taken.await.unwrap();
    assert!(receiver.databases.get(DATABASE).is_none());
    assert!(receiver.databases.is_gone(DATABASE));
    assert!(!receiver.databases.directory(DATABASE).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_peer_that_names_the_database_says_that_it_was_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(directory.path());
    for database in [DATABASE, DatabaseId::CATALOGUE] {
        let held = receiver.hold(database, 3).await;
        let newer = chain(800, &[(database, at(9, held))]);
        let take_over = async |status, named| {
            let url = peer(status, named).await;
            let before = chain(500, &[]);
            receiver.installer.take_over(&newer, &before, &url).await
        };
        for (status, named) in [
            (StatusCode::NOT_FOUND, None),
            (StatusCode::NOT_FOUND, Some(database)),
            (StatusCode::GONE, None),
            (StatusCode::GONE, Some(OTHER)),
        ] {
            assert!(
                take_over(status, named).await.is_err(),
                "{status} {named:?}"
            );
            assert!(receiver.databases.get(database).is_some());
        }
        let taken = take_over(StatusCode::GONE, Some(database)).await;
        let is_catalogue = database == DatabaseId::CATALOGUE;
        assert_eq!(taken.is_ok(), !is_catalogue);
        assert_eq!(receiver.databases.get(database).is_some(), is_catalogue);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_deleted_while_it_is_replaced_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(directory.path());
    let (databases, gate) = (&receiver.databases, &receiver.gate);
    let copy = receiver.copy(DATABASE, 3).await;
    let arrival = databases.expect(DATABASE).unwrap();
    // The new files are put in place, and not opened yet.
    gate.allow(1);
    let replacing = tokio::spawn({
        let databases = Arc::clone(databases);
        async move { databases.replace(arrival, copy).await }
    });
    gate.keeps_one().await;
    // The removal of the files, which overtakes the opening.
    gate.allow(1);
    databases.remove(DATABASE).await.unwrap();
    gate.open();
    let replaced = tokio::time::timeout(DEADLINE, replacing).await.unwrap();
    assert!(matches!(
        replaced.unwrap(),
        Err(DatabasesError::Gone { .. })
    ));
    assert!(databases.get(DATABASE).is_none());
    assert!(!databases.directory(DATABASE).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_another_try_wait_for_a_replacement_that_its_caller_left() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(directory.path());
    let (databases, gate) = (&receiver.databases, &receiver.gate);
    let copy = receiver.copy(DATABASE, 3).await;
    let position = copy.position();
    let arrival = databases.expect(DATABASE).unwrap();
    gate.allow(0);
    tokio::select! {
        biased;
        _ = databases.replace(arrival, copy) => panic!("it has no threads to run on"),
        () = gate.keeps_one() => {}
    }
    assert!(matches!(
        databases.expect(DATABASE),
        Err(DatabasesError::Replacing { .. })
    ));
    assert!(matches!(
        databases.open(DATABASE).await,
        Err(DatabasesError::Replacing { .. })
    ));
    let opened = async { tokio::join!(databases.open_replaced(DATABASE), async { gate.open() }).0 };
    let line = tokio::time::timeout(DEADLINE, opened)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(line.database().position(), Some(position));
    let free = async {
        while databases.expect(DATABASE).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_of_two_states_are_both_kept_for_the_catalogue() {
    let directory = tempfile::tempdir().unwrap();
    let databases = Receiver::new(directory.path()).databases;
    databases.note_taken_over(HashSet::from([DATABASE]));
    databases.note_taken_over(HashSet::from([OTHER]));
    assert_eq!(
        databases.take_taken_over(),
        HashSet::from([DATABASE, OTHER])
    );
}
