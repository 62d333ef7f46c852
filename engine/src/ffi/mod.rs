//! Everything unsafe: SQLite's C interface, wrapped thinly in safe types.
//!
//! Three layers meet here. `libsql_ffi` holds the generated bindings; this module gives them safe
//! methods and nothing else; the logic (overlay, probe, owner, pool) lives outside and knows no pointer.
//!
//! Rules that hold for the whole module:
//!
//! * a connection is opened without a mutex of its own and used by one thread at a time, which `&mut`
//!   and the ownership of [`Connection`] guarantee;
//! * no panic crosses into C: every callback catches it and answers with an error code;
//! * `sqlite3_initialize` runs before anything else, because libSQL's `libsql_open_v3` allocates before
//!   it initialises and would crash as the first call of a process.
#![allow(unsafe_code)]

mod check;
mod code;
mod connection;
mod inner_wal;
mod math;
mod statement;
mod text;
mod virtual_wal;

pub(crate) use check::check;
pub(crate) use code::Code;
pub(crate) use connection::{Connection, Setup, Stopped, open_connections};
pub(crate) use inner_wal::{InnerWal, WalKey};
pub(crate) use statement::{Prepared, Step};
pub(crate) use text::tail;
pub(crate) use virtual_wal::{CheckpointCall, PageList, VirtualWal};
