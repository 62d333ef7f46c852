//! What an operator runs around Tidemark, as far as it is code: WAN emulation.
//!
//! [`Relay`] stands between two nodes on one machine and makes the way between them as long as one
//! between continents. `tidemark dev` puts one before the upstream of each replica, the end-to-end
//! tests cut and heal them. The annotated sample configuration `tidemark.toml` lies in this folder too.

mod link;
mod pipe;
mod relay;

pub use link::{Direction, Link};
pub use relay::{Relay, Traffic};
