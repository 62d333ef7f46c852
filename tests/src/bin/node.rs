//! The `tidemark` program under a name of the test crate's own, so that cargo builds it for the tests
//! and tells them where it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemark_cli::main()
}
