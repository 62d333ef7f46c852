//! What every decoder of bytes from outside is held to, whoever makes the bytes up.
//!
//! [`TARGETS`] takes any bytes each, and panics when a decoder panics, when it takes memory out of proportion
//! ([`memory`]), or when what it read is written as something else. libFuzzer drives them through the programs in
//! `targets/`, see `fuzz/run`; the tests of this crate, through the files in
//! `seeds/` (what encoders write) and `regressions/` (what once went wrong).
//!
//! What carries a checksum is tried as it came and with the checksum made right ([`sealed`]): else nothing would
//! ever get behind it.

pub mod bodies;
pub mod config;
pub mod database;
mod engine;
pub mod files;
pub mod graphql;
pub mod http;
pub mod memory;
pub mod raft;
pub mod script;
pub mod sealed;
mod seeds;
pub mod stream;
pub mod text;

pub use seeds::seeds;

/// Takes any bytes. Panics at a finding.
pub type Check = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Check); 10] = [
    ("text", text::check),
    ("stream", stream::check),
    ("raft", raft::check),
    ("files", files::check),
    ("bodies", bodies::check),
    ("graphql", graphql::check),
    ("config", config::check),
    ("script", script::check),
    ("database", database::check),
    ("http", http::check),
];

#[cfg(test)]
mod tests;
