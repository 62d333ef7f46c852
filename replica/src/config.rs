//! What a replica is told at its start.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::{Options, Threads};
use tidemark_net::Connector;
use tidemark_protocol::env::Random;
use tidemark_protocol::render::AnswerBounds;
use tidemark_protocol::{NodeId, Region, Regions};

/// Bytes received and not yet applied, over all databases, before the socket is read no further.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Databases that resynchronise at once.
pub const RESYNCS_MAX: usize = 4;
/// VM steps a read may take on the thread that received it, before it is moved to a SQL thread.
pub const INLINE_STEPS_MAX: u64 = 2_000;
/// Time for connecting, the handshake and the source's welcome, each.
pub const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// First pause after a lost connection; doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two tries to connect.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Time beyond three heartbeats after which a silent connection is given up.
pub const SILENCE_SLACK: Duration = Duration::from_millis(500);

/// Time without use after which a small database closes its files.
pub const IDLE_WAIT: Duration = Duration::from_secs(30);
/// Databases that stay open though they are idle; beyond that the least recently used are closed first.
pub const OPEN_MAX: usize = 1024;
/// How often each copy is read again, page by page, and compared with what its position says.
pub const AUDIT_EVERY: Duration = Duration::from_secs(3600);
/// Bytes a second that are read for that, at most; large copies are read faster, see `audit`.
pub const AUDIT_RATE: u64 = 16 << 20;

/// What a replica is told at its start.
#[derive(Clone)]
pub struct ReplicaConfig {
    /// Root of the node's files.
    pub directory: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Its region.
    pub region: Region,
    /// What lies in which jurisdiction.
    pub regions: Regions,
    /// Base URLs of the nodes that it looks at for one to follow and forward to: voters of the cell. One
    /// that does not lead says who does, and one that leads who has joined since: they are looked at first.
    pub upstreams: Vec<String>,
    /// Other ways to some voters than the addresses that the cell knows: tunnels, address translation.
    pub via: HashMap<NodeId, String>,
    /// Base URL under which clients reach it, for the map of the cluster.
    pub advertise: Option<String>,
    /// What it must know to be let in.
    pub cluster_secret: String,
    /// How databases are opened.
    pub engine: Options,
    /// Bounds of one answer.
    pub answer: AnswerBounds,
    /// See [`QUEUE_BYTES_MAX`].
    pub queue_bytes_max: usize,
    /// See [`RESYNCS_MAX`].
    pub resyncs_max: usize,
    /// See [`INLINE_STEPS_MAX`].
    pub inline_steps_max: u64,
    /// See [`CONNECT_WAIT`].
    pub connect_wait: Duration,
    /// See [`BACKOFF_MIN`].
    pub backoff_min: Duration,
    /// See [`BACKOFF_MAX`].
    pub backoff_max: Duration,
    /// See [`SILENCE_SLACK`].
    pub silence_slack: Duration,
    /// See [`IDLE_WAIT`].
    pub idle_wait: Duration,
    /// See [`OPEN_MAX`].
    pub open_max: usize,
    /// See [`AUDIT_EVERY`].
    pub audit_every: Duration,
    /// See [`AUDIT_RATE`].
    pub audit_rate: u64,
    /// Whether the source is asked to compress the stream. What that costs is in
    /// `docs/decisions/0007-stream-compression.md`.
    pub compress: bool,
}

impl ReplicaConfig {
    /// Defaults for a node in `directory` that follows `upstream`.
    pub fn new(directory: PathBuf, node: NodeId, region: Region, upstream: String) -> Self {
        Self {
            directory,
            node,
            region,
            regions: Regions::default(),
            upstreams: vec![upstream],
            via: HashMap::new(),
            advertise: None,
            cluster_secret: String::new(),
            engine: Options::default(),
            answer: AnswerBounds::default(),
            queue_bytes_max: QUEUE_BYTES_MAX,
            resyncs_max: RESYNCS_MAX,
            inline_steps_max: INLINE_STEPS_MAX,
            connect_wait: CONNECT_WAIT,
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            silence_slack: SILENCE_SLACK,
            idle_wait: IDLE_WAIT,
            open_max: OPEN_MAX,
            audit_every: AUDIT_EVERY,
            audit_rate: AUDIT_RATE,
            compress: true,
        }
    }
}

/// The secret stays out of logs.
impl std::fmt::Debug for ReplicaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaConfig")
            .field("directory", &self.directory)
            .field("node", &self.node)
            .field("region", &self.region)
            .field("upstreams", &self.upstreams)
            .finish_non_exhaustive()
    }
}

/// What a replica takes from the world: threads, randomness and the network, as handles.
#[derive(Clone)]
pub struct Environment {
    /// Run SQL and file operations.
    pub threads: Arc<dyn Threads>,
    /// Spreads the pauses between tries to connect.
    pub random: Arc<dyn Random>,
    /// Reaches the upstream.
    pub connector: Arc<dyn Connector>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}
