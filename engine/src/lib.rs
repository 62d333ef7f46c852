//! libSQL behind a safe interface: overlay WAL, owner, readers, injection, checksums, limits.
//!
//! One database is a directory with three files (`main.db`, `main.db-wal`, `positions`), opened by
//! [`Database::open`] into
//!
//! * an [`Owner`], the one place where writes, injections and checkpoints happen. Transactions it
//!   executed stay in memory until [`Owner::acknowledge`], so no reader ever sees a write that may still
//!   be lost;
//! * a [`Database`], shared by everyone who reads. Every read tells the exact [`Position`] of its
//!   snapshot.
//!
//! ```text
//! durable <= position <= tip        (per database; equal but for what is under way)
//! ```
//!
//! The crate is synchronous: SQL runs on threads given through [`Threads`], and [`Strand`] turns an
//! owner into an actor on them. No libSQL type leaves this crate, and `unsafe` does not leave `ffi`.

mod authorizer;
mod blank;
mod caches;
mod control;
mod database;
mod error;
mod export;
mod ffi;
mod files;
mod genesis;
mod hash;
mod idle;
mod inspect;
mod journal;
mod options;
mod overlay;
mod owner;
mod probe;
mod readers;
mod rebuild;
mod registry;
mod settled;
mod shared;
mod snapshot;
mod sql;
mod strand;
mod threads;
mod verify;
mod window;

pub use caches::{CacheFigures, cache_figures};
pub use control::{Control, Stamp};
pub use database::{Database, Opened};
pub use error::{
    ApplyError, EngineError, ExecuteError, ExportError, OpenError, ReadError, RebuildError,
    SqlError,
};
pub use files::{is_marked, mark_damaged};
pub use genesis::position as genesis_position;
pub use hash::page_hash;
pub use idle::{IdleRule, open_files};
pub use inspect::{Depth, Finding, Inspection, Severity, inspect};
pub use options::{Limits, Options, SMALL_BYTES_MAX};
pub use owner::{CheckpointMode, CheckpointReport, Owner};
pub use rebuild::{Prepared, Rebuild};
pub use registry::is_open;
pub use settled::claimed_position;
pub use snapshot::Snapshot;
pub use strand::{PostError, Strand};
pub use threads::{Threads, on_thread, wait_on};
pub use verify::{VERIFY_RATE, VERIFY_WAIT, VerifyError};

#[doc(no_inline)]
pub use tidemark_protocol::Position;
