//! D1's own tools and Workers, from npm, before a cluster.

mod npm;
pub(crate) mod program;
mod worker;
mod wrangler;
