//! Three voters and a replica that finds the one that leads.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tidemark_client::{Client, ClientBuilder};

use crate::agreement;
use crate::cluster::{CLUSTER_SECRET, PRIMARY_REGION};
use crate::node::Node;
use crate::wait;

/// A cell of three, and a replica of it.
#[derive(Debug)]
pub struct Cell {
    /// The voters.
    pub voters: Vec<Node>,
    /// The replica.
    pub replica: Node,
    // Last: the directories go when the processes have.
    _directory: TempDir,
}

impl Cell {
    /// Starts all of them, and waits until they are ready.
    pub async fn start(program: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-test-")
            .tempdir()
            .expect("make a temporary directory");
        let program = Path::new(program);
        let home = |name: &str| directory.path().join(name);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let mut voters: Vec<Node> = (1..=3)
            .map(|id| {
                let name = format!("voter {id}");
                Node::new(&name, program, &home(&id.to_string()), Vec::new())
            })
            .collect();
        let list: Vec<_> = (1..)
            .zip(&voters)
            .map(|(id, voter)| format!("{id}={}", voter.url()))
            .collect();
        let list = list.join(",");
        for (id, voter) in (1..).zip(&mut voters) {
            let id = i32::to_string(&id);
            let line = ["primary", "--region", PRIMARY_REGION, "--node-id", &id];
            let rest = ["--voter", &list, "--cluster-secret", CLUSTER_SECRET];
            voter.set_arguments(words(&[&line[..], &rest].concat()));
        }
        let upstreams: Vec<_> = voters.iter().map(Node::url).collect();
        let upstreams = upstreams.join(",");
        let line = ["replica", "--region", "WEUR", "--upstream", &upstreams];
        let line = [&line[..], &["--cluster-secret", CLUSTER_SECRET]].concat();
        let replica = Node::new("replica", program, &home("replica"), words(&line));
        let mut cell = Self {
            voters,
            replica,
            _directory: directory,
        };
        for node in cell.nodes_mut() {
            node.start();
        }
        for node in cell.nodes_mut() {
            node.ready().await;
        }
        cell
    }

    /// All nodes, the voters first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.voters.iter().chain([&self.replica])
    }

    /// All nodes, the voters first.
    pub fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.voters.iter_mut().chain([&mut self.replica])
    }

    /// Waits until a voter leads; returns its place among them.
    pub async fn leader(&self) -> usize {
        wait::soon("a voter leads", async || {
            let mut leaders = Vec::new();
            for (at, voter) in self.voters.iter().enumerate() {
                if let Ok(status) = voter.api().status().await {
                    leaders.extend(status.leading.then_some((status.term, at)));
                }
            }
            leaders.into_iter().max().map(|(_, at)| at)
        })
        .await
    }

    /// The Rust client with all nodes to choose from, this one first.
    pub fn client(&self, first: usize) -> Client {
        let urls: Vec<_> = self.nodes().map(Node::url).collect();
        let later = (1..urls.len()).map(|more| &urls[(first + more) % urls.len()]);
        let builder = Client::builder(urls[first % urls.len()].clone());
        later
            .fold(builder, |builder: ClientBuilder, url| builder.url(url))
            .build()
            .expect("a client of loopback URLs")
    }

    /// See [`Cluster::verified`](crate::Cluster::verified).
    pub async fn verified(&self, deadline: Duration) {
        let nodes: Vec<_> = self.nodes().collect();
        agreement::verified(&nodes, deadline).await;
    }

    /// Stops all nodes gracefully, the replica first.
    pub async fn stop(&mut self) {
        self.replica.stop().await;
        for voter in &mut self.voters {
            voter.stop().await;
        }
    }
}
