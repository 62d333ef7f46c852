//! A cell whose members come and go: each node is started with words of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use tempfile::TempDir;
use tidemark_client::{Client, ClientBuilder};
use tidemark_protocol::cell::{CellMember, CellStatus};

use crate::agreement;
use crate::cluster::{CLUSTER_SECRET, PRIMARY_REGION};
use crate::node::Node;
use crate::wait;

/// How long a look at one node may take.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// Nodes by id, of one cell or on their way to it.
#[derive(Debug)]
pub struct Growing {
    program: PathBuf,
    nodes: BTreeMap<u64, Node>,
    // Last: the directories go when the processes have.
    directory: TempDir,
}

impl Growing {
    /// None yet.
    pub fn new(program: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("tidemark-test-").tempdir();
        Self {
            program: Path::new(program).to_owned(),
            nodes: BTreeMap::new(),
            directory: directory.expect("make a temporary directory"),
        }
    }

    /// A node of this id, on an empty directory, not started yet.
    pub fn add(&mut self, id: u64) -> &mut Node {
        let name = format!("node {id}");
        let home = self.directory.path().join(id.to_string());
        let node = Node::new(&name, &self.program, &home, Vec::new());
        assert!(
            self.nodes.insert(id, node).is_none(),
            "{id} is there already"
        );
        self.tell(id, &[]);
        self.node(id)
    }

    /// Has a node be started with these words beside those that all have.
    pub fn tell(&mut self, id: u64, more: &[&str]) {
        let number = format!("{id:x}");
        let words = ["primary", "--region", PRIMARY_REGION, "--node-id", &number];
        let words = words.iter().chain(&["--cluster-secret", CLUSTER_SECRET]);
        let words = words.chain(more).map(|word| (*word).to_owned()).collect();
        self.node(id).set_arguments(words);
    }

    /// Starts a node of this id that joins where another one is.
    pub fn join(&mut self, id: u64, at: u64, replace: Option<u64>) {
        let url = self.url(at);
        self.add(id);
        let replaced = replace.map(|node| format!("{node:x}"));
        let mut words = vec!["--join", &url];
        words.extend(
            replaced
                .iter()
                .flat_map(|node| ["--replace", node.as_str()]),
        );
        self.tell(id, &words);
        self.node(id).start();
    }

    /// Three that begin a cell together; waits until they are ready.
    pub async fn begin_with_three(&mut self) {
        for id in 1..=3 {
            self.add(id);
        }
        let list = self.list(&[1, 2, 3]);
        for id in 1..=3 {
            self.tell(id, &["--voter", &list]);
            self.node(id).start();
        }
        for id in 1..=3 {
            self.node(id).ready().await;
        }
    }

    /// `ID=URL,…`
    pub fn list(&self, ids: &[u64]) -> String {
        let voters = ids.iter().map(|id| format!("{id:x}={}", self.url(*id)));
        voters.collect::<Vec<_>>().join(",")
    }

    /// The node of this id.
    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this id")
    }

    /// Its base URL.
    pub fn url(&self, id: u64) -> String {
        self.nodes[&id].url()
    }

    /// Takes a node's disk away, while it is down.
    pub fn lose_disk(&mut self, id: u64) {
        let data = self.node(id).data();
        std::fs::remove_dir_all(data).expect("remove a node's files");
    }

    /// Waits until a node's process ends by itself; returns how, and what it logged.
    pub async fn end(&mut self, id: u64) -> (ExitStatus, String) {
        let node = self.node(id);
        let ended = wait::soon("a process ends by itself", async || node.ended()).await;
        node.kill();
        (ended, node.log())
    }

    /// The cell as a node sees it, if it answers.
    pub async fn look(&self, id: u64) -> Option<CellStatus> {
        let api = self.nodes[&id].api();
        let status = tokio::time::timeout(LOOK_WAIT, api.status()).await;
        status.ok()?.ok()?.cell
    }

    /// Waits until one that runs serves as leader, and returns its id.
    pub async fn leader(&self) -> u64 {
        wait::soon("a node leads", async || {
            let mut leaders = Vec::new();
            for (id, node) in &self.nodes {
                let status = tokio::time::timeout(LOOK_WAIT, node.api().status()).await;
                if let Ok(Ok(status)) = status {
                    leaders.extend(status.leading.then_some((status.term, *id)));
                }
            }
            leaders.into_iter().max().map(|(_, id)| id)
        })
        .await
    }

    /// Waits until the leader has exactly these voters and nobody else.
    pub async fn has_voters(&self, expected: &[u64]) {
        wait::soon(&format!("the voters are {expected:?}"), async || {
            let leader = self.leader().await;
            let cell = self.look(leader).await?;
            let voters: Vec<_> = voters(&cell).map(|member| member.node.0).collect();
            let all = cell.members.len() == voters.len() && !cell.changing;
            (all && voters == expected).then_some(())
        })
        .await;
    }

    /// The Rust client with these nodes to choose from, the first one first.
    pub fn client(&self, ids: &[u64]) -> Client {
        let (first, others) = ids.split_first().expect("a node");
        let builder = Client::builder(self.url(*first));
        let add = |builder: ClientBuilder, id: &u64| builder.url(self.url(*id));
        let builder = others.iter().fold(builder, add);
        builder.build().expect("a client of loopback URLs")
    }

    /// Runs `tidemark cell` with these words, at all nodes of these ids.
    pub async fn command(&self, words: &[&str], ids: &[u64]) -> Output {
        let urls: Vec<_> = ids.iter().map(|id| self.url(*id)).collect();
        cell_command(&self.program, words, &urls).await
    }

    /// Waits until these nodes agree, and has each verify all its pages.
    pub async fn verified(&self, ids: &[u64]) {
        let nodes: Vec<_> = ids.iter().map(|id| &self.nodes[id]).collect();
        agreement::verified(&nodes, wait::SOON).await;
    }
}

fn voters(cell: &CellStatus) -> impl Iterator<Item = &CellMember> {
    cell.members.iter().filter(|member| member.voter)
}

/// Runs `tidemark cell` with these words, at the nodes of these URLs.
pub(crate) async fn cell_command(program: &Path, words: &[&str], urls: &[String]) -> Output {
    let mut command = Command::new(program);
    command.arg("cell").args(words);
    for url in urls {
        command.args(["--url", url]);
    }
    if words[0] != "status" {
        command.args(["--cluster-secret", CLUSTER_SECRET]);
    }
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_")) {
        command.env_remove(variable);
    }
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await
        .expect("it does not panic")
        .expect("run tidemark cell")
}
