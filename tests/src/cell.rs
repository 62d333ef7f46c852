//! Voters and replicas that find the one of them that leads.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tempfile::TempDir;
use tidemark_client::{Client, ClientBuilder};
use tidemark_deploy::{Link, Relay};

use crate::agreement;
use crate::cluster::{CLUSTER_SECRET, PRIMARY_REGION};
use crate::growing::cell_command;
use crate::node::Node;
use crate::wait;
use crate::ways::Ways;

/// How long a look at one node may take.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// How many of each, and what is between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Voters: 1, 3 or 5.
    pub voters: usize,
    /// Replicas.
    pub replicas: usize,
    /// Whether voters reach each other through relays that can be cut, and replicas them.
    pub relays: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            voters: 3,
            replicas: 1,
            relays: false,
        }
    }
}

/// A cell, and replicas of it.
#[derive(Debug)]
pub struct Cell {
    /// The voters. The first has id 1.
    pub voters: Vec<Node>,
    /// The replicas.
    pub replicas: Vec<Node>,
    /// The ways between voters, if the [`Layout`] has relays.
    pub ways: Ways,
    /// Places of voters that are no members any more. Their processes are gone.
    gone: BTreeSet<usize>,
    /// A relay before each voter, if the cell was started [with them](Cell::behind_doors): replicas reach it by
    /// that, and so does what other voters hand on to it. Clients of the test reach it directly.
    pub doors: Vec<Relay>,
    program: PathBuf,
    // Last: the directories go when the processes have.
    directory: TempDir,
}

impl Cell {
    /// Starts three voters and a replica, and waits until they are ready.
    pub async fn start(program: &str) -> Self {
        Self::of(program, Layout::default()).await
    }

    /// Starts what `layout` says, and waits until all are ready.
    pub async fn of(program: &str, layout: Layout) -> Self {
        Self::begin(program, layout, false).await
    }

    /// The same, with a relay before each voter.
    pub async fn behind_doors(program: &str, layout: Layout) -> Self {
        Self::begin(program, layout, true).await
    }

    async fn begin(program: &str, layout: Layout, behind_doors: bool) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-test-")
            .tempdir()
            .expect("make a temporary directory");
        let program = Path::new(program);
        let home = |name: &str| directory.path().join(name);
        let mut voters: Vec<Node> = (1..=layout.voters)
            .map(|id| {
                let name = format!("voter {id}");
                Node::new(&name, program, &home(&format!("voter-{id}")), Vec::new())
            })
            .collect();
        let addresses: Vec<_> = voters.iter().map(Node::address).collect();
        let mut ways = if layout.relays {
            Ways::between(&addresses).await
        } else {
            Ways::default()
        };
        let doors = if behind_doors {
            doors_before(&addresses).await
        } else {
            Vec::new()
        };
        let urls: Vec<_> = if behind_doors {
            let addresses = doors.iter().map(Relay::address);
            addresses
                .map(|address| format!("http://{address}"))
                .collect()
        } else {
            voters.iter().map(Node::url).collect()
        };
        let list: Vec<_> = (0..)
            .zip(&urls)
            .map(|(at, url)| format!("{}={url}", Self::voter_id(at)))
            .collect();
        let common = ["--cluster-secret", CLUSTER_SECRET].map(str::to_owned);
        for (at, voter) in voters.iter_mut().enumerate() {
            let id = Self::voter_id(at);
            let line = ["primary", "--region", PRIMARY_REGION, "--node-id", &id];
            let mut words: Vec<_> = line.map(str::to_owned).into();
            words.extend(common.clone());
            if layout.voters > 1 {
                words.extend(["--voter".to_owned(), list.join(",")]);
            }
            for (other, url) in ways.from(at) {
                words.extend([
                    "--via".to_owned(),
                    format!("{}={url}", Self::voter_id(other)),
                ]);
            }
            voter.set_arguments(words);
        }
        let mut replicas = Vec::new();
        for number in 1..=layout.replicas {
            let upstreams = if layout.relays {
                ways.of_replica(number - 1, &addresses).await
            } else {
                urls.clone()
            };
            let line = ["replica", "--region", "WEUR", "--upstream"];
            let mut words: Vec<_> = line.map(str::to_owned).into();
            words.push(upstreams.join(","));
            words.extend(common.clone());
            let name = format!("replica {number}");
            let home = home(&format!("replica-{number}"));
            replicas.push(Node::new(&name, program, &home, words));
        }
        let mut cell = Self {
            replicas,
            voters,
            ways,
            gone: BTreeSet::new(),
            doors,
            program: program.to_owned(),
            directory,
        };
        for node in cell.nodes_mut() {
            node.start();
        }
        for node in cell.nodes_mut() {
            node.ready().await;
        }
        cell
    }

    /// Whether its files stay when it is dropped. They lie in the directory that is returned.
    pub fn keep_files(&mut self, keep: bool) -> &Path {
        self.directory.disable_cleanup(keep);
        self.directory.path()
    }

    /// Starts one more voter, the last of the list from now on, that joins where the one at this place is; in the place
    /// of another one, perhaps. Does not wait.
    pub fn join(&mut self, at: usize, replace: Option<usize>) {
        let id = Self::voter_id(self.voters.len());
        let number = self.voters.len() + 1;
        let home = self.directory.path().join(format!("voter-{number}"));
        let url = self.voters[at].url();
        let line = ["primary", "--region", PRIMARY_REGION, "--node-id", &id];
        let more = ["--cluster-secret", CLUSTER_SECRET, "--join", &url];
        let words = line.iter().chain(&more);
        let mut words: Vec<_> = words.map(|word| (*word).to_owned()).collect();
        let replaced = replace.map(|at| ["--replace".to_owned(), Self::voter_id(at)]);
        words.extend(replaced.into_iter().flatten());
        let mut voter = Node::new(&format!("voter {number}"), &self.program, &home, words);
        voter.start();
        self.voters.push(voter);
    }

    /// Asks the cell to let the voter at this place go. Any other of its voters may be asked, and says who leads.
    pub async fn remove(&self, at: usize) -> Output {
        let others = self.members().filter(|other| *other != at);
        let urls: Vec<_> = others.map(|other| self.voters[other].url()).collect();
        cell_command(&self.program, &["remove", &Self::voter_id(at)], &urls).await
    }

    /// Takes note that the voter at this place is no member any more; its process goes, if it has not ended itself.
    pub fn let_go(&mut self, at: usize) {
        self.voters[at].kill();
        self.gone.insert(at);
    }

    /// The places of the voters that have not gone.
    pub fn members(&self) -> impl Iterator<Item = usize> {
        (0..self.voters.len()).filter(|at| !self.gone.contains(at))
    }

    /// Waits until all voters vote that have not gone, and nobody else, as the one that leads has it.
    pub async fn all_vote(&self, deadline: Duration) {
        wait::until("all voters vote", deadline, async || {
            let leader = self.leader().await;
            let api = self.voters[leader].api();
            let status = tokio::time::timeout(LOOK_WAIT, api.status());
            let cell = status.await.ok()?.ok()?.cell?;
            let voters = cell.members.iter().filter(|member| member.voter);
            let voters: BTreeSet<_> = voters.map(|member| member.node.0).collect();
            let expected: BTreeSet<_> = self.members().map(|at| at as u64 + 1).collect();
            (voters == expected && !cell.changing).then_some(())
        })
        .await;
    }

    /// All nodes that have not gone, the voters first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let voters = self.members().map(|at| &self.voters[at]);
        voters.chain(&self.replicas)
    }

    /// All nodes that have not gone, the voters first.
    pub fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        let Self {
            voters,
            replicas,
            gone,
            ..
        } = self;
        let voters = voters.iter_mut().enumerate();
        let members = voters.filter(|(at, _)| !gone.contains(at));
        members.map(|(_, voter)| voter).chain(replicas)
    }

    /// The id of the voter at this place, as it is given and as it calls itself in its answers.
    pub fn voter_id(at: usize) -> String {
        format!("{:016x}", at + 1)
    }

    /// Waits until a voter leads; returns its place among them.
    pub async fn leader(&self) -> usize {
        self.leader_that("a voter leads", |_| true).await
    }

    /// Waits until another voter leads than the one at this place, whatever that one thinks; returns the
    /// place of the other.
    pub async fn successor(&self, of: usize) -> usize {
        let what = format!("another voter than {} leads", of + 1);
        self.leader_that(&what, |at| at != of).await
    }

    async fn leader_that(&self, what: &str, wanted: impl Fn(usize) -> bool) -> usize {
        wait::soon(what, async || {
            self.says_it_leads().await.filter(|at| wanted(*at))
        })
        .await
    }

    /// The place of the voter that says now that it leads, if any does; of several the one of the newest term.
    pub async fn says_it_leads(&self) -> Option<usize> {
        let mut leaders = Vec::new();
        for (at, voter) in self.voters.iter().enumerate() {
            // A process that is stopped keeps its connections open and answers none.
            let status = tokio::time::timeout(LOOK_WAIT, voter.api().status()).await;
            if let Ok(Ok(status)) = status {
                leaders.extend(status.leading.then_some((status.term, at)));
            }
        }
        leaders.into_iter().max().map(|(_, at)| at)
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

    /// Stops all nodes gracefully, the replicas first.
    pub async fn stop(&mut self) {
        for replica in &mut self.replicas {
            replica.stop().await;
        }
        for at in self.members().collect::<Vec<_>>() {
            self.voters[at].stop().await;
        }
    }
}

/// An open relay before everybody who listens on these addresses.
async fn doors_before(addresses: &[SocketAddr]) -> Vec<Relay> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut doors = Vec::new();
    for target in addresses {
        let door = Relay::start(any, *target, Link::default(), 0).await;
        doors.push(door.expect("start a relay on loopback"));
    }
    doors
}
