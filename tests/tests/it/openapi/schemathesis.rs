//! Requests that schemathesis makes up from the description, good ones and bad ones: no answer to any of them is
//! a 5xx, or has a status, a header, a type or a body that is not described, and what the description forbids is
//! refused.

use std::process::Command;
use std::time::Duration;

use tidemark_tests::{Cluster, Node, Place, Seed};

use crate::PROGRAM;
use crate::d1::{program, python};

/// Seed of the run that is the same every time.
const FIXED_SEED: u64 = 1;
/// Requests of the random kind, for each operation.
const EXAMPLES: u32 = 40;
/// Longest that a run may take, on a busy machine.
const RUN_WAIT: Duration = Duration::from_secs(300);

/// Not these: that good data is accepted, since most SQL is none; and that tokens and headers are missed, since
/// these nodes have no tokens and a request may name its database in either of two ways.
const CHECKS_LEFT_OUT: &str = "positive_data_acceptance,missing_required_header,ignored_auth";

/// What the node may refuse bad data with: before it looks at that it may find something else amiss.
const CONFIG: &str = r#"
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "412", "413", "424", "429", "503"]
"#;
/// Keeps the requests to one database that there is.
const ONE_DATABASE: &str = r#"
[parameters]
"path.database" = "shop"
"header.x-d1-database-id" = "shop"
"#;

async fn search(node: &Node, seed: u64, config: &str, more: &[&str]) {
    let Some(python) = python::with("openapi/requirements.txt").await else {
        return;
    };
    // For people who look at a failure: it is the same again with this seed.
    eprintln!("schemathesis: seed {seed}");
    let directory = tempfile::tempdir().expect("make a temporary directory");
    let file = directory.path().join("config.toml");
    std::fs::write(&file, config).expect("write the configuration");
    let mut command = Command::new(python);
    command
        .current_dir(directory.path())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&file)
        .args(["run", &format!("{}/tidemark/v1/openapi.json", node.url())])
        .args(["--checks", "all", "--exclude-checks", CHECKS_LEFT_OUT])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", &EXAMPLES.to_string()])
        .args(["--seed", &seed.to_string()])
        // One thread: Python before 3.12 cannot parse in two at a time.
        .args(["--workers", "1", "--continue-on-failure", "--no-color"])
        .args(["--generation-with-security-parameters", "false"])
        .args(["--generation-database", "none"])
        .args(more);
    let ran = program::run(&mut command, RUN_WAIT).await;
    let ran = ran.expect("run schemathesis");
    assert!(ran.success(), "seed {seed}:\n{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains("passed"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_a_fault_or_undescribed() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("APAC")]).await;
    cluster.primary.api().create("shop").await;
    search(&cluster.primary, FIXED_SEED, CONFIG, &[]).await;
    assert_lives(&cluster).await;
}

/// At a replica, which answers and passes on, and on a database that stays.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_replica_is_a_fault_or_undescribed() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("APAC")]).await;
    cluster.primary.api().create("shop").await;
    // The tool knows 32 bits.
    let seed = u64::from(Seed::of("schemathesis").stream(0).u32(..));
    let config = format!("{CONFIG}{ONE_DATABASE}");
    // A replica has no cell.
    let left_out = [
        "--exclude-operation-id",
        "deleteDatabase",
        "--exclude-path-regex",
        "^/tidemark/v1/cell",
    ];
    search(&cluster.replicas[0], seed, &config, &left_out).await;
    assert_lives(&cluster).await;
}

async fn assert_lives(cluster: &Cluster) {
    for node in cluster.nodes() {
        let ready = node.api().get("/ready").await.expect("the node answers");
        assert_eq!(ready.status, 200, "{}: {}", node.name(), ready.text);
    }
}
