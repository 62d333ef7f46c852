//! Shipping: committed transactions on their way to the replicas.
//!
//! One WebSocket per replica, all databases multiplexed. Nothing is queued per replica: a commit only
//! marks its database as having news ([`Followers::committed`]), and each [`session`] pulls what follows
//! the position it sent last, as fast as its connection takes it. A slow replica therefore costs no
//! memory; one that is too far behind gets the pages that differ.
//!
//! Sources, in order: [`recent`] transactions in memory, [`image`] by page hashes.

pub(crate) mod followers;
pub(crate) mod image;
pub(crate) mod listed;
pub(crate) mod recent;
mod sender;
pub(crate) mod session;

pub(crate) use followers::Followers;
