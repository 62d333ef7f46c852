//! D1's own tools and Workers, from npm, before a cluster.

mod npm;
mod worker;
mod wrangler;
