//! One node: a process with a data directory, an address and a log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::api::Api;
use crate::points::{self, Point};
use crate::port::free_address;
use crate::wait;

/// Lines of a node's log that a failed test prints.
const LOG_LINES_SHOWN: usize = 60;
/// What ends a process that ends itself.
const SIGABRT: i32 = 6;
/// What nodes log.
const LOG_FILTER: &str = "info,openraft=warn,raft_log=warn,chunked_wal=warn";

/// A node, running or not. It keeps its address and its directory over restarts.
#[derive(Debug)]
pub struct Node {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
    /// Where it hears of points.
    ear: Option<ChildStdin>,
    running: Running,
}

/// The process of a node at any time, for whoever measures it while others start and kill it.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<AtomicU32>);

impl Running {
    /// The process now, if there is one.
    pub fn pid(&self) -> Option<u32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    fn set(&self, pid: Option<u32>) {
        self.0.store(pid.unwrap_or(0), Ordering::Relaxed);
    }
}

impl Node {
    /// A node that is not started yet. `directory` gets its data and, beside it, its log.
    pub(crate) fn new(
        name: &str,
        program: &Path,
        directory: &Path,
        arguments: Vec<String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            directory: directory.to_owned(),
            address: free_address(),
            process: None,
            ear: None,
            running: Running::default(),
        }
    }

    /// Sets the words of its command line, once those are known that depend on the addresses of others.
    pub(crate) fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// Adds words to its command line.
    pub(crate) fn add_arguments(&mut self, words: impl IntoIterator<Item = String>) {
        self.arguments.extend(words);
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Plain HTTP to it.
    pub fn api(&self) -> Api {
        Api::of_node(&self.url())
    }

    /// Root of its files.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The file of a database on this node.
    pub fn database_file(&self, uuid: &str) -> PathBuf {
        self.data().join("databases").join(uuid).join("main.db")
    }

    /// Starts the process. Panics if it runs.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        std::fs::create_dir_all(&self.directory).expect("make the node's directory");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("open the node's log");
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(["--listen", &self.address.to_string(), "--log", LOG_FILTER])
            .arg("--data")
            .arg(self.data())
            .stdin(Stdio::piped())
            .env(points::VARIABLE, points::STDIN)
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);
        // Settings of whoever runs the tests are not the tests'.
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_")) {
            command.env_remove(variable);
        }
        let mut process = command.spawn().expect("start the node's process");
        self.ear = process.stdin.take();
        self.running.set(Some(process.id()));
        self.process = Some(process);
    }

    /// Has the running process die or err at a point, from now on: waits until it has heard, or has died of it.
    pub async fn tell(&mut self, point: &Point) {
        let heard = points::heard(point);
        let times = |log: String| log.lines().filter(|line| *line == heard).count();
        let before = times(self.log());
        let ear = self.ear.as_mut().expect("a running node");
        writeln!(ear, "{point}").expect("tell a running node");
        wait::soon("a node hears what it is told", async || {
            (times(self.log()) > before || self.ended().is_some()).then_some(())
        })
        .await;
    }

    /// Waits until the process has died at this point, as it was told.
    pub async fn dies_at(&mut self, name: &str, deadline: Duration) {
        let what = format!("{} dies at {name}", self.name);
        let ended = wait::until(&what, deadline, async || self.ended()).await;
        self.kill();
        assert_eq!(ended.signal(), Some(SIGABRT), "{}: {ended}", self.name);
        let log = self.log();
        let last = log
            .lines()
            .rev()
            .find(|line| line.contains("the process ends at"));
        assert_eq!(last, Some(&*points::epitaph(name)), "{}", self.name);
        eprintln!("died at {name}");
    }

    /// Keeps a copy of its files as they are, those of the log last, as the log is never behind.
    pub fn keep_disk(&self) {
        let kept = self.kept();
        std::fs::create_dir_all(&kept).expect("make a directory for the copy");
        for part in ["databases", "."] {
            let from = self.data().join(part);
            // The program: it takes files that come and go meanwhile.
            let told = Command::new("cp").arg("-an").arg(from).arg(&kept).output();
            told.expect("run cp");
        }
    }

    /// Puts that copy in the place of its files, while it is down: as if nothing since had reached the disk.
    pub fn lose_since_kept(&self) {
        self.lose_disk();
        std::fs::rename(self.kept(), self.data()).expect("put the copy in place");
    }

    fn kept(&self) -> PathBuf {
        self.directory.join("kept")
    }

    /// Takes its files away, while it is down.
    pub fn lose_disk(&self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        std::fs::remove_dir_all(self.data()).expect("remove a node's files");
    }

    /// Waits until it says that it is ready. Panics if it ends instead.
    pub async fn ready(&mut self) {
        self.ready_within(wait::SOON).await;
    }

    /// The same with this deadline.
    pub async fn ready_within(&mut self, deadline: Duration) {
        let api = self.api();
        let name = self.name.clone();
        wait::until(&format!("{name} is ready"), deadline, async || {
            if let Some(status) = self.ended() {
                panic!("{name} ended with {status} instead of getting ready");
            }
            (api.get("/ready").await.ok()?.status == 200).then_some(())
        })
        .await;
    }

    /// The process. Panics if it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running node").id()
    }

    /// Tells which process it is, from now on.
    pub fn running(&self) -> Running {
        self.running.clone()
    }

    /// The exit status, if the process ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process
            .as_mut()
            .and_then(|process| process.try_wait().expect("look at a process"))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.running.set(None);
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill the node's process");
            process.wait().expect("wait for the node's process");
        }
    }

    /// Stops it from running, without telling it: SIGSTOP.
    pub fn freeze(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets it run again: SIGCONT.
    pub fn thaw(&self) {
        signal(self.pid(), "CONT");
    }

    /// SIGTERM; waits until the process has ended, and asserts that it ended well.
    pub async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        self.running.set(None);
        signal(process.id(), "TERM");
        let ended = wait::soon(&format!("{} stops", self.name), async || {
            process.try_wait().expect("look at a process")
        })
        .await;
        assert!(
            ended.success(),
            "{} ended with {ended} after SIGTERM",
            self.name
        );
    }

    /// Kills, starts and waits until it is ready.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.start();
        self.ready().await;
    }

    /// What it logged since its first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let ended = self.ended();
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; there is nobody left to tell.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            let end = ended.map_or_else(String::new, |status| format!(", ended with {status}"));
            eprintln!(
                "--- log of {}{end} ---\n{}\n---",
                self.name,
                shown.join("\n")
            );
        }
    }
}

/// Sends a signal, by its name without `SIG`, to a process.
pub fn signal(process: u32, name: &str) {
    // The shell's own `kill`: the standard library only knows SIGKILL.
    let told = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {process}"))
        .status();
    assert!(
        told.expect("run sh").success(),
        "cannot send SIG{name} to {process}"
    );
}

/// Flips one bit of the byte at `offset` of a file. For nodes that are stopped.
pub fn flip_bit(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;

    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("open the file to damage");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)
        .expect("read the byte to damage");
    byte[0] ^= 1;
    file.write_all_at(&byte, offset)
        .expect("write the damaged byte");
}
