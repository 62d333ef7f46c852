//! One life of a node: what `tidemark primary` and `tidemark replica` do, on a simulated host.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tidemark_engine::Threads;
use tidemark_gateway::{Dispatch, GatewayConfig, Handles, Identity, Metrics, ServeConfig};
use tidemark_net::Connector;
use tidemark_primary::{Primary, PrimaryConfig, Voter};
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::node::{NodeStatus, Role};
use tidemark_protocol::{Incarnation, Node, NodeId, Region};
use tidemark_replica::{Replica, ReplicaConfig};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::layout::{Layout, Tuning};
use crate::watch::Watch;
use crate::world::baton::{Stage, TakingTurns};
use crate::world::disk::{Folders, SimDisk, Speed};
use crate::world::handles::{Drawn, SkewedClock, Time};
use crate::world::net::{PORT, SimConnector, SimListener};

/// How often a node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What the nodes show each other.
const SECRET: &str = "simulated";

/// A host and what lasts longer than one life of its node.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) role: Role,
    pub(crate) node: NodeId,
    /// Name of the host.
    pub(crate) name: String,
    pub(crate) region: Region,
    pub(crate) incarnation: Incarnation,
    pub(crate) folders: Mutex<Folders>,
    pub(crate) speed: Arc<Speed>,
    pub(crate) ahead_ms: Arc<AtomicI64>,
    /// Longest wait of a job for a thread.
    pub(crate) pause_max: Duration,
    pub(crate) random: Mutex<fastrand::Rng>,
    pub(crate) layout: Layout,
    pub(crate) tuning: Tuning,
    pub(crate) stage: Arc<Stage>,
    pub(crate) time: Arc<Time>,
    pub(crate) watch: Arc<Watch>,
}

/// The base URL of a host.
pub(crate) fn url(name: &str) -> String {
    format!("http://{name}:{PORT}")
}

impl Site {
    fn draw(&self) -> fastrand::Rng {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.fork()
    }

    /// Begins with the files that are there and goes on until the host crashes, or the node cannot go on.
    pub(crate) async fn live(self: Arc<Self>) -> anyhow::Result<()> {
        let world = World::of(&self);
        match self.role {
            Role::Primary => self.vote(&world).await,
            Role::Replica => self.follow(&world).await,
        }
    }

    async fn vote(&self, world: &World) -> anyhow::Result<()> {
        let mut registry = Registry::default();
        let voters = self.layout.voters().map(|(node, name)| Voter {
            node,
            url: url(&name),
        });
        let Tuning {
            persist_every_bytes,
            log_entries_kept,
            log_bytes_kept,
            recent_bytes_max,
            idle_wait,
            ..
        } = self.tuning;
        let config = PrimaryConfig {
            voters: voters.collect(),
            cluster_secret: SECRET.to_owned(),
            log_segment_bytes: 1 << 20,
            persist_every_bytes,
            log_entries_kept,
            log_bytes_kept,
            recent_bytes_max,
            idle_wait,
            ..PrimaryConfig::new(
                world.directory.clone(),
                self.node,
                self.incarnation,
                self.region.clone(),
                url(&self.name),
            )
        };
        let environment = tidemark_primary::Environment {
            threads: Arc::clone(&world.threads),
            clock: Arc::clone(&world.clock),
            random: Arc::clone(&world.random),
            connector: Arc::clone(&world.connector),
            slow_disk: Some(Arc::new(SimDisk {
                runtime: Handle::current(),
                speed: Arc::clone(&self.speed),
                random: Mutex::new(self.draw()),
            })),
        };
        let listener = SimListener::bind().await?;
        let primary = Primary::start(config, environment, &mut registry).await?;
        let router = self.router(&primary, registry, world);
        let router = router.merge(primary.routes());
        tokio::select! {
            ended = serve(listener, router) => ended,
            () = self.look(&primary) => unreachable!("looks for ever"),
            error = primary.failed() => Err(error.into()),
        }
    }

    async fn follow(&self, world: &World) -> anyhow::Result<()> {
        let mut registry = Registry::default();
        let urls: Vec<_> = self.layout.voters().map(|(_, name)| url(&name)).collect();
        let config = ReplicaConfig {
            upstreams: urls.clone(),
            advertise: Some(url(&self.name)),
            cluster_secret: SECRET.to_owned(),
            idle_wait: self.tuning.idle_wait,
            ..ReplicaConfig::new(
                world.directory.clone(),
                self.node,
                self.region.clone(),
                urls[0].clone(),
            )
        };
        let environment = tidemark_replica::Environment {
            threads: Arc::clone(&world.threads),
            random: Arc::clone(&world.random),
            connector: Arc::clone(&world.connector),
        };
        let listener = SimListener::bind().await?;
        let replica = Replica::start(config, environment, &mut registry).await?;
        let router = self.router(&replica, registry, world);
        tokio::select! {
            ended = serve(listener, router) => ended,
            () = self.look(&replica) => unreachable!("looks for ever"),
            () = replica.failed() => Err(anyhow::anyhow!("the replica cannot go on")),
        }
    }

    fn router<N: Node>(&self, node: &Arc<N>, mut registry: Registry, world: &World) -> Dispatch {
        let identity = Identity {
            node: self.node,
            region: self.region.clone(),
            role: self.role,
        };
        let gateway = GatewayConfig {
            urls: vec![url(&self.name)],
            ..GatewayConfig::new(identity)
        };
        let handles = Handles {
            random: Arc::clone(&world.random),
            clock: Arc::clone(&world.clock),
            connector: Arc::clone(&world.connector),
            metrics: Metrics::register(&mut registry),
            registry: Arc::new(registry),
        };
        tidemark_gateway::router(Arc::clone(node), gateway, handles)
    }

    /// Has the node tell of itself, time and again.
    async fn look<N: Node>(&self, node: &Arc<N>) {
        loop {
            let status: NodeStatus = node.status().await;
            self.watch.saw(&self.name, status);
            sleep(LOOK_EVERY).await;
        }
    }
}

async fn serve(listener: SimListener, router: Dispatch) -> anyhow::Result<()> {
    let never = CancellationToken::new();
    tidemark_gateway::serve(listener, router, never, ServeConfig::default()).await;
    Ok(())
}

/// The handles of one life.
struct World {
    directory: std::path::PathBuf,
    threads: Arc<dyn Threads>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    connector: Arc<dyn Connector>,
}

impl World {
    fn of(site: &Site) -> Self {
        let folders = site.folders.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::create_dir_all(folders.now()).expect("a folder can be made");
        let threads = TakingTurns::new(Arc::clone(&site.stage), site.draw(), site.pause_max);
        let clock = SkewedClock {
            time: Arc::clone(&site.time),
            ahead_ms: Arc::clone(&site.ahead_ms),
        };
        Self {
            directory: folders.now(),
            threads: Arc::new(threads),
            clock: Arc::new(clock),
            random: Arc::new(Drawn(Mutex::new(site.draw()))),
            connector: Arc::new(SimConnector),
        }
    }
}
