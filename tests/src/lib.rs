//! The harness of the end-to-end tests: clusters of real processes on loopback, joined by relays that
//! can be slowed and cut, and plain HTTP to speak to them.
//!
//! 1. [`Cluster::start`] makes data directories, starts the primary, a [relay](tidemark_deploy::Relay)
//!    and a replica per region, and waits until all are ready.
//! 2. The test speaks HTTP ([`Api`]) or uses the Rust client, kills, restarts, cuts, heals.
//! 3. On a panic each node's log is printed; dropping a cluster kills its processes.
//!
//! A [`Cell`] is the same with several voters and, if wanted, relays between them ([`Ways`]). A [`Workload`]
//! writes and reads there and keeps a [`history`] of what it was told, which is judged in the end. So do
//! [`Sessions`], on a cluster whose replicas lag behind ([`Lagging`]).
//!
//! [`soak`] is all of it for hours.
//!
//! Every wait has a deadline ([`wait`]), every choice a [seed](Seed).

mod agreement;
mod api;
mod blow;
mod cell;
mod clocks;
mod cluster;
mod description;
mod disk;
mod growing;
pub use tidemark_checker as history;
mod lagging;
mod line;
mod meddler;
mod node;
mod points;
mod port;
mod seed;
mod sessions;
pub mod soak;
pub mod wait;
mod ways;
mod workload;

pub use api::{Api, Query, Reply, figure};
pub use blow::Blow;
pub use cell::{Cell, Layout};
pub use clocks::Clocks;
pub use cluster::{Cluster, Place};
pub use description::{Description, Operation};
pub use disk::{Call, Errno, Faults, Lost, PoweredCell, SmallDiskCell};
pub use growing::Growing;
pub use lagging::{Lagging, Way};
pub use line::Line;
pub use meddler::{Meddled, Meddler};
pub use node::{Node, Running, flip_bit, signal};
pub use points::{Point, listen};
pub use port::free_ports;
pub use seed::Seed;
pub use sessions::{Findings, Sessions};
pub use ways::Ways;
pub use workload::{Carried, Epoch, Load, Workload};
