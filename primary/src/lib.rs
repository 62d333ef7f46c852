//! The cell that holds the primary copy: consensus, commit pipeline, catalogue, shipping.
//!
//! [`Primary`] is a voter of a cell. Where to read on:
//!
//! - `pipeline`: how one write goes through, from request to answer, in six steps;
//! - `machine`: where the committed log meets the databases, and the fence between;
//! - `consensus`: openraft and the log on disk, behind types of our own;
//! - `install`: how a voter that the log no longer reaches takes over a peer's state;
//! - `transport`, `append_socket`: how voters reach each other;
//! - `members`: how the cell begins, who is in it, and how leadership is handed over;
//! - `ship`: how replicas get what was committed;
//! - `cell`: a voter's life from recovery to a graceful stop.

mod append_socket;
mod cell;
mod chain;
mod config;
mod consensus;
mod contact;
mod databases;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod inspect;
mod install;
mod machine;
mod members;
mod metrics;
mod node;
mod peer_http;
mod pipeline;
mod routes;
mod ship;
mod transport;

pub use cell::{Environment, Primary, PrimaryError};
pub use config::{
    COMMITTED_BYTES_MAX, HEARTBEAT, IDLE_WAIT, INLINE_STEPS_MAX, Join, OPEN_MAX,
    PERSIST_EVERY_BYTES, PrimaryConfig, RECENT_BYTES_MAX, Voter, WRITES_IN_FLIGHT_MAX,
};
pub use consensus::{Flush, SlowDisk};
pub use databases::DatabasesError;
pub use inspect::{VoterFiles, inspect, inspect_requests};
pub use members::MembersError;
pub use routes::STREAM_PATH;
pub use transport::RAFT_PATH;
