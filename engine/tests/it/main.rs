//! The engine through its public interface, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation
)]

mod basics;
mod caches;
mod catalogue;
mod crash;
mod dump;
mod functions;
mod inspect;
mod migrations;
mod mix;
mod reads;
mod rebuild;
mod rules;
mod scripts;
mod strands;
mod support;
