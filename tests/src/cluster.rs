//! A primary and replicas, with a relay before the upstream of each replica.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tidemark_client::{Client, ClientBuilder};
use tidemark_deploy::{Link, Relay};
use tidemark_protocol::Position;

use crate::agreement;
use crate::node::Node;

/// Region of the primary.
pub(crate) const PRIMARY_REGION: &str = "ENAM";
/// What the nodes show each other.
pub(crate) const CLUSTER_SECRET: &str = "secret-of-the-tests";

/// Where a replica is and how far from the primary.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its region.
    pub region: &'static str,
    /// The way between it and the primary.
    pub link: Link,
}

impl Place {
    /// A region at no distance.
    pub fn near(region: &'static str) -> Self {
        Self {
            region,
            link: Link::default(),
        }
    }

    /// A region at this one-way delay.
    pub fn at(region: &'static str, delay: Duration) -> Self {
        Self {
            region,
            link: Link::with_delay(delay),
        }
    }
}

/// Nodes that run, and the ways between them.
#[derive(Debug)]
pub struct Cluster {
    /// The primary.
    pub primary: Node,
    /// A replica per place.
    pub replicas: Vec<Node>,
    /// The way of each replica to its upstream.
    pub ways: Vec<Relay>,
    /// The way of clients to each node, the primary first: it says that it is reached there. None, unless the
    /// cluster is [seen from](Cluster::seen_from) somewhere.
    pub fronts: Vec<Relay>,
    // Last: the directories go when the processes have.
    _directory: TempDir,
}

impl Cluster {
    /// Starts a primary and a replica per place, and waits until all are ready.
    pub async fn start(program: &str, places: &[Place]) -> Self {
        Self::told(program, places, &[]).await
    }

    /// The same, with these words on every node's command line.
    pub async fn told(program: &str, places: &[Place], words: &[&str]) -> Self {
        Self::begin(program, places, words, &[]).await
    }

    /// The same as [`Cluster::start`], for clients that are so far from each node, the primary first.
    pub async fn seen_from(program: &str, places: &[Place], distances: &[Link]) -> Self {
        assert_eq!(distances.len(), 1 + places.len(), "one per node");
        Self::begin(program, places, &[], distances).await
    }

    async fn begin(program: &str, places: &[Place], words: &[&str], distances: &[Link]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-test-")
            .tempdir()
            .expect("make a temporary directory");
        let program = Path::new(program);
        let home = |region: &str| directory.path().join(region);
        let arguments = |role: &str, region: &str| {
            let own = [role, "--region", region, "--cluster-secret", CLUSTER_SECRET];
            own.iter()
                .chain(words)
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let mut primary = Node::new(
            "primary",
            program,
            &home(PRIMARY_REGION),
            arguments("primary", PRIMARY_REGION),
        );
        let mut ways = Vec::new();
        let mut replicas = Vec::new();
        for (seed, Place { region, link }) in (0..).zip(places) {
            let way = Relay::start(anywhere(), primary.address(), *link, seed).await;
            let way = way.expect("start a relay on loopback");
            let mut words = arguments("replica", region);
            words.extend(["--upstream".to_owned(), format!("http://{}", way.address())]);
            replicas.push(Node::new(
                &format!("replica {region}"),
                program,
                &home(region),
                words,
            ));
            ways.push(way);
        }
        let mut fronts = Vec::new();
        let nodes = std::iter::once(&mut primary).chain(&mut replicas);
        for (node, (seed, distance)) in nodes.zip((0..).zip(distances)) {
            let front = Relay::start(anywhere(), node.address(), *distance, seed).await;
            let front = front.expect("start a relay on loopback");
            let url = format!("http://{}", front.address());
            node.add_arguments(["--advertise".to_owned(), url]);
            fronts.push(front);
        }
        let mut cluster = Self {
            primary,
            replicas,
            ways,
            fronts,
            _directory: directory,
        };
        cluster.primary.start();
        cluster.primary.ready().await;
        for replica in &mut cluster.replicas {
            replica.start();
        }
        for replica in &mut cluster.replicas {
            replica.ready().await;
        }
        cluster
    }

    /// All nodes, the primary first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// The Rust client, speaking to `node` alone.
    pub fn client(node: &Node) -> Client {
        Client::builder(node.url())
            .build()
            .expect("a client of a loopback URL")
    }

    /// Waits until every node has every database of the primary at the primary's position; returns the
    /// positions by UUID.
    pub async fn settled(&self, deadline: Duration) -> Vec<(String, Position)> {
        let nodes: Vec<_> = self.nodes().collect();
        agreement::settled(&nodes, deadline).await
    }

    /// Waits until all nodes agree, then has each recompute the checksums of all databases from their
    /// pages. Panics if any is not what its position says.
    pub async fn verified(&self, deadline: Duration) {
        let nodes: Vec<_> = self.nodes().collect();
        agreement::verified(&nodes, deadline).await;
    }

    /// The Rust client at the place that the cluster is seen from, as it is before it is built: it is given the
    /// primary, and learns of the others.
    pub fn from_afar(&self) -> ClientBuilder {
        Client::builder(format!("http://{}", self.fronts[0].address()))
    }

    /// Stops all nodes gracefully, the replicas first.
    pub async fn stop(&mut self) {
        for replica in &mut self.replicas {
            replica.stop().await;
        }
        self.primary.stop().await;
    }
}

fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
