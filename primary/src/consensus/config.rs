//! Settings of consensus.

use std::path::PathBuf;
use std::time::Duration;

use tidemark_protocol::transaction::TRANSACTION_BYTES_MAX;
use tidemark_protocol::{Incarnation, NodeId};

use super::error::ConsensusError;
use super::log_store::{READ_BYTES_MAX, SEGMENT_BYTES_MIN};

const LOG_CACHE_BYTES: u64 = 64 << 20;
const LOG_CACHE_ENTRIES: u64 = 16 << 10;
pub(crate) const LOG_SEGMENT_BYTES: u64 = 64 << 20;
pub(crate) const LOG_ENTRIES_KEPT: u64 = 16 << 10;
pub(crate) const LOG_BYTES_KEPT: u64 = 1 << 30;
// A millisecond of work for a thread that has requests to answer as well.
const ENTRY_BYTES_MAX: usize = 1 << 20;
// One of the largest transactions, and as much of others as there was room for before: it must not need to be
// alone, nor may others wait for it.
const IN_FLIGHT_BYTES_MAX: u64 = TRANSACTION_BYTES_MAX as u64 + (96 << 20);
const IN_FLIGHT_COUNT_MAX: u64 = 16 << 10;
const HEARTBEAT: Duration = Duration::from_millis(100);
// A follower stands after a whole lease (the longest election) and then its own timeout: 0.9 s to 1.2 s
// after the last sign of life, so that a successor acknowledges within 2 s.
const ELECTION_MIN: Duration = Duration::from_millis(300);
const ELECTION_MAX: Duration = Duration::from_millis(600);
/// Entries per replication message, before its bound in bytes.
const PAYLOAD_ENTRIES_MAX: u64 = 1024;
/// Requests waiting for the core task. Proposals can never fill it, see [`ConsensusConfig::validate`].
const API_QUEUE: u64 = 65_536;

/// How consensus is started on a node.
#[derive(Clone, Debug)]
pub(crate) struct ConsensusConfig {
    /// This node.
    pub(crate) node: NodeId,
    /// The node's directory. The log goes to `log/` in it, and `applied` says what is durable without it.
    pub(crate) directory: PathBuf,
    /// Which life of its disk this is. The log's membership must know this node by it, or not at all.
    pub(crate) incarnation: Incarnation,
    /// Payloads of closed segments kept in memory, in bytes. Default 64 MiB.
    pub(crate) log_cache_bytes: u64,
    /// Payloads of closed segments kept in memory, in number. Default 16,384.
    pub(crate) log_cache_entries: u64,
    /// Size of a log segment, the unit in which the log is purged. Default 64 MiB, at least 1 MiB.
    pub(crate) log_segment_bytes: u64,
    /// Entries that stay in the log of a cell of several voters though they are durable without it, for a
    /// voter that was away. Default 16,384.
    pub(crate) log_entries_kept: u64,
    /// Log that stays for a voter that is away or behind, in bytes, besides a segment or two: one that lacks
    /// more is sent whole databases. Default 1 GiB.
    pub(crate) log_bytes_kept: u64,
    /// Largest entry of the log, in bytes. A larger command travels in parts. Default 1 MiB.
    pub(crate) entry_bytes_max: usize,
    /// Proposals without an outcome, in bytes; more are refused. Default 352 MiB.
    pub(crate) in_flight_bytes_max: u64,
    /// Proposals without an outcome, in number; more are refused. Default 16,384.
    pub(crate) in_flight_count_max: u64,
    /// Time between a leader's signs of life. Default 100 ms.
    pub(crate) heartbeat: Duration,
    /// Shortest silence, after the lease, after which a follower stands for election. Default 300 ms.
    pub(crate) election_min: Duration,
    /// Longest, and the lease: how long a leader trusts the last answer of a quorum, and a follower the
    /// leader's last sign of life. Default 600 ms.
    pub(crate) election_max: Duration,
}

impl ConsensusConfig {
    /// Defaults for `node` in `directory`.
    pub(crate) fn new(directory: PathBuf, node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            node,
            directory,
            incarnation,
            log_cache_bytes: LOG_CACHE_BYTES,
            log_cache_entries: LOG_CACHE_ENTRIES,
            log_segment_bytes: LOG_SEGMENT_BYTES,
            log_entries_kept: LOG_ENTRIES_KEPT,
            log_bytes_kept: LOG_BYTES_KEPT,
            entry_bytes_max: ENTRY_BYTES_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            in_flight_count_max: IN_FLIGHT_COUNT_MAX,
            heartbeat: HEARTBEAT,
            election_min: ELECTION_MIN,
            election_max: ELECTION_MAX,
        }
    }

    /// Where the log is.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The file that says what is durable without the log.
    pub(super) fn applied_path(&self) -> PathBuf {
        self.directory.join("applied")
    }

    /// openraft's settings. All problems at once.
    pub(super) fn validate(&self) -> Result<openraft::Config, ConsensusError> {
        let mut problems = Vec::new();
        if self.log_segment_bytes < SEGMENT_BYTES_MIN {
            let got = self.log_segment_bytes;
            problems.push(format!(
                "segments of {got} bytes, at least {SEGMENT_BYTES_MIN}"
            ));
        }
        if self.entry_bytes_max == 0 || self.entry_bytes_max > READ_BYTES_MAX {
            let got = self.entry_bytes_max;
            problems.push(format!("entries of {got} bytes, at most {READ_BYTES_MAX}"));
        }
        // So that handing over a proposal never has to wait.
        if self.in_flight_count_max > API_QUEUE / 2 {
            let got = self.in_flight_count_max;
            problems.push(format!(
                "{got} proposals in flight, at most {}",
                API_QUEUE / 2
            ));
        }
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let raft = openraft::Config {
            cluster_name: "cell".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            max_payload_entries: PAYLOAD_ENTRIES_MAX,
            api_channel_size: Some(API_QUEUE),
            // The state machine may be busy with a peer's state for long; the core must not wait for it.
            state_machine_channel_size: Some(API_QUEUE),
            // Batching comes from the disk, not from waiting.
            api_batch_linger_ms: 0,
            // Both are ours to decide: see `Consensus::snapshot`.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            // A lagging follower gets the log as long as there is one.
            replication_lag_threshold: u64::MAX,
            enable_pre_vote: Some(true),
            // One term per incarnation: a term fences everything outside.
            enable_leader_restore: Some(false),
            // The least that openraft accepts: the lease, then one longest election.
            quorum_loss_probe_interval: Some(millis(self.election_max).saturating_mul(2)),
            ..openraft::Config::default()
        };
        let raft = raft
            .validate()
            .map_err(|error| problems.push(error.to_string()));
        match raft {
            Ok(raft) if problems.is_empty() => Ok(raft),
            _ => Err(ConsensusError::Config {
                reason: problems.join("; "),
            }),
        }
    }
}
