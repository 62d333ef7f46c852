//! A node from its configuration to its end.
//!
//! 1. The listener is bound first, so that a port in use is found before any file is touched.
//! 2. [`Home`] is opened: identity and lock.
//! 3. The role recovers from its files, then the gateway accepts.
//! 4. Told to stop, a leader hands over, the gateway ends what is in flight, then the role makes everything
//!    durable.
//!
//! A role that cannot go on ends the process: the next start recovers from the files.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tidemark_engine::{Options, Threads};
use tidemark_gateway::{Dispatch, GatewayConfig, Handles, Identity, ServeConfig, Spool};
use tidemark_net::{Connector, TcpConnector};
use tidemark_primary::{Join, Primary, PrimaryConfig, Voter};
use tidemark_protocol::Node;
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::node::Role;
use tidemark_replica::{Replica, ReplicaConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, StreamCompression};
use crate::handles;
use crate::home::{Home, HomeError, NewId};
use crate::process::ProcessCollector;
use crate::system::{BlockingThreads, SystemClock, SystemRandom};

/// Binds where the configuration says.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))
}

/// Opens the directory of a node of this role: nobody else may use it from now on.
pub(crate) fn home(role: Role, config: &Config) -> Result<Home, HomeError> {
    // A random id is none that the other voters have in their list.
    let new_id = if config.voters.is_empty() {
        NewId::Drawn
    } else {
        NewId::Required
    };
    Home::open(
        &config.data,
        role,
        &config.cluster,
        config.node_id,
        new_id,
        &SystemRandom,
    )
}

/// Runs a node of this role until `stop`, or until it cannot go on.
pub(crate) async fn run(
    role: Role,
    config: Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let home = home(role, &config)?;
    run_at(role, config, home, listener, stop).await
}

/// The same, in a directory that is open already.
pub(crate) async fn run_at(
    role: Role,
    config: Config,
    home: Home,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let environment = Environment::of_this_machine();
    tracing::info!(
        node = %home.identity().node,
        ?role,
        region = %config.region,
        data = %home.directory().display(),
        "starting"
    );
    match role {
        Role::Primary => run_primary(&config, &home, &environment, listener, stop).await,
        Role::Replica => run_replica(&config, &home, &environment, listener, stop).await,
    }
}

/// What a node takes from the world.
struct Environment {
    threads: Arc<dyn Threads>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// File handles for databases.
    handles: usize,
    connector: Arc<dyn Connector>,
}

impl Environment {
    fn of_this_machine() -> Self {
        Self {
            threads: Arc::new(BlockingThreads::of_this_runtime()),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            handles: handles::for_databases(),
            connector: Arc::new(TcpConnector),
        }
    }

    /// How databases are opened.
    fn engine(&self, config: &Config) -> Options {
        Options {
            files_max: self.handles,
            ..config.engine()
        }
    }
}

async fn run_primary(
    config: &Config,
    home: &Home,
    environment: &Environment,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let node = home.identity().node;
    let listed = config.voters.iter().find(|voter| voter.node == node);
    let advertise = match (listed, &config.advertise) {
        (Some(voter), _) => voter.url.clone(),
        (None, Some(url)) => url.clone(),
        (None, None) => format!("http://{}", listener.local_addr()?),
    };
    let voters = config.voters.iter().map(|voter| Voter {
        node: voter.node,
        url: voter.url.clone(),
    });
    let join = config.join.as_ref().map(|url| Join {
        url: url.clone(),
        replace: config.replace,
    });
    let primary_config = PrimaryConfig {
        voters: voters.collect(),
        join,
        via: config.ways(),
        regions: config.regions.clone(),
        cluster_secret: config.cluster_secret()?,
        engine: environment.engine(config),
        answer: config.answer(),
        persist_every_bytes: config.checkpoint_every_bytes,
        idle_wait: config.idle_wait,
        open_max: config.open_databases,
        ..PrimaryConfig::new(
            home.directory().to_owned(),
            node,
            home.identity().incarnation,
            config.region.clone(),
            advertise,
        )
    };
    let handles = tidemark_primary::Environment {
        threads: Arc::clone(&environment.threads),
        clock: Arc::clone(&environment.clock),
        random: Arc::clone(&environment.random),
        connector: Arc::clone(&environment.connector),
        slow_disk: None,
    };
    let mut registry = Registry::default();
    let primary = Primary::start(primary_config, handles, &mut registry)
        .await
        .context("start the primary")?;
    let face = Face {
        config,
        home,
        environment,
        registry,
    };
    let router = face
        .router(Role::Primary, Arc::clone(&primary))?
        .merge(primary.routes());
    // Requests that come while leadership is handed over are handed on: the gateway goes last.
    let retired = CancellationToken::new();
    let retire = async {
        stop.cancelled().await;
        primary.retire().await;
        retired.cancel();
        std::future::pending::<()>().await;
    };
    let serving = serve(config, home, listener, router, retired.clone());
    let served = tokio::select! {
        served = serving => served,
        () = retire => unreachable!("pending for ever"),
        error = primary.failed() => return Err(error).context("the primary cannot go on"),
    };
    primary.stop().await;
    served
}

async fn run_replica(
    config: &Config,
    home: &Home,
    environment: &Environment,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let first = config.upstreams.first().cloned();
    let first = first.context("a replica needs an upstream")?;
    let address = listener.local_addr()?;
    let own = || (!address.ip().is_unspecified()).then(|| format!("http://{address}"));
    let replica_config = ReplicaConfig {
        advertise: config.advertise.clone().or_else(own),
        upstreams: config.upstreams.clone(),
        via: config.ways(),
        regions: config.regions.clone(),
        cluster_secret: config.cluster_secret()?,
        engine: environment.engine(config),
        answer: config.answer(),
        idle_wait: config.idle_wait,
        open_max: config.open_databases,
        audit_every: config.audit_every,
        audit_rate: config.audit_bytes_per_second,
        compress: config.stream_compression == StreamCompression::Zstd,
        ..ReplicaConfig::new(
            home.directory().to_owned(),
            home.identity().node,
            config.region.clone(),
            first,
        )
    };
    let handles = tidemark_replica::Environment {
        threads: Arc::clone(&environment.threads),
        random: Arc::clone(&environment.random),
        connector: Arc::clone(&environment.connector),
    };
    let mut registry = Registry::default();
    let replica = Replica::start(replica_config, handles, &mut registry)
        .await
        .context("start the replica")?;
    let face = Face {
        config,
        home,
        environment,
        registry,
    };
    let router = face.router(Role::Replica, Arc::clone(&replica))?;
    let served = tokio::select! {
        served = serve(config, home, listener, router, stop) => served,
        () = replica.failed() => bail!("the replica cannot go on; its log says why"),
    };
    replica.stop().await;
    served
}

/// What the HTTP face of either role is made of.
struct Face<'a> {
    config: &'a Config,
    home: &'a Home,
    environment: &'a Environment,
    registry: Registry,
}

impl Face<'_> {
    fn router<N: Node>(mut self, role: Role, node: Arc<N>) -> anyhow::Result<Dispatch> {
        let node_id = self.home.identity().node;
        let identity = Identity {
            node: node_id,
            region: self.config.region.clone(),
            role,
        };
        self.registry.register(
            "tidemark_node",
            "Who this node is",
            Info::new([
                ("node", node_id.to_string()),
                ("region", identity.region.to_string()),
                ("role", format!("{role:?}").to_lowercase()),
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ]),
        );
        self.registry.register_collector(Box::new(ProcessCollector));
        let listed = self.config.voters.iter();
        let listed = listed.filter(|voter| voter.node == node_id);
        let own = listed.map(|voter| &voter.url).chain(&self.config.advertise);
        let spool = Spool::open(self.config.spool(self.home.directory()));
        let spool = spool.context("empty the folder of files in transit")?;
        let gateway = GatewayConfig {
            spool: Some(spool),
            tokens: self.config.tokens()?,
            urls: own.cloned().collect(),
            limits: self.config.limits(),
            ..GatewayConfig::new(identity)
        };
        let handles = Handles {
            random: Arc::clone(&self.environment.random),
            clock: Arc::clone(&self.environment.clock),
            connector: Arc::clone(&self.environment.connector),
            metrics: tidemark_gateway::Metrics::register(&mut self.registry),
            registry: Arc::new(self.registry),
        };
        Ok(tidemark_gateway::router(node, gateway, handles))
    }
}

async fn serve(
    config: &Config,
    home: &Home,
    listener: TcpListener,
    router: Dispatch,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    home.tell_address(address)?;
    tracing::info!(%address, "serving");
    let bounds = ServeConfig {
        drain: config.stop_deadline,
        ..ServeConfig::default()
    };
    tidemark_gateway::serve(listener, router, stop, bounds).await;
    Ok(())
}
