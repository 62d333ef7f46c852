//! `tidemark verify`: are all copies of all databases on several nodes the same, to the page?
//!
//! 1. Every node tells the position of each of its databases. A position holds the checksum of the whole
//!    content, so two copies at the same place with different checksums have split already.
//! 2. Once all copies of a database claim one position, every node reads its pages and computes the
//!    checksum anew: positions are what nodes believe, pages are what they have.
//! 3. A database that is being written to moves in between: look again, until the deadline.
//!
//! With `--data`, the files of one node that does not run: see `offline`.
//!
//! The primary is looked at too if the given nodes know it, named or not.

mod copies;
mod offline;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tidemark_client::{Client, NodeStatus, ReplicationMode, Role};
use tidemark_engine::Depth;
use tidemark_protocol::{DatabaseId, NodeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::copies::{Copy, Verdict, judge, level};
pub(crate) use self::offline::Unread;
use crate::config::Secret;
use crate::shell::blank_table;
use crate::token::TokenArgs;

/// Pause before looking again at databases that do not agree yet.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Time one node may take for one answer. Reading the pages of a large database takes long; a client waits for two minutes
/// at most.
const ANSWER_WAIT: Duration = Duration::from_secs(115);
/// Time one node may take to tell its status.
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// Name of the catalogue.
const CATALOGUE: &str = "catalogue";

/// What to verify.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Base URL of a node to compare; repeat it for more
    #[arg(
        long = "url",
        env = "TIDEMARK_URL",
        value_name = "URL",
        value_delimiter = ',',
        required_unless_present = "data"
    )]
    urls: Vec<String>,

    /// Data directory of a node that does not run: look at its files instead
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Have indexes compared with their tables, too (SQLite's integrity_check instead of quick_check)
    #[arg(long, requires = "data")]
    full: bool,

    /// Of a replica, set damaged copies aside; of a voter, mark them to be fetched, if another voter has them (the
    /// token is shown to that). Never touches a log
    #[arg(long, requires = "data")]
    repair: bool,

    #[command(flatten)]
    token: TokenArgs,

    /// How long copies that lag may take to catch up
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

/// Compares the nodes. An error if any copy differs, is not intact, or stays behind.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let until = Instant::now() + args.deadline;
    let token = args.token.read()?;
    if let Some(directory) = &args.data {
        let wanted = offline::Wanted {
            directory,
            depth: if args.full { Depth::Full } else { Depth::Quick },
            repair: args.repair,
            token,
        };
        return offline::run(wanted).await;
    }
    let mut nodes = Vec::new();
    for url in &args.urls {
        nodes.push(Node::reach(url, token.as_ref()).await?);
    }
    add_primary(&mut nodes, token.as_ref()).await;

    let mut databases = list(&nodes).await;
    loop {
        let open = databases
            .values_mut()
            .filter(|database| database.verdict == Verdict::Open);
        let last_look = Instant::now() >= until;
        // Who has not answered by now is not asked again in this round.
        let mut late = vec![false; nodes.len()];
        for database in open {
            database.look(&nodes, last_look, &mut late).await;
        }
        let all_judged = databases
            .values()
            .all(|database| database.verdict != Verdict::Open);
        if all_judged || last_look {
            break;
        }
        sleep(LOOK_AGAIN).await;
        for node in &mut nodes {
            node.refresh().await;
        }
        let fresh = list(&nodes).await;
        if nodes.iter().all(|node| node.silent.is_none()) {
            // Deleted meanwhile: nobody has it any more.
            databases
                .retain(|uuid, known| known.verdict != Verdict::Open || fresh.contains_key(uuid));
        }
        for (uuid, fresh) in fresh {
            match databases.get_mut(&uuid) {
                Some(known) if known.verdict == Verdict::Open => known.copies = fresh.copies,
                Some(_) => {}
                None => drop(databases.insert(uuid, fresh)),
            }
        }
    }
    report(&nodes, &databases)
}

/// A node under comparison.
struct Node {
    url: String,
    client: Client,
    status: NodeStatus,
    /// Why the status is an old one.
    silent: Option<String>,
}

impl Node {
    async fn reach(url: &str, token: Option<&Secret>) -> anyhow::Result<Self> {
        // The client must not be the first to give up.
        let mut builder = Client::builder(url).deadline(ANSWER_WAIT + STATUS_WAIT);
        if let Some(token) = token {
            builder = builder.token(token.reveal());
        }
        let client = builder.build()?;
        let status = ask_status(&client)
            .await
            .with_context(|| format!("ask '{url}'"))?;
        Ok(Self {
            url: url.to_owned(),
            client,
            status,
            silent: None,
        })
    }

    async fn refresh(&mut self) {
        match ask_status(&self.client).await {
            Ok(status) => {
                self.status = status;
                self.silent = None;
            }
            Err(error) => self.silent = Some(error.to_string()),
        }
    }

    fn id(&self) -> NodeId {
        self.status.node
    }

    fn title(&self) -> String {
        let NodeStatus {
            node,
            region,
            leading,
            role,
            ..
        } = &self.status;
        let part = match (role, leading) {
            (Role::Primary, true) => "primary",
            (Role::Primary, false) => "follower",
            (Role::Replica, _) => "replica",
        };
        format!("{region} {part} {node}")
    }
}

/// A node that is down is told soon; the client alone would go on trying as long as reading may take.
async fn ask_status(client: &Client) -> anyhow::Result<NodeStatus> {
    let status = timeout(STATUS_WAIT, client.node_status()).await;
    Ok(status.context("no answer")??)
}

/// Adds the primary that the nodes know of, unless it is among them or cannot be reached from here.
async fn add_primary(nodes: &mut Vec<Node>, token: Option<&Secret>) {
    if nodes.iter().any(|node| node.status.leading) {
        return;
    }
    let Some(url) = nodes
        .iter()
        .find_map(|node| node.status.primary_url.clone())
    else {
        return;
    };
    match Node::reach(&url, token).await {
        Ok(primary) if nodes.iter().all(|node| node.id() != primary.id()) => nodes.push(primary),
        Ok(_) => {}
        Err(error) => eprintln!("the primary is left out: {error:#}"),
    }
}

/// By what nodes are asked for a database: by its UUID, as names may be anything, `catalogue` too.
fn name_to_ask(id: DatabaseId) -> String {
    match id {
        DatabaseId::CATALOGUE => CATALOGUE.to_owned(),
        other => other.to_string(),
    }
}

/// A database on all nodes.
struct Database {
    id: DatabaseId,
    /// What to call it in the report.
    name: String,
    /// In the order of the nodes.
    copies: Vec<Copy>,
    verdict: Verdict,
}

/// All databases that any node has, as the nodes' statuses show them.
async fn list(nodes: &[Node]) -> BTreeMap<DatabaseId, Database> {
    let mut databases = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for status in &node.status.databases {
            let database = databases.entry(status.uuid).or_insert_with(|| Database {
                id: status.uuid,
                name: match status.uuid {
                    DatabaseId::CATALOGUE => CATALOGUE.to_owned(),
                    _ => status.name.clone(),
                },
                copies: vec![Copy::Missing; nodes.len()],
                verdict: Verdict::Open,
            });
            database.copies[index] = match (&status.damaged, &node.silent) {
                (_, Some(reason)) => Copy::Unread(reason.clone()),
                (Some(reason), None) => Copy::Damaged(reason.clone()),
                (None, None) => Copy::Claimed(status.position),
            };
        }
    }
    for (uuid, database) in &mut databases {
        if database.copies.contains(&Copy::Missing) && !replicated(nodes, *uuid).await {
            for (copy, node) in database.copies.iter_mut().zip(nodes) {
                if *copy == Copy::Missing && node.status.role == Role::Replica {
                    *copy = Copy::Elsewhere;
                }
            }
        }
    }
    databases
}

/// Whether replicas hold a database. Assumed where nobody says otherwise.
async fn replicated(nodes: &[Node], database: DatabaseId) -> bool {
    let Some(node) = nodes.iter().find(|node| node.status.role == Role::Primary) else {
        return true;
    };
    match node.client.describe_database(&database.to_string()).await {
        Ok(info) => info
            .read_replication
            .is_none_or(|replication| replication.mode == ReplicationMode::Auto),
        Err(_) => true,
    }
}

impl Database {
    /// Has the nodes read their pages if that can settle it, or if there is no later chance.
    async fn look(&mut self, nodes: &[Node], last_look: bool, late: &mut [bool]) {
        self.verdict = judge(&self.copies);
        if self.verdict == Verdict::Open && (level(&self.copies) || last_look) {
            let mut reading = JoinSet::new();
            for (index, node) in nodes.iter().enumerate() {
                if self.copies[index].position().is_none() {
                    continue;
                }
                if late[index] {
                    self.copies[index] = Copy::Unread("no answer in time before".to_owned());
                    continue;
                }
                let (client, name) = (node.client.clone(), name_to_ask(self.id));
                reading.spawn(async move {
                    let asked = timeout(ANSWER_WAIT, client.verify_database(&name)).await;
                    (index, asked)
                });
            }
            while let Some(done) = reading.join_next().await {
                // Reading does not panic and is not cancelled; if it was, the copy stays unread.
                let Ok((index, found)) = done else { continue };
                self.copies[index] = match found {
                    Ok(Ok(verification)) => Copy::Verified(verification),
                    Ok(Err(error)) => Copy::Unread(error.to_string()),
                    Err(_elapsed) => {
                        late[index] = true;
                        Copy::Unread("no answer in time".to_owned())
                    }
                };
            }
            self.verdict = judge(&self.copies);
        }
    }
}

fn report(nodes: &[Node], databases: &BTreeMap<DatabaseId, Database>) -> anyhow::Result<()> {
    let mut table = blank_table();
    table.set_header(["database", "node", "position", "checksum", "intact"]);
    for database in databases.values() {
        for (node, copy) in nodes.iter().zip(&database.copies) {
            let (checksum, intact) = match copy {
                Copy::Verified(found) => (
                    found.computed.to_string(),
                    if found.intact { "yes" } else { "NO" }.to_owned(),
                ),
                Copy::Claimed(position) => {
                    (format!("{} (claimed)", position.checksum), String::new())
                }
                Copy::Missing => (String::new(), "missing".to_owned()),
                Copy::Elsewhere => (String::new(), "not replicated".to_owned()),
                Copy::Damaged(reason) => (String::new(), format!("damaged: {reason}")),
                Copy::Unread(reason) => (String::new(), reason.clone()),
            };
            let position = copy.position().map_or(String::new(), |position| {
                format!("{}.{}", position.epoch, position.seq)
            });
            table.add_row([
                database.name.clone(),
                node.title(),
                position,
                checksum,
                intact,
            ]);
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "{table}")?;

    let named = |verdict: Verdict| -> Vec<&str> {
        let databases = databases
            .values()
            .filter(|database| database.verdict == verdict);
        databases.map(|database| database.name.as_str()).collect()
    };
    let (differ, open) = (named(Verdict::Differ), named(Verdict::Open));
    if !differ.is_empty() {
        bail!("copies differ or are not intact: {}", differ.join(", "));
    }
    if !open.is_empty() {
        bail!("copies did not come to agree in time: {}", open.join(", "));
    }
    let urls: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
    writeln!(
        out,
        "all copies agree: {} databases on {}",
        databases.len(),
        urls.join(", ")
    )?;
    Ok(())
}
