//! The `tidemark` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemark_cli::main()
}
