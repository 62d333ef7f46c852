//! What an operator runs around Tidemark, as far as it is code: WAN emulation.
//!
//! [`Relay`] stands between two nodes on one machine and makes the way between them as long as one
//! between continents. `tidemark dev` puts one before the upstream of each replica, the end-to-end
//! tests cut and heal them. [`Wan`] is many of them as a service (`tidemark wan`), with the delays of
//! [`distance`] and an HTTP face to change them: what lies between the containers of
//! `docker-compose.yml`, in this folder like everything else that is no code.

mod damage;
pub mod distance;
mod link;
mod pipe;
mod relay;
mod target;
pub mod wan;

pub use link::{Direction, Link};
pub use relay::{Relay, Traffic};
pub use target::Target;
pub use wan::{Wan, WanConfig, WanError};
