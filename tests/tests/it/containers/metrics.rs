//! What the nodes show of themselves, as Prometheus takes it: the real one, where it is installed.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidemark_tests::{Api, free_ports, wait};

use super::cluster::{Cluster, Service};
use crate::d1::tools::skipped;
use crate::operator::{queries, text};

/// Time for Prometheus to start and to have looked at every node twice, for rates.
const SCRAPE_WAIT: Duration = Duration::from_secs(60);

/// Has Prometheus watch the cluster with the configuration that operators get; every node must be understood,
/// every rule evaluated, every query of the dashboard answered.
pub(crate) async fn check(cluster: &Cluster<'_>) {
    let Some(prometheus) = Prometheus::start(cluster) else {
        return;
    };
    let nodes = Service::NODES.len();
    wait::until("all nodes are scraped", SCRAPE_WAIT, async || {
        let up = prometheus.ask("sum(up)").await?;
        let twice = prometheus.ask("min(count_over_time(up[1h]))").await?;
        (number(&up) == Some(nodes as f64) && number(&twice) >= Some(2.0)).then_some(())
    })
    .await;
    for query in queries::all() {
        let answer = prometheus.ask(&query.text).await;
        assert!(answer.is_some(), "{}: {} is refused", query.of, query.text);
    }
    // One leader, five replicas that it sees, in their own regions.
    for (query, expected) in [
        ("sum(tidemark_log_leading)", 1.0),
        (
            "count(count by (region) (tidemark_primary_replica_confirm_lag_seconds))",
            5.0,
        ),
        ("count(tidemark_node_info{role=\"replica\"})", 5.0),
        (
            "sum(tidemark_replica_forwards_total{region=\"OC\",reason=\"write\"}) > bool 0",
            1.0,
        ),
    ] {
        let answer = prometheus.ask(query).await;
        assert_eq!(
            answer.as_ref().and_then(number),
            Some(expected),
            "{query}: {answer:?}"
        );
    }
    let rules = prometheus
        .get("/api/v1/rules")
        .await
        .expect("Prometheus answers");
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    let mut count = 0;
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        count += 1;
    }
    assert_eq!(count, queries::alerts().len());
}

/// The value of an answer that is one number.
fn number(answer: &Value) -> Option<f64> {
    answer["result"][0]["value"][1].as_str()?.parse().ok()
}

struct Prometheus {
    api: Api,
    process: Child,
    // Last: the files go when the process has.
    _directory: TempDir,
}

impl Prometheus {
    fn start(cluster: &Cluster<'_>) -> Option<Self> {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let mut config = text("prometheus/prometheus.yml").replace("5s", "1s");
        for service in Service::NODES {
            let shipped = format!("127.0.0.1:878{}", service as u8);
            let here = cluster.url(service).replace("http://", "");
            assert!(config.contains(&shipped), "{shipped} is not watched");
            config = config.replace(&shipped, &here);
        }
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("write a temporary file");
        };
        write("prometheus.yml", &config);
        write("alerts.yml", &text("prometheus/alerts.yml"));
        let address = format!("127.0.0.1:{}", free_ports(1));
        let log = File::create(directory.path().join("log")).expect("make a log");
        let process = Command::new("prometheus")
            .arg("--config.file")
            .arg(directory.path().join("prometheus.yml"))
            .arg("--storage.tsdb.path")
            .arg(directory.path().join("data"))
            .args(["--web.listen-address", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        match process {
            Ok(process) => Some(Self {
                api: Api::new(&format!("http://{address}")),
                process,
                _directory: directory,
            }),
            Err(error) => {
                skipped(&format!("Prometheus cannot be started: {error}"));
                None
            }
        }
    }

    /// The data of an answer. None while there is none, or if the question is refused.
    async fn get(&self, path: &str) -> Option<Value> {
        let reply = self.api.get(path).await.ok()?;
        (reply.json["status"] == "success").then(|| reply.json["data"].clone())
    }

    async fn ask(&self, query: &str) -> Option<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={escaped}")).await
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
