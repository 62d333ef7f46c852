//! The nine services, by way of `deploy/up`, `deploy/compose` and `deploy/down`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidemark_client::Client;
use tidemark_tests::{Api, free_ports, wait};

use super::engine::Engine;
use crate::PROGRAM;
use crate::d1::program::Ran;

/// Longest that building the image, starting everything and getting healthy may take.
const UP_WAIT: Duration = Duration::from_secs(240);
/// Longest that any other command may take. Longer than `stop_grace_period`.
const COMMAND_WAIT: Duration = Duration::from_secs(90);
/// Lines of each container's log that a failed test prints.
const LOG_LINES_SHOWN: &str = "40";

/// A service of `docker-compose.yml`. Its number is the last digit of its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Service {
    Wan = 0,
    Enam1 = 1,
    Enam2 = 2,
    Enam3 = 3,
    Wnam = 4,
    Weur = 5,
    Eeur = 6,
    Apac = 7,
    Oc = 8,
}

impl Service {
    pub(crate) const VOTERS: [Self; 3] = [Self::Enam1, Self::Enam2, Self::Enam3];
    pub(crate) const NODES: [Self; 8] = [
        Self::Enam1,
        Self::Enam2,
        Self::Enam3,
        Self::Wnam,
        Self::Weur,
        Self::Eeur,
        Self::Apac,
        Self::Oc,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Enam1 => "enam-1",
            Self::Enam2 => "enam-2",
            Self::Enam3 => "enam-3",
            Self::Wnam => "wnam",
            Self::Weur => "weur",
            Self::Eeur => "eeur",
            Self::Apac => "apac",
            Self::Oc => "oc",
        }
    }
}

/// A cluster of its own: names, ports, secrets and image are no other test's.
pub(crate) struct Cluster<'e> {
    engine: &'e Engine,
    project: String,
    /// All digits of the ports but the last.
    ports: u16,
    directory: TempDir,
}

impl<'e> Cluster<'e> {
    /// Builds the image of the tests' program and brings all services up, healthy.
    pub(crate) async fn up(engine: &'e Engine) -> Self {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        // Ten in a row, from a multiple of ten.
        let ports = free_ports(19).div_ceil(10);
        let cluster = Self {
            engine,
            project: format!("tidemark-test-{ports}"),
            ports,
            directory,
        };
        let mut up = cluster.script("up");
        engine.run(up.arg(PROGRAM), UP_WAIT).await;
        cluster
    }

    /// A script of `deploy/`, told of this cluster.
    fn script(&self, name: &str) -> Command {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let mut command = self.engine.command(deploy.join(name));
        command
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("TIDEMARK_PORTS", self.ports.to_string())
            .env("TIDEMARK_SECRETS", self.secrets())
            .env("TIDEMARK_IMAGE", format!("{}:test", self.project));
        command
    }

    fn secrets(&self) -> PathBuf {
        self.directory.path().join("secrets")
    }

    /// The token that clients present.
    pub(crate) fn token(&self) -> String {
        let token = std::fs::read_to_string(self.secrets().join("token"));
        token.expect("deploy/up made a token")
    }

    /// Where a service is reached from here.
    pub(crate) fn url(&self, service: Service) -> String {
        format!("http://127.0.0.1:{}{}", self.ports, service as u8)
    }

    /// The client of a program near this node.
    pub(crate) fn client(&self, service: Service) -> Client {
        let builder = Client::builder(self.url(service)).token(self.token());
        builder
            .build()
            .expect("a client needs nothing of the system")
    }

    /// Plain HTTP.
    pub(crate) fn api(&self, service: Service) -> Api {
        Api::new(&self.url(service))
    }

    /// Changes the ways between regions.
    pub(crate) async fn wan(&self, method: &str, path: &str, body: Value) -> Value {
        let method = method.parse().expect("a method");
        let wan = self.api(Service::Wan);
        let reply = wan.send(method, path, &[], body.to_string()).await;
        let reply = reply.expect("the relays answer");
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json
    }

    /// The container of a service, whatever compose calls it.
    pub(crate) fn container(&self, service: Service) -> String {
        let mut ps = self.script("compose");
        let out = ps.args(["ps", "-a", "-q", service.name()]).output();
        let out = out.expect("compose runs").stdout;
        String::from_utf8_lossy(&out).trim().to_owned()
    }

    /// A command of docker itself.
    pub(crate) async fn docker(&self, words: &[&str]) -> Ran {
        let mut docker = self.engine.command("docker");
        self.engine.run(docker.args(words), COMMAND_WAIT).await
    }

    /// What `docker inspect` says of each container, in this format.
    async fn inspect(&self, format: &str) -> Vec<String> {
        let mut ps = self.script("compose");
        let ids = self
            .engine
            .run(ps.args(["ps", "-a", "-q"]), COMMAND_WAIT)
            .await
            .out;
        let mut words = vec!["inspect", "--format", format];
        words.extend(ids.lines());
        let said = self.docker(&words).await.out;
        said.lines().map(str::to_owned).collect()
    }

    /// How many services are healthy.
    pub(crate) async fn healthy(&self) -> usize {
        let states = self.inspect("{{.State.Health.Status}}").await;
        states.iter().filter(|state| *state == "healthy").count()
    }

    /// Waits until all are.
    pub(crate) async fn all_healthy(&self) {
        let all = Service::NODES.len() + 1;
        wait::until("all services are healthy", COMMAND_WAIT, async || {
            (self.healthy().await == all).then_some(())
        })
        .await;
    }

    /// Whom containers run as, each once.
    pub(crate) async fn users(&self) -> Vec<String> {
        let mut users = self.inspect("{{.Config.User}}").await;
        users.sort();
        users.dedup();
        users
    }

    /// The voter that leads, if any.
    pub(crate) async fn leader(&self) -> Option<Service> {
        self.leader_of(&Service::VOTERS).await
    }

    /// The one of these that leads, if any.
    pub(crate) async fn leader_of(&self, voters: &[Service]) -> Option<Service> {
        for voter in voters {
            let asked = tokio::time::timeout(wait::SOON, self.client(*voter).node_status()).await;
            if asked.is_ok_and(|status| status.is_ok_and(|status| status.leading)) {
                return Some(*voter);
            }
        }
        None
    }

    /// Stops all, and tells the exit code of each.
    pub(crate) async fn stop(&self) -> Vec<(String, i32)> {
        self.engine
            .run(self.script("compose").arg("stop"), COMMAND_WAIT)
            .await;
        let exits = self.inspect("{{.Name}} {{.State.ExitCode}}").await;
        let exit = |line: &String| {
            let (name, code) = line.split_once(' ').expect("two words");
            (name.to_owned(), code.parse().expect("an exit code"))
        };
        exits.iter().map(exit).collect()
    }

    /// Deletes containers, volumes, networks and the image.
    pub(crate) async fn wipe(&self) {
        self.engine
            .run(self.script("down").arg("--wipe"), COMMAND_WAIT)
            .await;
        self.docker(&["rmi", &format!("{}:test", self.project)])
            .await;
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self
                .script("compose")
                .args(["logs", "--no-color", "--tail", LOG_LINES_SHOWN])
                .output();
            if let Ok(logs) = logs {
                eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
            }
            let _ = self.script("down").arg("--wipe").output();
        }
    }
}
