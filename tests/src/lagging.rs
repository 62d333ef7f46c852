//! A primary and three replicas whose ways to it are as bad as a test wants.
//!
//! Between each replica and the primary are two relays: a [`Meddler`], then a [`Relay`] of the WAN emulation.
//! Everything goes over them, the stream and the requests that the replica forwards.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tempfile::TempDir;
use tidemark_deploy::{Link, Relay};

use crate::agreement;
use crate::cluster::{CLUSTER_SECRET, PRIMARY_REGION};
use crate::meddler::Meddler;
use crate::node::Node;
use crate::wait;

/// Where the replicas are.
const REGIONS: [&str; 3] = ["WEUR", "APAC", "OC"];

/// The way between a replica and the primary.
#[derive(Debug)]
pub struct Way {
    /// Nearer to the replica: breaks connections, and meddles with messages.
    pub meddler: Meddler,
    /// Behind it: delay, jitter, cuts.
    pub relay: Relay,
}

/// The nodes, which run, and the ways.
#[derive(Debug)]
pub struct Lagging {
    /// The primary.
    pub primary: Node,
    /// The replicas.
    pub replicas: Vec<Node>,
    /// The way of each replica.
    pub ways: Vec<Way>,
    // Last: the directories go when the processes have.
    _directory: TempDir,
}

impl Lagging {
    /// Starts all, and waits until they are ready. The ways are good at first. `seed` makes what happens on them.
    pub async fn start(program: &str, seed: u64) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-test-")
            .tempdir()
            .expect("make a temporary directory");
        let node = |role: &str, region: &str, more: Vec<String>| {
            let words = [role, "--region", region, "--cluster-secret", CLUSTER_SECRET];
            let words = words.map(str::to_owned).into_iter().chain(more).collect();
            let home = directory.path().join(format!("{role}-{region}"));
            Node::new(
                &format!("{role} {region}"),
                Path::new(program),
                &home,
                words,
            )
        };
        let mut primary = node("primary", PRIMARY_REGION, Vec::new());
        let mut ways = Vec::new();
        let mut replicas = Vec::new();
        for (number, region) in (0..).zip(REGIONS) {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let seed = seed ^ number;
            let relay = Relay::start(any, primary.address(), Link::default(), seed).await;
            let relay = relay.expect("start a relay on loopback");
            let meddler = Meddler::start(relay.address(), seed).await;
            let meddler = meddler.expect("start a relay on loopback");
            let upstream = format!("http://{}", meddler.address());
            replicas.push(node(
                "replica",
                region,
                // What is packed cannot be told apart from damage once it comes in another order.
                ["--upstream", &upstream, "--stream-compression", "none"]
                    .map(str::to_owned)
                    .into(),
            ));
            ways.push(Way { meddler, relay });
        }
        primary.start();
        primary.ready().await;
        for replica in &mut replicas {
            replica.start();
        }
        for replica in &mut replicas {
            replica.ready().await;
        }
        Self {
            primary,
            replicas,
            ways,
            _directory: directory,
        }
    }

    /// All nodes, the primary first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// See [`Cluster::verified`](crate::Cluster::verified).
    pub async fn verified(&self) {
        let nodes: Vec<_> = self.nodes().collect();
        agreement::verified(&nodes, wait::SOON).await;
    }

    /// Stops all nodes gracefully, the replicas first.
    pub async fn stop(&mut self) {
        for replica in &mut self.replicas {
            replica.stop().await;
        }
        self.primary.stop().await;
    }
}
