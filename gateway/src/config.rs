//! What the operator may set, and what the process hands in.

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tidemark_net::Connector;
use tidemark_protocol::d1::QueryBounds;
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::node::Role;
use tidemark_protocol::{NodeId, Region};

use crate::metrics::Metrics;
use crate::transfer::Spool;

/// Who this node is, for `tidemark-served-by` and `tidemark-forwarded-by`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its identifier.
    pub node: NodeId,
    /// Its region.
    pub region: Region,
    /// Its part.
    pub role: Role,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Primary => "primary",
            Role::Replica => "replica",
        };
        write!(f, "{}/{role}/{}", self.region, self.node)
    }
}

/// Bounds on what one request, and all of them together, may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one request's body. 32 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are being held. Over it: 429. 512 MiB.
    pub bodies_bytes_max: usize,
    /// Requests at a time, forwarded ones included. Over it: 429. 4096.
    pub requests_max: usize,
    /// Bounds within one query.
    pub query: QueryBounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 512 << 20,
            requests_max: 4096,
            query: QueryBounds::default(),
        }
    }
}

/// Configuration of the HTTP face.
#[derive(Clone)]
pub struct GatewayConfig {
    /// Who this node is.
    pub identity: Identity,
    /// Bearer tokens, any of which opens the API. None: everybody may do everything, which whoever
    /// binds the listener must allow on loopback addresses alone.
    pub tokens: Vec<String>,
    /// Base URLs by which other nodes know this one. Without tokens, what reads must come to one of their hosts
    /// or to a loopback address: another name may have been made to lead here by anybody.
    pub urls: Vec<String>,
    /// Bounds.
    pub limits: Limits,
    /// Where files lie that are imported and exported. None: neither can be done.
    pub spool: Option<Arc<Spool>>,
}

impl GatewayConfig {
    /// No tokens, no names, default bounds.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            tokens: Vec::new(),
            urls: Vec::new(),
            limits: Limits::default(),
            spool: None,
        }
    }
}

impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            identity,
            tokens,
            urls,
            limits,
            spool,
        } = self;
        f.debug_struct("GatewayConfig")
            .field("identity", identity)
            .field("tokens", &format_args!("{} secrets", tokens.len()))
            .field("urls", urls)
            .field("limits", limits)
            .field("spool", spool)
            .finish()
    }
}

/// What the HTTP face takes from the process around it.
#[derive(Clone)]
pub struct Handles {
    /// Names requests that are passed on without one.
    pub random: Arc<dyn Random>,
    /// Tells in which hour a request ran, for statistics.
    pub clock: Arc<dyn Clock>,
    /// Reaches the node that leads.
    pub connector: Arc<dyn Connector>,
    /// This face's own metrics, registered in `registry`.
    pub metrics: Metrics,
    /// All metrics of the process, for `/metrics`.
    pub registry: Arc<Registry>,
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handles(..)")
    }
}
