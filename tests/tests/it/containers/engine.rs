//! A Docker engine: the one that runs here, or one that is started for the test and ends with it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::d1::program::{self, Ran};
use crate::d1::tools::skipped;

/// Longest that an engine may take to start.
const START_WAIT: Duration = Duration::from_secs(60);
/// Longest that it may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// Longest that a question to it may take.
const ASK_WAIT: Duration = Duration::from_secs(60);

/// An engine, and where it listens.
pub(crate) struct Engine {
    /// For `DOCKER_HOST`. None: where docker looks by itself.
    host: Option<String>,
    started: Option<Started>,
}

struct Started {
    process: Child,
    host: String,
    // Last: the files go when the process has.
    directory: TempDir,
}

impl Engine {
    /// One that is ready. None where there is none and none can be started.
    pub(crate) async fn of_this_machine() -> Option<Self> {
        let there = Self {
            host: None,
            started: None,
        };
        if there.answers().await {
            return there.has_compose().await.then_some(there);
        }
        let own = Self::start().await?;
        own.has_compose().await.then_some(own)
    }

    async fn start() -> Option<Self> {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-docker-")
            .tempdir();
        let directory = directory.expect("make a temporary directory");
        let at = |name: &str| directory.path().join(name);
        let host = format!("unix://{}", at("socket").display());
        let log = File::create(at("log")).expect("make the engine's log");
        let process = Command::new("dockerd")
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--host", &host])
            // The networks of the cluster are its own; the default one would outlive the engine.
            .arg("--bridge=none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("one more descriptor"))
            .stderr(log)
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => {
                skipped(&format!(
                    "no Docker engine runs and dockerd cannot be started: {error}"
                ));
                return None;
            }
        };
        let mut engine = Self {
            host: Some(host.clone()),
            started: Some(Started {
                process,
                host,
                directory,
            }),
        };
        let began = Instant::now();
        while !engine.answers().await {
            let started = engine.started.as_mut().expect("just made");
            let ended = started.process.try_wait().expect("look at a process");
            if let Some(status) = ended {
                let log = std::fs::read_to_string(started.directory.path().join("log"));
                let log = log.unwrap_or_default();
                let why = log.lines().last().unwrap_or_default();
                skipped(&format!("dockerd cannot run here: {status}: {why}"));
                return None;
            }
            assert!(began.elapsed() < START_WAIT, "dockerd does not get ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(engine)
    }

    async fn answers(&self) -> bool {
        let mut ask = self.command("docker");
        ask.args(["version", "--format", "{{.Server.Version}}"]);
        let ran = program::run(&mut ask, ASK_WAIT).await;
        ran.is_ok_and(|ran| ran.success())
    }

    async fn has_compose(&self) -> bool {
        for (name, words) in [
            ("docker", ["compose", "version"].as_slice()),
            ("docker-compose", &["version"]),
        ] {
            let ran = program::run(self.command(name).args(words), ASK_WAIT).await;
            if ran.is_ok_and(|ran| ran.success()) {
                return true;
            }
        }
        skipped("neither docker compose nor docker-compose is installed");
        false
    }

    /// A program that speaks to this engine.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Runs one to its end. Panics if it fails.
    pub(crate) async fn run(&self, command: &mut Command, longest: Duration) -> Ran {
        let ran = program::run(command, longest).await;
        let ran = ran.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(ran.success(), "{command:?}: {ran:?}");
        ran
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // A test that failed may have left containers: killed with their engine they would live on.
        let remove = format!(
            "docker --host {0} rm --force $(docker --host {0} ps --all --quiet)",
            self.host
        );
        let quiet = |command: &mut Command| {
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        quiet(Command::new("sh").args(["-c", &remove]));
        quiet(Command::new("sh").args(["-c", &format!("kill -s TERM {}", self.process.id())]));
        let told = Instant::now();
        while told.elapsed() < STOP_WAIT {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            wait_a_little();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Between two looks at a process, where nothing asynchronous can be waited for.
fn wait_a_little() {
    let (_never, told) = std::sync::mpsc::channel::<()>();
    let _ = told.recv_timeout(Duration::from_millis(20));
}
