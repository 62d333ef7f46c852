//! Workers in workerd, whose D1 binding is a Tidemark node: the configuration that `deploy/workerd` shows.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tidemark_tests::{Api, Cluster, Place, Reply, free_ports, wait};

use super::npm;
use super::program::Group;
use crate::PROGRAM;

pub(super) const WORKERD: &str = "1.20261117.1";
/// The database that the configuration names.
const DATABASE: &str = "sample";

/// A running workerd.
pub(super) struct Worker {
    process: Group,
    log: PathBuf,
    pub(super) api: Api,
}

impl Worker {
    /// Serves the configuration `arguments` name, with logs and whatever it keeps in `directory`.
    pub(super) async fn start(
        program: &Path,
        directory: &Path,
        port: u16,
        arguments: &[String],
    ) -> Self {
        let log = directory.join(format!("log-{port}"));
        let output = File::create(&log).expect("make workerd's log");
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(arguments)
            .current_dir(directory)
            .stdout(output.try_clone().expect("a second handle of the log"))
            .stderr(output);
        let process = Group::start(&mut command).expect("start workerd");
        let api = Api::new(&format!("http://127.0.0.1:{port}"));
        let mut worker = Self { process, log, api };
        wait::soon("workerd listens", async || {
            if let Some(status) = worker.process.ended() {
                panic!("workerd ended with {status}");
            }
            let address = format!("127.0.0.1:{port}");
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        worker
    }

    /// Serves `config` with its database at `node`, a host and port.
    async fn before(program: &Path, directory: &Path, config: &Path, node: &str) -> Self {
        let port = free_ports(1);
        let arguments = [
            config.display().to_string(),
            format!("--external-addr=tidemark={node}"),
            format!("--socket-addr=http=127.0.0.1:{port}"),
        ];
        Self::start(program, directory, port, &arguments).await
    }

    async fn ask(&self, method: Method, cookie: Option<&str>, body: &Value) -> Reply {
        let headers: Vec<_> = cookie
            .map(|cookie| ("cookie", cookie))
            .into_iter()
            .collect();
        let body = if method == Method::GET {
            String::new()
        } else {
            body.to_string()
        };
        let reply = self.api.send(method, "/", &headers, body).await;
        let reply = reply.expect("the Worker answers");
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- log of workerd ---\n{log}\n---");
        }
    }
}

fn deployed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/workerd")
}

/// The documented Worker: what a visitor wrote in the primary's region they read in their own, with a
/// cookie elsewhere too.
#[tokio::test(flavor = "multi_thread")]
async fn worker_reads_its_own_writes_at_a_replica() {
    let Some(workerd) = npm::workerd(WORKERD).await else {
        return;
    };
    let places = [
        Place::at("APAC", Duration::from_millis(60)),
        Place::at("WEUR", Duration::from_millis(20)),
    ];
    let cluster = Cluster::start(PROGRAM, &places).await;
    cluster.primary.api().create(DATABASE).await;
    let schema = "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, joined TEXT)";
    cluster.primary.api().query(DATABASE, schema).ok().await;
    cluster.settled(wait::SOON).await;

    let directory = tempfile::tempdir().expect("make a temporary directory");
    let config = deployed().join("config.capnp");
    let mut workers = Vec::new();
    for replica in &cluster.replicas {
        let node = replica.address().to_string();
        workers.push(Worker::before(&workerd, directory.path(), &config, &node).await);
    }
    let [apac, weur] = &workers[..] else {
        panic!("two Workers")
    };
    let mut cookie: Option<String> = None;
    for n in 0..10 {
        let customer = json!({ "name": format!("visitor {n}"), "city": "Singapore" });
        let wrote = apac.ask(Method::POST, cookie.as_deref(), &customer).await;
        assert_eq!(wrote.json["written_in"], "ENAM", "{}", wrote.text);
        assert_eq!(wrote.json["read_in"], "APAC", "{}", wrote.text);
        assert_eq!(
            wrote.json["customers"][0], customer,
            "its own write is there"
        );
        let given = wrote.header("set-cookie").expect("a bookmark");
        let given = given.split(';').next().unwrap_or_default().to_owned();
        assert!(Some(&given) > cookie.as_ref(), "bookmarks grow as text");
        let read = weur.ask(Method::GET, Some(&given), &json!(null)).await;
        assert_eq!(read.json["read_in"], "WEUR", "{}", read.text);
        assert_eq!(read.json["customers"][0], customer, "and elsewhere");
        cookie = Some(given);
    }
    cluster.verified(wait::SOON).await;
}
