//! The HTTP face over real sockets, before a node that does what the test says.

#![allow(clippy::unwrap_used)]

mod binding;
mod console;
mod databases;
mod double;
mod envelopes;
mod forwarding;
mod limits;
mod openapi;
mod operations;
mod queries;
mod server;
mod serving;
mod tools;
mod transfer;
