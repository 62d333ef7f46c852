//! A script that makes every call of a client library, before a cell.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidemark_tests::{Cell, wait};

use super::program;
use crate::PROGRAM;

/// Longest that a script may take, on a busy machine.
const SCRIPT_WAIT: Duration = Duration::from_secs(120);

/// One of the scripts beside these tests.
pub(super) fn script(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/d1/sdk");
    here.join(name)
}

/// Runs a script at a voter that does not lead, by the settings that the libraries read.
pub(super) async fn works(command: &mut Command) {
    let cell = Cell::start(PROGRAM).await;
    let follower = (cell.leader().await + 1) % cell.voters.len();
    let api = format!("{}/client/v4", cell.voters[follower].url());
    command
        .env("CLOUDFLARE_BASE_URL", api)
        .env("CLOUDFLARE_API_TOKEN", "any");
    let ran = program::run(command, SCRIPT_WAIT).await;
    let ran = ran.expect("run the script");
    assert!(ran.success(), "{}\n{}", ran.out, ran.err);
    assert!(ran.out.ends_with("every call was made\n"), "{}", ran.out);
    cell.verified(wait::SOON).await;
}
