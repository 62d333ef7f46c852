//! `tidemark cell`: look at a cell, have a member leave, have the leader hand over.
//!
//! Looking needs what any client needs; changing needs the cluster secret. Any member may be named: one that
//! does not lead says who does. A change is asked for again until it is done or the deadline has passed; asking
//! twice does no harm.

mod leader;
mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tidemark_client::{Client, NodeStatus};
use tidemark_protocol::NodeId;
use tidemark_protocol::cell::{
    CellStatus, REMOVE_PATH, RemoveAnswer, RemoveRequest, TRANSFER_PATH, TransferAnswer,
    TransferRequest,
};
use tokio::time::{Instant, timeout};

use self::leader::Leader;
use self::table::show;
use crate::config::{GivenId, Secret};
use crate::token::TokenArgs;

/// Time one node may take to tell its status.
const STATUS_WAIT: Duration = Duration::from_secs(3);

/// What to do with a cell.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Show the members, who leads, and how far each is
    Status(StatusArgs),
    /// Have a member leave the cell; its id is never used again
    Remove(RemoveArgs),
    /// Have the leader hand over to another voter
    Transfer(TransferArgs),
}

#[derive(clap::Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    members: MembersArgs,

    #[command(flatten)]
    token: TokenArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct RemoveArgs {
    /// The member, hexadecimal
    #[arg(value_name = "ID")]
    node: GivenId,

    /// DANGEROUS: even if fewer than half of those who stay are alive. The cell may then stop taking writes
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    members: MembersArgs,

    #[command(flatten)]
    access: AccessArgs,
}

#[derive(clap::Args, Debug)]
struct TransferArgs {
    /// To this voter, hexadecimal [default: to the one that has most]
    #[arg(value_name = "ID")]
    to: Option<GivenId>,

    #[command(flatten)]
    members: MembersArgs,

    #[command(flatten)]
    access: AccessArgs,
}

#[derive(clap::Args, Debug)]
struct MembersArgs {
    /// Base URL of a member of the cell; repeat it for more, in case one is down
    #[arg(
        long = "url",
        env = "TIDEMARK_URL",
        value_name = "URL",
        value_delimiter = ',',
        required = true
    )]
    urls: Vec<String>,
}

#[derive(clap::Args, Debug)]
struct AccessArgs {
    /// Secret that the nodes of the cluster share; prefer --cluster-secret-file
    #[arg(
        long,
        env = "TIDEMARK_CLUSTER_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    cluster_secret: Option<Secret>,

    /// File with the secret that the nodes of the cluster share
    #[arg(long, env = "TIDEMARK_CLUSTER_SECRET_FILE", value_name = "FILE")]
    cluster_secret_file: Option<PathBuf>,

    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

impl AccessArgs {
    fn leader(&self, members: MembersArgs) -> anyhow::Result<Leader> {
        let secret = match &self.cluster_secret_file {
            Some(path) => Secret::read_file(path)?.into_iter().next(),
            None => self.cluster_secret.clone(),
        };
        let until = Instant::now() + self.deadline;
        Ok(Leader::new(members.urls, secret.as_ref(), until))
    }
}

/// Runs the command. An error if it was not done.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Status(args) => status(args).await,
        Command::Remove(args) => remove(args).await,
        Command::Transfer(args) => transfer(args).await,
    }
}

async fn status(args: StatusArgs) -> anyhow::Result<()> {
    let token = args.token.read()?;
    let (status, cell) = look(&args.members.urls, token.as_ref()).await?;
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&cell)?)?;
    } else {
        write!(out, "{}", show(&cell, status.node, status.leading))?;
    }
    Ok(())
}

/// The cell as its leader sees it; as somebody else does, if the leader cannot be asked.
async fn look(urls: &[String], token: Option<&Secret>) -> anyhow::Result<(NodeStatus, CellStatus)> {
    let mut found = None;
    let mut problems = Vec::new();
    for url in urls {
        match ask(url, token).await {
            Ok(status) => {
                found = Some(status);
                break;
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    let Some((mut status, mut cell)) = found else {
        bail!("no member of a cell answers: {}", problems.join("; "));
    };
    if let (false, Some(url)) = (status.leading, &status.primary_url)
        && let Ok(leader) = ask(url, token).await
        && leader.0.leading
    {
        (status, cell) = leader;
    }
    Ok((status, cell))
}

async fn ask(url: &str, token: Option<&Secret>) -> anyhow::Result<(NodeStatus, CellStatus)> {
    let mut builder = Client::builder(url).deadline(STATUS_WAIT);
    if let Some(token) = token {
        builder = builder.token(token.reveal());
    }
    let client = builder.build()?;
    let status = timeout(STATUS_WAIT, client.node_status()).await;
    let status = status.with_context(|| format!("{url} does not answer"))??;
    let cell = status.cell.clone();
    let cell = cell.with_context(|| format!("{url} is a replica: name a member of the cell"))?;
    Ok((status, cell))
}

async fn remove(args: RemoveArgs) -> anyhow::Result<()> {
    let GivenId(node) = args.node;
    let request = RemoveRequest {
        node,
        force: args.force,
    };
    let mut leader = args.access.leader(args.members)?;
    let answer: RemoveAnswer = leader.ask(REMOVE_PATH, &request).await?;
    let left = answer.members.iter().filter(|member| member.voter).count();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} is no member any more; {left} voters are left",
        short(node)
    )?;
    Ok(())
}

async fn transfer(args: TransferArgs) -> anyhow::Result<()> {
    let request = TransferRequest {
        to: args.to.map(|GivenId(node)| node),
    };
    let mut leader = args.access.leader(args.members)?;
    let answer: TransferAnswer = leader.ask(TRANSFER_PATH, &request).await?;
    writeln!(std::io::stdout(), "{} leads now", short(answer.leader))?;
    Ok(())
}

/// A node's id as people give it: without leading zeros.
fn short(node: NodeId) -> String {
    format!("{:x}", node.0)
}
