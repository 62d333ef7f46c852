//! The `tidemark` program under a name of the test crate's own, so that cargo builds it for the tests
//! and tells them where it is. As the tests build it, it dies or errs at named points if told to.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemark_tests::listen();
    tidemark_cli::main()
}
