//! The log on standard error, and whoever should read it and does not.

use std::process::{Child, Command, Stdio};

use tidemark_tests::{Api, free_ports, signal, wait};

use crate::PROGRAM;

/// A process that is killed if the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended by itself unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_whose_log_nobody_reads_goes_on_and_counts_what_it_drops() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = format!("127.0.0.1:{}", free_ports(1));
    let process = Command::new(PROGRAM)
        .args(["primary", "--region", "ENAM", "--listen", &address])
        .args(["--cluster-secret", "secret-of-the-test", "--log", "trace"])
        .arg("--data")
        .arg(directory.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // A pipe takes 64 KiB, and then whoever writes waits.
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a node");
    let mut node = Killed(process);
    let api = Api::new(&format!("http://{address}"));
    wait::soon("the node is ready", async || {
        (api.get("/ready").await.ok()?.status == 200).then_some(())
    })
    .await;
    api.create("app").await;
    api.query("app", "CREATE TABLE t (n)").ok().await;
    let mut written = 0;
    wait::soon("lines are dropped", async || {
        for _ in 0..20 {
            api.query("app", "INSERT INTO t VALUES (1)").ok().await;
            written += 1;
        }
        let dropped = api.metric("tidemark_dropped_log_lines_total").await;
        (dropped.expect("metrics")? > 0.0).then_some(())
    })
    .await;
    let counted = api.query("app", "SELECT count(*) AS n FROM t").ok().await;
    assert_eq!(counted.rows()[0]["n"], written);
    signal(node.0.id(), "TERM");
    let ended = wait::soon("the node stops", async || {
        node.0.try_wait().expect("look at a process")
    })
    .await;
    assert!(ended.success(), "{ended}");
}
