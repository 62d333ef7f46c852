//! `exec()` of a Worker whose database is a node: it says which line failed, which D1's own does not.

use reqwest::Method;
use serde_json::{Value, json};
use tidemark_tests::{Cluster, free_ports};

use super::npm;
use super::worker::{WORKERD, Worker};
use crate::PROGRAM;

const WORKER: &str = r#"
export default {
  async fetch(request, env) {
    try {
      return Response.json(await env.DB.exec(await request.text()));
    } catch (error) {
      return Response.json({ error: error.message });
    }
  },
};
"#;
const CONFIG: &str = r#"
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "worker", worker = (
      modules = [(name = "worker.js", esModule = embed "worker.js")],
      compatibilityDate = "2026-11-01",
      bindings = [(name = "DB", wrapped = (
        moduleName = "cloudflare-internal:d1-api",
        innerBindings = [(name = "fetcher", service = "tidemark")],
      ))],
    )),
    (name = "tidemark", external = (address = "127.0.0.1:8787", http = (
      injectRequestHeaders = [(name = "x-d1-database-id", value = "lines")],
    ))),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "worker")],
);
"#;

#[tokio::test(flavor = "multi_thread")]
async fn exec_names_the_line_that_failed_and_undoes_those_before() {
    let Some(workerd) = npm::workerd(WORKERD).await else {
        return;
    };
    let cluster = Cluster::start(PROGRAM, &[]).await;
    cluster.primary.api().create("lines").await;
    let directory = tempfile::tempdir().expect("make a temporary directory");
    let home = directory.path();
    std::fs::write(home.join("worker.js"), WORKER).expect("write the Worker");
    std::fs::write(home.join("config.capnp"), CONFIG).expect("write the configuration");
    let port = free_ports(1);
    let arguments = [
        "config.capnp".to_owned(),
        format!("--external-addr=tidemark={}", cluster.primary.address()),
        format!("--socket-addr=http=127.0.0.1:{port}"),
    ];
    let worker = Worker::start(&workerd, home, port, &arguments).await;
    let exec = async |text: &'static str| -> Value {
        let reply = worker.api.send(Method::POST, "/", &[], text).await;
        reply.expect("the Worker answers").json
    };

    let made = exec("CREATE TABLE t (a UNIQUE)\n-- a comment\nINSERT INTO t VALUES (1)").await;
    assert_eq!(made["count"], 2, "{made}");
    assert!(made["duration"].is_number(), "{made}");
    let failed = exec("INSERT INTO t VALUES (2)\n\nINSERT INTO t VALUES (1)\nSELECT 1").await;
    let unique =
        "UNIQUE constraint failed: t.a: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)";
    let error = format!("D1_EXEC_ERROR: Error in line 3: INSERT INTO t VALUES (1): {unique}");
    assert_eq!(failed, json!({ "error": error }));
    let failed = exec("SELEC").await;
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(
        error.starts_with("D1_EXEC_ERROR: Error in line 1: SELEC: near"),
        "{error}"
    );
    let rows = cluster
        .primary
        .api()
        .query("lines", "SELECT a FROM t")
        .ok()
        .await;
    assert_eq!(rows.rows(), &[json!({ "a": 1 })]);
}
