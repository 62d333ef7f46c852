//! The `tidemark` program.

use std::process::ExitCode;

/// SQLite's too. What databases free that are closed goes back to the system within seconds, by a thread of
/// the allocator's own; glibc's keeps it.
///
/// Of this program, and not of the library: the nodes that tests start have glibc's, since libfiu, which tests put
/// before the C library, and this allocator wait for each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidemark_cli::main()
}
