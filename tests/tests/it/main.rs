//! End-to-end tests: what a user of a Tidemark cluster may rely on, seen from outside its processes.

mod audit;
mod bad_input;
mod catch_up;
mod chinook;
mod console;
mod containers;
mod contracts;
mod d1;
mod dev;
mod disk;
mod examples;
mod failover;
mod faults;
mod first_steps;
mod jurisdictions;
mod kill;
mod large;
mod members;
mod migrations;
mod nearest;
mod openapi;
mod operator;
mod read_replication;
mod same_files;
mod sessions;
mod soak;
mod sql;
mod sqlite3;
mod tracing;
mod transfer;
mod verify;

/// The `tidemark` program as cargo built it for these tests.
const PROGRAM: &str = env!("CARGO_BIN_EXE_tidemark-node");
