//! A cell of three voters in one process, over real sockets. Each has a runtime of its own, so that it can
//! be stopped from one moment to the next, as by a kill.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tidemark_primary::{Primary, PrimaryConfig, Voter};
use tidemark_protocol::node::{Answer, DatabaseStatus};
use tidemark_protocol::{
    DatabaseId, Execute, Executed, Failure, Incarnation, Node, NodeId, Position,
};
use tokio::runtime::Runtime;

use crate::harness::start_registered;

/// Longest that anything here may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// What voters show each other.
pub(crate) const SECRET: &str = "secret of the cell";

/// The voters, running or not.
pub(crate) struct Cell {
    voters: Vec<Voter>,
    tune: fn(PrimaryConfig) -> PrimaryConfig,
    running: Mutex<BTreeMap<NodeId, Running>>,
    starts: AtomicU16,
    directory: TempDir,
}

struct Running {
    primary: Arc<Primary>,
    registry: Registry,
    runtime: Runtime,
}

impl Cell {
    /// Three voters that have begun to look for a leader.
    pub(crate) async fn start() -> Self {
        Self::start_tuned(|config| config).await
    }

    /// The same with other settings.
    pub(crate) async fn start_tuned(tune: fn(PrimaryConfig) -> PrimaryConfig) -> Self {
        let voters = [1, 2, 3].map(|node| Voter {
            node: NodeId(node),
            url: format!("http://{}", free_address()),
        });
        let cell = Self {
            voters: voters.to_vec(),
            tune,
            running: Mutex::default(),
            starts: AtomicU16::new(0),
            directory: tempfile::tempdir().unwrap(),
        };
        for voter in &voters {
            cell.start_voter(voter.node).await;
        }
        cell
    }

    /// Starts a voter on its files, as soon as nobody holds them any more.
    pub(crate) async fn start_voter(&self, node: NodeId) {
        let random = u64::from(self.starts.fetch_add(1, Ordering::Relaxed)) + 1;
        let voter = self.voters.iter().find(|v| v.node == node).unwrap();
        let address: SocketAddr = voter.url.strip_prefix("http://").unwrap().parse().unwrap();
        let config = (self.tune)(PrimaryConfig {
            voters: self.voters.clone(),
            cluster_secret: SECRET.to_owned(),
            ..PrimaryConfig::new(
                self.home(node),
                node,
                Incarnation(u128::from(node.0)),
                "ENAM".parse().unwrap(),
                voter.url.clone(),
            )
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let started = runtime.spawn(async move {
            // Of a voter that was killed a moment ago, the runtime may still be at it.
            let mut patience = Patience::new("the address is free");
            let listener = loop {
                match tokio::net::TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_held) => patience.pause().await,
                }
            };
            let mut patience = Patience::new("the files are free");
            let (primary, registry) = loop {
                let mut registry = Registry::default();
                match start_registered(config.clone(), random, &mut registry).await {
                    Ok(primary) => break (primary, registry),
                    Err(_held) => patience.pause().await,
                }
            };
            tokio::spawn(axum::serve(listener, primary.routes()).into_future());
            (primary, registry)
        });
        let (primary, registry) = started.await.unwrap();
        let running = Running {
            primary,
            registry,
            runtime,
        };
        self.running.lock().unwrap().insert(node, running);
    }

    /// Ends a voter without a word to anybody.
    pub(crate) fn kill(&self, node: NodeId) {
        let running = self.running.lock().unwrap().remove(&node).unwrap();
        drop(running.primary);
        running.runtime.shutdown_background();
    }

    /// The voters that run.
    pub(crate) fn running(&self) -> Vec<(NodeId, Arc<Primary>)> {
        let running = self.running.lock().unwrap();
        running
            .iter()
            .map(|(node, running)| (*node, Arc::clone(&running.primary)))
            .collect()
    }

    /// What a voter that runs has counted under this name since its start.
    pub(crate) fn counted(&self, node: NodeId, name: &str) -> u64 {
        let running = self.running.lock().unwrap();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &running[&node].registry).unwrap();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }

    /// Base URL of a voter.
    pub(crate) fn url(&self, node: NodeId) -> String {
        let voter = self.voters.iter().find(|v| v.node == node);
        voter.unwrap().url.clone()
    }

    /// Where a voter's files are.
    pub(crate) fn home(&self, node: NodeId) -> PathBuf {
        self.directory.path().join(node.0.to_string())
    }

    /// Waits until one serves: the one of the newest term.
    pub(crate) async fn leader(&self) -> (NodeId, Arc<Primary>) {
        let mut patience = Patience::new("one leads");
        loop {
            let mut leaders = Vec::new();
            for (node, primary) in self.running() {
                let status = primary.status().await;
                leaders.extend(status.leading.then_some((status.term, node, primary)));
            }
            let newest = leaders
                .into_iter()
                .max_by_key(|(term, node, _)| (*term, *node));
            if let Some((_, node, primary)) = newest {
                return (node, primary);
            }
            patience.pause().await;
        }
    }

    /// The voters that run and do not lead.
    pub(crate) async fn followers(&self) -> Vec<(NodeId, Arc<Primary>)> {
        let (leader, _) = self.leader().await;
        let mut all = self.running();
        all.retain(|(node, _)| *node != leader);
        all
    }

    /// Runs it once, at whichever voter leads.
    pub(crate) async fn try_run(&self, execute: Execute) -> Result<Answer, Failure> {
        loop {
            let (_, leader) = self.leader().await;
            match leader.execute(execute.clone()).await? {
                Executed::Answer(answer) => return Ok(answer),
                Executed::Forward(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Runs it until it is done, at whichever voter leads. Only for what has a request id, or reads.
    pub(crate) async fn run(&self, execute: Execute) -> Answer {
        let mut patience = Patience::new("it is done");
        loop {
            match self.try_run(execute.clone()).await {
                Ok(answer) => return answer,
                Err(failure) if failure.kind.retryable() => patience.pause().await,
                Err(failure) => panic!("{failure}"),
            }
        }
    }

    /// Waits until all that run have all databases at the same positions, and asserts that each has the
    /// content that its position says.
    pub(crate) async fn settled(&self) -> Vec<(DatabaseId, Position)> {
        let settled = eventually("all voters have the same positions", async || {
            let mut all = Vec::new();
            for (_, primary) in self.running() {
                let databases = primary.status().await.databases;
                // Names are there once the catalogue is read.
                let standing = |d: DatabaseStatus| (d.uuid, d.position, d.name);
                let mut standing: Vec<_> = databases.into_iter().map(standing).collect();
                standing.sort_unstable_by_key(|(uuid, ..)| *uuid);
                all.push(standing);
            }
            let first = all.swap_remove(0);
            all.iter().all(|other| *other == first).then_some(first)
        })
        .await;
        let settled: Vec<_> = settled
            .into_iter()
            .map(|(database, position, _)| (database, position))
            .collect();
        for (node, primary) in self.running() {
            for (database, position) in &settled {
                let verified = primary.verify(*database).await.unwrap();
                assert_eq!(verified.position, *position, "{database} on voter {node}");
                assert!(verified.intact, "{database} on voter {node}: {verified:?}");
            }
        }
        settled
    }

    /// Ends all of them.
    pub(crate) fn kill_all(&self) {
        for (node, _) in self.running() {
            self.kill(node);
        }
    }
}

/// A runtime must not be dropped where others run.
impl Drop for Cell {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Looks until there is something to be seen.
pub(crate) async fn eventually<T>(
    what: &'static str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let mut patience = Patience::new(what);
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        patience.pause().await;
    }
}

/// Pauses between looks, until it is enough.
struct Patience {
    what: &'static str,
    begun: Instant,
}

impl Patience {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            begun: Instant::now(),
        }
    }

    async fn pause(&mut self) {
        let waited = self.begun.elapsed();
        assert!(
            waited < DEADLINE,
            "waited {waited:?} in vain until {}",
            self.what
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An address that nobody listens on, below the range of outgoing connections, which could take it while
/// its voter is down.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(97) + u32::from(number);
        let port = 15_000 + u16::try_from(offset % 17_000).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
