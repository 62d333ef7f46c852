//! A voter of a cell of one, in process, on real files: what it promises through the `Node` trait.
#![allow(clippy::unwrap_used)]

mod harness;
mod requests;
mod writes;
