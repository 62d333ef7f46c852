//! The HTTP face of a Tidemark node, the same on both roles: D1's REST API and Tidemark's own
//! additions, over any [`tidemark_protocol::Node`].
//!
//! The way of a query:
//!
//! 1. [`serve()`] accepts the connection; [`Dispatch`] finds the handler.
//! 2. `gateway` counts the request, asks `auth` whether it may come in and `limits` for a place, and turns
//!    whatever goes wrong, a panic included, into an envelope.
//! 3. `ask` reads the headers, `limits` the body, `tidemark_protocol::d1` the statements.
//! 4. `query` hands them to the node, or `forward` passes the request on as it came.
//! 5. `envelope` puts D1's envelope around the node's bytes; `binding` sends a Worker's D1 binding the bare
//!    bytes.
//!
//! Import and export have a way of their own, in `transfer`.
//!
//! Invariants:
//! - Every answer under `/client/` and `/tidemark/v1/` of this crate's own is an envelope, whatever went
//!   wrong, and so is that of a path or method that is not there. Not envelopes: what a Worker's binding
//!   gets; a file that was exported; `/health`, `/metrics` and a `/ready` that is; what the HTTP library itself answers to bytes that are no HTTP request;
//!   what another node answered to a request that was passed on; and the paths of merged routers.
//! - A 5xx says that nothing happened: D1's clients repeat it blindly. Once a write was handed to the
//!   node or sent to another, only the node's own answer may claim so; without one it is
//!   [`tidemark_protocol::FailureKind::Unknown`].
//! - A request is passed on at most once.
//! - Nothing here knows which role the node has.

mod accounts;
mod analytics;
mod ask;
mod auth;
mod binding;
mod cluster;
mod config;
mod console;
mod databases;
mod dispatch;
mod envelope;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gateway;
mod guard;
mod handover;
mod limits;
mod metrics;
mod openapi;
mod operations;
mod query;
mod router;
mod serve;
mod statistics;
mod time_travel;
mod trace;
mod transfer;

pub use config::{GatewayConfig, Handles, Identity, Limits};
pub use dispatch::Dispatch;
pub use metrics::Metrics;
pub use openapi::DESCRIPTION;
pub use router::{router, routes};
pub use serve::{ServeConfig, serve};
pub use transfer::{Spool, SpoolConfig};
