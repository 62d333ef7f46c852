//! npm's `cloudflare`, Cloudflare's own client for TypeScript and JavaScript: every call for D1 works at a voter
//! that does not lead.

use std::process::Command;

use super::npm;
use super::sdk::{self, script};

const SDK: &str = "7.3.0";

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_typescript_sdk_works() {
    let (Some(node), Some(package)) = (npm::node().await, npm::package("cloudflare", SDK).await)
    else {
        return;
    };
    let mut command = Command::new(node);
    command.arg(script("every_call.mjs")).arg(package);
    sdk::works(&mut command).await;
}
