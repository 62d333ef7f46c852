//! The console as people see it: in a headless Chromium, on the page of a real node.
//!
//! Its scripts are beside its sources, in `gateway/console/test`; they use what `package-lock.json` there pins. Where
//! npm, its registry or Chromium are out of reach, the tests say so and are skipped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidemark_deploy::Link;
use tidemark_tests::{Cell, Cluster, Layout, Place};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::PROGRAM;

/// Where the console's sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/console");
/// What belongs to them, besides what they need from npm.
const PARTS: [&str; 7] = [
    "package.json",
    "package-lock.json",
    "build.mjs",
    "land.mjs",
    "src",
    "dist",
    "test",
];
/// Where Chromium may be.
const BROWSERS: [&str; 3] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
];
/// Longest that a script may take between two of its wishes, on a busy machine.
const SCRIPT_WAIT: Duration = Duration::from_secs(240);

/// One at a time prepares the workshop.
static PREPARING: Mutex<()> = Mutex::const_new(());

/// A copy of the sources with their packages, beside cargo's own files: nothing is installed in the repository.
async fn workshop() -> Option<PathBuf> {
    let _preparing = PREPARING.lock().await;
    spawn_blocking(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
        let lock = |folder: &Path| fs::read(folder.join("package-lock.json")).ok();
        let installed = home.join("node_modules/.package-lock.json").exists()
            && lock(&home) == lock(Path::new(SOURCES));
        fs::create_dir_all(&home).expect("make the workshop");
        for part in PARTS {
            copy(&Path::new(SOURCES).join(part), &home.join(part));
        }
        if installed {
            return Some(home);
        }
        let mut install = Command::new("npm");
        install.current_dir(&home);
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        match install.output() {
            Ok(output) if output.status.success() => Some(home),
            Ok(output) => {
                // The next try must not take it for installed.
                let _ = fs::remove_file(home.join("package-lock.json"));
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("skipped: npm cannot install the console's packages: {why}");
                None
            }
            Err(error) => {
                eprintln!("skipped: npm is not installed: {error}");
                None
            }
        }
    })
    .await
    .expect("prepare the workshop")
}

/// Makes `to` what `from` is: a file, or a folder with all in it.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).expect("make a folder of the workshop");
        for entry in fs::read_dir(from).expect("list the sources") {
            let name = entry.expect("list the sources").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    }
}

fn browser() -> Option<&'static str> {
    let found = BROWSERS.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        eprintln!("skipped: Chromium is not installed");
    }
    found
}

/// A script that drives a browser, and says what it wants done meanwhile.
struct Script {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Script {
    /// Starts it for the page at `url`. `None` where it cannot be had.
    async fn start(name: &str, url: &str) -> Option<Self> {
        let browser = browser()?;
        let home = workshop().await?;
        let mut command = Command::new("node");
        command
            .current_dir(&home)
            .arg(format!("test/{name}.mjs"))
            .args([url, browser])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(pictures) = std::env::var_os("TIDEMARK_PICTURES") {
            command.arg(pictures);
        }
        let mut process = command.spawn().expect("start node");
        let lines = process.stdout.take().expect("its output is a pipe");
        Some(Self {
            process,
            lines: BufReader::new(lines),
        })
    }

    /// Waits until it wants `word` done. Panics if it ends, or wants something else.
    async fn wants(mut self, word: &str) -> Self {
        let reading = spawn_blocking(move || {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line);
            (self, read.map(|_| line))
        });
        let read = timeout(SCRIPT_WAIT, reading).await;
        let (script, line) = read
            .expect("the script says something in time")
            .expect("read what the script says");
        let line = line.expect("read what the script says");
        assert_eq!(line.trim(), format!("do {word}"), "what the script wants");
        script
    }

    /// Tells it that it was done.
    fn done(&mut self) {
        let input = self.process.stdin.as_mut().expect("its input is a pipe");
        writeln!(input, "done").expect("answer the script");
    }

    /// Waits until it has ended, and asserts that it ended well.
    async fn ends(mut self) {
        let ending = spawn_blocking(move || {
            let ended = self.process.wait().expect("wait for node");
            (self, ended)
        });
        let ended = timeout(SCRIPT_WAIT, ending).await;
        let (_script, ended) = ended
            .expect("the script ends in time")
            .expect("wait for it");
        assert!(ended.success(), "the script ended with {ended}; see above");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It has ended by itself unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_console_is_what_its_sources_build() {
    let Some(home) = workshop().await else {
        return;
    };
    let checked = spawn_blocking(move || {
        let mut check = Command::new("node");
        check.current_dir(home).args(["build.mjs", "--check"]);
        check.output().expect("run node")
    });
    let output = checked.await.expect("run node");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn locked_packages_name_no_host() {
    // The registry is whichever npm is set to: one machine's mirror is of no use to another.
    let lock = fs::read_to_string(Path::new(SOURCES).join("package-lock.json"));
    let lock = lock.expect("read package-lock.json");
    assert!(!lock.contains("\"resolved\""));
    assert!(lock.contains("\"integrity\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn console_of_a_replica_runs_queries_and_shows_how_a_region_falls_behind() {
    let places = [
        Place::at("WEUR", Duration::from_millis(20)),
        Place::at("APAC", Duration::from_millis(40)),
    ];
    let mut cluster = Cluster::start(PROGRAM, &places).await;
    let url = cluster.replicas[0].url();
    if let Some(script) = Script::start("cluster", &url).await {
        let mut script = script.wants("delay").await;
        cluster.ways[1].set_link(Link::with_delay(Duration::from_millis(400)));
        script.done();
        script.ends().await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn console_shows_who_leads_after_the_leader_died() {
    let mut cell = Cell::of(PROGRAM, Layout::default()).await;
    let url = cell.replicas[0].url();
    let Some(script) = Script::start("cell", &url).await else {
        return;
    };
    let mut script = script.wants("kill").await;
    let leader = cell.leader().await;
    cell.voters[leader].kill();
    script.done();
    script.ends().await;
}
