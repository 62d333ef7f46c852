//! A regional read replica: follows the committed stream, waits for bookmarks, forwards writes.
//!
//! How it hangs together:
//!
//! * `follow` keeps one connection to the source and sorts what arrives into the inboxes of the
//!   databases;
//! * a `copy` is one database: its `applier` verifies and applies, publishes where it stands
//!   (`standing`) and repairs it by `resync` when it has diverged or is too old;
//! * `catalogue_reader` keeps the list of databases in memory as the catalogue's copy moves;
//! * `read` answers requests: it waits for bookmarks (`wait` decides) and hands on what belongs to
//!   the primary.
//!
//! ```text
//! confirmed <= published <= received <= committed        (per database)
//! ```
//!
//! Invariants that are absences: nothing is visible to readers before its checksum was verified; nothing
//! of an older term than the newest seen is applied, restarts included; no session is answered with less
//! than its bookmark; a damaged copy is never read.

mod applier;
mod audit;
mod backoff;
mod catalogue_reader;
mod config;
mod copy;
mod core;
mod export;
mod follow;
mod inlet;
mod lost;
mod metrics;
mod node;
mod old_pages;
mod outbox;
mod progress;
mod read;
mod replica;
mod resync;
mod site;
mod soundings;
mod sources;
mod standing;
mod term_file;
mod upstream;
mod wait;

pub use config::{
    AUDIT_EVERY, AUDIT_RATE, BACKOFF_MAX, BACKOFF_MIN, CONNECT_WAIT, Environment, IDLE_WAIT,
    INLINE_STEPS_MAX, OPEN_MAX, QUEUE_BYTES_MAX, RESYNCS_MAX, ReplicaConfig, SILENCE_SLACK,
};
pub use replica::{Replica, StartError};
pub use term_file::inspect;
pub use upstream::{Upstream, UpstreamError};
