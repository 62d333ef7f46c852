//! A replica against a scripted source: a real WebSocket server on loopback whose transactions come
//! from real databases.
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations)]

mod contracts;
mod faults;
mod finding;
mod following;
mod reading;
mod relisting;
mod repairing;
mod source;
mod world;
