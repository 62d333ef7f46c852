//! The console as people see it: in a headless Chromium, on the page of a real node.
//!
//! Its scripts are beside its sources, in `gateway/console/test`; they use what `package-lock.json` there pins. Where
//! npm, its registry or Chromium are out of reach, the tests say so and are skipped.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tidemark_deploy::Link;
use tidemark_tests::{Cell, Cluster, Layout, Place};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::PROGRAM;
use crate::d1::tools::skipped;

/// Where the console's sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/console");
/// What belongs to them, besides what they need from npm.
const PARTS: [&str; 6] = [
    "package.json",
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

/// One at a time installs packages.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// A copy of the sources with their packages, for one test: nothing is installed in the repository.
async fn workshop() -> Option<TempDir> {
    let packages = packages().await?;
    let home = tempfile::tempdir().expect("make a temporary directory");
    for part in PARTS {
        copy(&Path::new(SOURCES).join(part), &home.path().join(part));
    }
    let link = home.path().join("node_modules");
    std::os::unix::fs::symlink(packages, link).expect("link the packages");
    Some(home)
}

/// The packages that `package-lock.json` pins, in a folder beside cargo's own files.
async fn packages() -> Option<PathBuf> {
    let _installing = INSTALLING.lock().await;
    let lists = ["package.json", "package-lock.json"];
    let mut hasher = DefaultHasher::new();
    for list in lists {
        let list = fs::read(Path::new(SOURCES).join(list));
        list.expect("read a list of packages").hash(&mut hasher);
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    let home = cache.join(format!("console-{:016x}", hasher.finish()));
    let installed = home.join("node_modules");
    if installed.exists() {
        return Some(installed);
    }
    fs::create_dir_all(&cache).expect("make the cache of packages");
    // Under its name only when it is whole: another process may be installing it too.
    let making = tempfile::tempdir_in(&cache).expect("make a temporary directory");
    for list in lists {
        copy(&Path::new(SOURCES).join(list), &making.path().join(list));
    }
    let mut install = Command::new("npm");
    install.current_dir(making.path());
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    let ran = spawn_blocking(move || install.output()).await;
    match ran.expect("run npm") {
        Ok(output) if output.status.success() => {
            let moved = fs::rename(making.path(), &home);
            assert!(moved.is_ok() || installed.exists(), "{moved:?}");
            Some(installed)
        }
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            skipped(&format!("npm cannot install the console's packages: {why}"));
            None
        }
        Err(error) => {
            skipped(&format!("npm is not installed: {error}"));
            None
        }
    }
}

/// Makes `to` what `from` is: a file, or a folder with all in it.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).expect("make a folder of the workshop");
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
        skipped("Chromium is not installed");
    }
    found
}

/// A script that drives a browser, and says what it wants done meanwhile.
struct Script {
    process: Child,
    lines: BufReader<ChildStdout>,
    // Last: its files go when it has ended.
    _home: TempDir,
}

impl Script {
    /// Starts it for the page at `url`. `None` where it cannot be had.
    async fn start(name: &str, url: &str) -> Option<Self> {
        let browser = browser()?;
        let home = workshop().await?;
        let mut command = Command::new("node");
        command
            .current_dir(home.path())
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
            _home: home,
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
        check.current_dir(home.path());
        check.args(["build.mjs", "--check"]);
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
