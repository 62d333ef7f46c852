//! PyPI's `cloudflare`, Cloudflare's own client for Python: every call for D1 works at a voter that does not lead.

use std::process::Command;

use super::python;
use super::sdk::{self, script};

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_python_sdk_works() {
    let Some(python) = python::with("d1/requirements.txt").await else {
        return;
    };
    let mut command = Command::new(python);
    command.arg(script("every_call.py"));
    sdk::works(&mut command).await;
}
