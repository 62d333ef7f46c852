//! What a primary is told at its start.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tidemark_engine::Options;
use tidemark_protocol::render::AnswerBounds;
use tidemark_protocol::{Incarnation, NodeId, Region, Regions};

use crate::consensus::{LOG_BYTES_KEPT, LOG_ENTRIES_KEPT, LOG_SEGMENT_BYTES};

/// Bytes of recent transactions kept in memory for replicas that are a little behind.
pub const RECENT_BYTES_MAX: usize = 64 << 20;
/// Log growth after which the databases are checkpointed and the log is purged, in bytes.
pub const PERSIST_EVERY_BYTES: u64 = 256 << 20;
/// Time between heartbeats to replicas.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// Writes of one database that may be in flight at once; more wait, within their deadlines.
pub const WRITES_IN_FLIGHT_MAX: usize = 1024;
/// Bytes of committed transactions, of all databases, that their writers may have yet to deal with. At the bound the
/// log is applied no further until they have.
pub const COMMITTED_BYTES_MAX: u32 = 512 << 20;
/// Time after which a small database that nobody uses closes its files.
pub const IDLE_WAIT: Duration = Duration::from_secs(30);
/// Databases that stay open though they are idle; beyond that the least recently used are closed first.
pub const OPEN_MAX: usize = 1024;
/// VM steps a read may take on the thread that received it, before it is moved to a SQL thread.
pub const INLINE_STEPS_MAX: u64 = 2_000;

/// A voter of a cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// Base URL under which other nodes reach it.
    pub url: String,
}

/// How a node gets into a cell that goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// Base URL of any of its members.
    pub url: String,
    /// The voter whose place this node takes, if any.
    pub replace: Option<NodeId>,
}

/// What a primary is told at its start.
#[derive(Clone, Debug)]
pub struct PrimaryConfig {
    /// Root of the node's files.
    pub directory: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Which life of its disk this is: drawn when `directory` was made, and kept there.
    pub incarnation: Incarnation,
    /// Region of the cell.
    pub region: Region,
    /// Base URL under which other nodes reach this one.
    pub advertise: String,
    /// First voters of the cell, this node among them, the same list on each of them. Empty: this node
    /// alone. Counts only while the log is empty; later the log says who votes.
    pub voters: Vec<Voter>,
    /// Which cell to join, instead of beginning one. Counts until this node votes.
    pub join: Option<Join>,
    /// Other ways to some members than the addresses that the cell knows: tunnels, address translation.
    pub via: HashMap<NodeId, String>,
    /// What lies in which jurisdiction.
    pub regions: Regions,
    /// What replicas and voters must know to connect. Empty: nothing, for nodes on loopback alone.
    pub cluster_secret: String,
    /// How databases are opened.
    pub engine: Options,
    /// Bounds of one answer.
    pub answer: AnswerBounds,
    /// See [`RECENT_BYTES_MAX`].
    pub recent_bytes_max: usize,
    /// See [`PERSIST_EVERY_BYTES`].
    pub persist_every_bytes: u64,
    /// Size of a log segment, the unit in which the log is purged, in bytes. Default 64 MiB, at least 1.
    pub log_segment_bytes: u64,
    /// Entries that stay in the log of a cell of several voters though they are durable without it, for
    /// a voter that was away. Default 16,384.
    pub log_entries_kept: u64,
    /// Bytes of log that are kept for a voter that is further behind; beyond that it is sent the pages
    /// that differ. Default 1 GiB.
    pub log_bytes_kept: u64,
    /// See [`HEARTBEAT`].
    pub heartbeat: Duration,
    /// See [`WRITES_IN_FLIGHT_MAX`].
    pub writes_in_flight_max: usize,
    /// See [`COMMITTED_BYTES_MAX`].
    pub committed_bytes_max: u32,
    /// See [`INLINE_STEPS_MAX`].
    pub inline_steps_max: u64,
    /// See [`IDLE_WAIT`]. In whole seconds, at least one.
    pub idle_wait: Duration,
    /// See [`OPEN_MAX`].
    pub open_max: usize,
}

impl PrimaryConfig {
    /// Defaults for a node in `directory`.
    pub fn new(
        directory: PathBuf,
        node: NodeId,
        incarnation: Incarnation,
        region: Region,
        advertise: String,
    ) -> Self {
        Self {
            directory,
            node,
            incarnation,
            region,
            advertise,
            voters: Vec::new(),
            join: None,
            via: HashMap::new(),
            regions: Regions::default(),
            cluster_secret: String::new(),
            engine: Options::default(),
            answer: AnswerBounds::default(),
            recent_bytes_max: RECENT_BYTES_MAX,
            persist_every_bytes: PERSIST_EVERY_BYTES,
            log_segment_bytes: LOG_SEGMENT_BYTES,
            log_entries_kept: LOG_ENTRIES_KEPT,
            log_bytes_kept: LOG_BYTES_KEPT,
            heartbeat: HEARTBEAT,
            writes_in_flight_max: WRITES_IN_FLIGHT_MAX,
            committed_bytes_max: COMMITTED_BYTES_MAX,
            inline_steps_max: INLINE_STEPS_MAX,
            idle_wait: IDLE_WAIT,
            open_max: OPEN_MAX,
        }
    }
}
