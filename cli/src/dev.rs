//! `tidemark dev`: a primary and replicas an ocean apart, in one process.
//!
//! Nothing is simulated but the distance: every node has its own directory, listener and sockets, and
//! between each replica and the primary lies a [`Relay`] with the delay of a long way. The data stays
//! in the directory between runs.
#![allow(clippy::print_stdout)]

mod sample;
mod wan;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tidemark_client::Client;
use tidemark_deploy::{Link, Relay};
use tidemark_protocol::Region;
use tidemark_protocol::node::Role;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::sample::SAMPLE;
use self::wan::{WAN_DEFAULT, Wan};
use crate::config::{Config, LogFormat, PORT_DEFAULT, REGION_DEFAULT};
use crate::{logging, node, signal};

/// Where a dev cluster keeps its files unless told otherwise.
const DATA_DEFAULT: &str = "tidemark-dev";
/// What is logged unless asked for more: the lines to try are what a first user should see.
const LOG_DEFAULT: &str = "warn";
/// Time for the nodes to get ready and the replicas to have the sample.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks at a replica.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a dev cluster is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Replicas, by region, and the one-way delay between each and the primary
    #[arg(long, value_name = "REGION=TIME,...", default_value = WAN_DEFAULT)]
    wan: Wan,
    /// Port of the primary; the replicas take the next ones
    #[arg(long, default_value_t = PORT_DEFAULT)]
    port: u16,
    /// Directory of the cluster's files, kept between runs
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    data: PathBuf,
    /// What to log: a level, or levels by module as in RUST_LOG
    #[arg(long, env = "TIDEMARK_LOG", value_name = "FILTER")]
    log: Option<String>,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            wan: WAN_DEFAULT.parse().expect("the default is well-formed"),
            port: PORT_DEFAULT,
            data: PathBuf::from(DATA_DEFAULT),
            log: None,
        }
    }
}

/// A node of the cluster, for the lines that are printed.
struct Site {
    region: Region,
    address: SocketAddr,
    /// One way to the primary.
    delay: Duration,
}

/// Runs a dev cluster until told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let _logging = logging::start(args.log.as_deref(), LogFormat::Human, LOG_DEFAULT, None)?;
    let stop = signal::stop_token()?;
    let started = Instant::now();
    let cluster = Cluster::start(&args).await?;
    let Cluster {
        sites,
        mut nodes,
        ways,
        stop_replicas,
        stop_primary,
    } = cluster;

    let prepared = tokio::select! {
        prepared = prepare(&sites) => prepared,
        ended = first_end(&mut nodes) => ended,
        () = stop.cancelled() => Ok(()),
    };
    if prepared.is_ok() && !stop.is_cancelled() {
        println!("{}", lines_to_try(&sites, &args.data, started.elapsed()));
    }
    let ended = match prepared {
        Ok(()) => tokio::select! {
            ended = first_end(&mut nodes) => ended,
            () = stop.cancelled() => Ok(()),
        },
        Err(error) => Err(error),
    };

    // Replicas first: the primary then has nobody left to ship to.
    stop_replicas.cancel();
    while nodes.len() > 1 {
        nodes.join_next().await;
    }
    stop_primary.cancel();
    while nodes.join_next().await.is_some() {}
    drop(ways);
    ended
}

/// Nodes that run as tasks of this process.
struct Cluster {
    /// The primary first.
    sites: Vec<Site>,
    nodes: JoinSet<anyhow::Result<()>>,
    ways: Vec<Relay>,
    stop_replicas: CancellationToken,
    stop_primary: CancellationToken,
}

impl Cluster {
    async fn start(args: &Args) -> anyhow::Result<Self> {
        let Wan(places) = &args.wan;
        let at = |number: usize| {
            let port = u16::try_from(number)
                .ok()
                .and_then(|number| args.port.checked_add(number));
            let port = port.context("the replicas' ports exceed 65535")?;
            Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        // All ports first: nothing has been written when one of them is taken.
        let mut listeners = Vec::new();
        for number in 0..=places.len() {
            listeners.push(listen(at(number)?).await?);
        }
        let mut listeners = listeners.into_iter();
        let primary_listener = listeners.next().context("the primary's listener")?;

        let primary_region: Region = REGION_DEFAULT.parse()?;
        ensure!(
            places.iter().all(|(region, _)| *region != primary_region),
            "region {primary_region} is the primary's: name others in --wan"
        );
        let primary = Site {
            region: primary_region,
            address: primary_listener.local_addr()?,
            delay: Duration::ZERO,
        };
        let config = |region: &Region, upstream: Option<String>| Config {
            data: args.data.join(region.as_str().to_ascii_lowercase()),
            region: region.clone(),
            upstreams: upstream.into_iter().collect(),
            ..Config::default()
        };
        let (stop_primary, stop_replicas) = (CancellationToken::new(), CancellationToken::new());
        let mut nodes = JoinSet::new();
        nodes.spawn(node::run(
            Role::Primary,
            config(&primary.region, None),
            primary_listener,
            stop_primary.clone(),
        ));

        let mut ways = Vec::new();
        let mut sites = vec![primary];
        for (seed, ((region, delay), listener)) in (0..).zip(places.iter().zip(listeners)) {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let way = Relay::start(any, sites[0].address, Link::with_delay(*delay), seed).await?;
            let upstream = format!("http://{}", way.address());
            ways.push(way);
            sites.push(Site {
                region: region.clone(),
                address: listener.local_addr()?,
                delay: *delay,
            });
            let config = config(region, Some(upstream));
            nodes.spawn(node::run(
                Role::Replica,
                config,
                listener,
                stop_replicas.clone(),
            ));
        }
        Ok(Self {
            sites,
            nodes,
            ways,
            stop_replicas,
            stop_primary,
        })
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    node::bind(address)
        .await
        .context("is another dev cluster running? --port takes other ports")
}

/// The end of the node that ends first. Nodes end only when they are told to, or with an error.
async fn first_end(nodes: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    match nodes.join_next().await {
        Some(ended) => ended.context("a node broke")?,
        None => Ok(()),
    }
}

/// Loads the sample and waits until all replicas have it.
async fn prepare(sites: &[Site]) -> anyhow::Result<()> {
    let client = |site: &Site| {
        Client::builder(format!("http://{}", site.address))
            .deadline(READY_DEADLINE)
            .build()
    };
    let (primary, replicas) = sites.split_first().context("a cluster has a primary")?;
    let primary = client(primary)?;
    sample::ensure(&primary).await?;
    let uuid = primary.describe_database(SAMPLE).await?.uuid;
    let position = |status: tidemark_client::NodeStatus| {
        let mut databases = status.databases.into_iter();
        databases
            .find(|database| database.uuid.to_string() == uuid)
            .map(|found| found.position)
    };
    let newest = position(primary.node_status().await?).context("the sample is on the primary")?;
    let deadline = Instant::now() + READY_DEADLINE;
    for site in replicas {
        let replica = client(site)?;
        while position(replica.node_status().await?) != Some(newest) {
            if Instant::now() > deadline {
                bail!(
                    "{} did not get the sample within {READY_DEADLINE:?}",
                    site.region
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// What a first user reads: where the nodes are, and commands that work as they stand.
fn lines_to_try(sites: &[Site], data: &Path, took: Duration) -> String {
    use std::fmt::Write;

    let mut text = format!(
        "tidemark dev is ready after {:.1} s. Nodes:\n\n",
        took.as_secs_f64()
    );
    for (number, site) in sites.iter().enumerate() {
        let role = if number == 0 { "primary" } else { "replica" };
        let Site {
            region,
            address,
            delay,
        } = site;
        let way = match number {
            0 => String::new(),
            _ => format!("  {} one way", humantime::format_duration(*delay)),
        };
        writeln!(text, "  {region:<6} {role}  http://{address}{way}").expect("into memory");
    }
    let near = sites.get(1).unwrap_or(&sites[0]);
    let far = sites.last().unwrap_or(near);
    let url = |site: &Site| {
        format!(
            "http://{}/client/v4/accounts/dev/d1/database/{SAMPLE}/query",
            site.address
        )
    };
    let insert = r#"{"sql":"INSERT INTO customers (name, city, joined) VALUES (?, ?, date())","params":["Ada Lovelace","London"]}"#;
    let count = r#"{"sql":"SELECT count(*) AS customers FROM customers"}"#;
    write!(
        text,
        "\n\
         Write through {near}, and keep the bookmark that comes with the answer:\n\n\
         \x20 BOOKMARK=$(curl -s -D - {near_url} \\\n\
         \x20   -d '{insert}' \\\n\
         \x20   | tee /dev/stderr | tr -d '\\r' | sed -n 's/^x-d1-bookmark: //p')\n\n\
         Read at {far}, which has seen the write when it answers:\n\n\
         \x20 curl -s {far_url} -H \"x-d1-bookmark: $BOOKMARK\" \\\n\
         \x20   -d '{count}'\n\n\
         Read there what is there, at once, perhaps without the newest writes:\n\n\
         \x20 curl -s {far_url} -H 'x-d1-bookmark: first-unconstrained' \\\n\
         \x20   -d '{count}'\n\n\
         Look around:\n\n\
         \x20 {program} shell --url http://{far_address} --database {SAMPLE}\n\
         \x20 {program} verify{verify_urls}\n\n\
         Or open the console of {near} in a browser: http://{near_address}/\n\n\
         Files are in {data} and stay there. Ctrl-C stops.\n",
        near = near.region,
        far = far.region,
        near_url = url(near),
        far_url = url(far),
        far_address = far.address,
        near_address = near.address,
        program = program(),
        verify_urls = sites.iter().fold(String::new(), |urls, site| {
            format!("{urls} --url http://{}", site.address)
        }),
        data = data.display(),
    )
    .expect("into memory");
    text
}

/// How this program was called, so that the lines can be copied.
fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "tidemark".to_owned())
}
