//! The harness of the end-to-end tests: clusters of real processes on loopback, joined by relays that
//! can be slowed and cut, and plain HTTP to speak to them.
//!
//! 1. [`Cluster::start`] makes data directories, starts the primary, a [relay](tidemark_deploy::Relay)
//!    and a replica per region, and waits until all are ready.
//! 2. The test speaks HTTP ([`Api`]) or uses the Rust client, kills, restarts, cuts, heals.
//! 3. On a panic each node's log is printed; dropping a cluster kills its processes.
//!
//! Every wait has a deadline ([`wait`]), every choice a [seed](Seed).

mod agreement;
mod api;
mod cell;
mod cluster;
mod line;
mod node;
mod port;
mod seed;
pub mod wait;

pub use api::{Api, Query, Reply};
pub use cell::Cell;
pub use cluster::{Cluster, Place};
pub use line::Line;
pub use node::{Node, flip_bit, signal};
pub use port::free_ports;
pub use seed::Seed;
