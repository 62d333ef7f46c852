//! A cell, its replicas and their clients in one process, over a simulated network, clock and disk.
//!
//! Every node is the product's own code, from its gateway to its files; what it takes from the world comes from a
//! seed: connections and their delays ([turmoil]), time, randomness, when a flush is done, when a job gets a
//! thread. Faults and clients are drawn from the same seed. One thing happens at a time, so a seed replays.
//!
//! 1. [`run`] draws a [`Layout`] and a [`Tuning`] and starts the nodes, each on a host with a clock of its own.
//! 2. Clients work and take notes, while faults come and go.
//! 3. After each step of the simulation what nodes say of themselves must be possible (`watch`).
//! 4. All faults are undone, and the cluster has to make progress within a minute.
//! 5. All nodes must agree, and the record is judged by `tidemark-checker`.
//!
//! The program `tidemark-sim` runs one seed after another, each in a process of its own: hash maps and the runtime
//! draw from the process, which the seed governs from its start.

mod clients;
mod faults;
mod layout;
mod node;
mod run;
mod watch;
mod world;

pub use layout::{Layout, Tuning};
pub use run::{Options, Outcome, run};
