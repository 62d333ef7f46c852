//! Voters in process, on real files and sockets: what they promise through the `Node` trait.
#![allow(clippy::unwrap_used)]

mod availability;
mod catalogue;
mod cell;
mod deletion;
mod harness;
mod idle;
mod install;
mod large;
mod repair;
mod requests;
mod stream;
mod voters;
mod writes;
