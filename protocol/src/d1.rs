//! D1's JSON, as its public REST API and a Worker's binding have it: what clients send and what they get.
//!
//! Rows and `meta` are written by [`crate::render`]; here is all that surrounds them. The types that
//! travel both ways serve client and server alike.

mod account;
mod binding;
mod database;
mod envelope;
mod query;
#[cfg(test)]
mod tests;

pub use account::{ACCOUNT, Account, Membership, TokenStatus, User};
pub use binding::{parse_binding, write_binding_failure, write_exec_failure};
pub use database::{
    CreateBody, Database, DatabaseSummary, EditBody, NAME_BYTES_MAX, ReadReplication,
    ReplicationMode, check_name,
};
pub use envelope::{
    ENVELOPE_HEAD, ENVELOPE_TAIL, Envelope, ErrorItem, Meta, ResultInfo, StatementResult, Timings,
    write_failure, write_success,
};
pub use query::{BadQuery, Place, QueryBounds, parse_query};
