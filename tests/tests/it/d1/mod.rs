//! D1's own tools, clients and Workers, from npm and PyPI, before a cluster.

mod exec;
mod npm;
mod oracle;
pub(crate) mod program;
pub(crate) mod python;
mod sdk;
mod sdk_python;
mod sdk_typescript;
pub(crate) mod tools;
mod worker;
mod wrangler;
