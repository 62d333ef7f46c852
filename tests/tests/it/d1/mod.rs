//! D1's own tools and Workers, from npm, before a cluster.

mod npm;
mod program;
mod worker;
mod wrangler;
