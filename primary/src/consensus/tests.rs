//! What is at stake: an acknowledged write is in the log of this node, in order, after any crash; and a
//! refused one is in nobody's. One file per subject; `harness` and `wires` are what they share.

#![allow(clippy::unwrap_used)]

mod alone;
mod appending;
mod harness;
mod log;
mod members;
mod parts;
mod snapshot;
mod terms;
mod voters;
mod wires;

pub(super) use harness::transaction;
pub(crate) use harness::{close_fence, depose, wait_until};
