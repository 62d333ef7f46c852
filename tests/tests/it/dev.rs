//! The first minute of a new user: `tidemark dev`, and the lines that it prints to try next.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidemark_tests::{free_ports, signal, wait};

use crate::PROGRAM;

/// Time for a dev cluster to load its sample, in an unoptimised build on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);

struct Dev {
    process: Child,
    printed: std::path::PathBuf,
}

impl Dev {
    async fn start(directory: &Path, port: u16) -> Self {
        let printed = directory.join("printed");
        let output = File::create(&printed).expect("make a file for what dev prints");
        let process = Command::new(PROGRAM)
            .args([
                "dev",
                "--port",
                &port.to_string(),
                "--wan",
                "WEUR=20ms,APAC=50ms",
            ])
            .arg("--data")
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a second handle"))
            .stdout(output)
            .spawn()
            .expect("start tidemark dev");
        let mut dev = Self { process, printed };
        wait::until("dev prints lines to try", READY_DEADLINE, async || {
            let text = dev.text();
            if let Some(status) = dev.process.try_wait().expect("look at a process") {
                panic!("dev ended with {status}: {text}");
            }
            text.contains("Ctrl-C stops").then_some(())
        })
        .await;
        dev
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.printed).expect("read what dev printed")
    }

    /// The printed command that starts like this, with the lines that it goes on.
    fn command(&self, start: &str) -> String {
        let text = self.text();
        let from = text.find(&format!("  {start}")).expect(start);
        let mut command = String::new();
        for line in text[from..].lines() {
            command += &format!("{line}\n");
            if !line.ends_with('\\') {
                break;
            }
        }
        command
    }

    async fn stop(mut self) {
        signal(self.process.id(), "INT");
        let ended = wait::soon("dev stops", async || {
            self.process.try_wait().expect("look at a process")
        })
        .await;
        assert!(ended.success(), "dev ended with {ended}: {}", self.text());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It has ended by itself unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- dev printed ---\n{}\n---", self.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn printed_lines_work_as_they_stand_and_data_stays() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: the curl program is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("make a temporary directory");
    let port = free_ports(3);
    let dev = Dev::start(directory.path(), port).await;
    let apac = format!("curl -s http://127.0.0.1:{}", port + 2);
    let write = dev.command("BOOKMARK=");
    let read = dev.command(&apac);
    assert!(read.contains("$BOOKMARK"), "{read}");
    let shown = shell(&format!(
        "set -euo pipefail\n{write}\necho \"bookmark: $BOOKMARK\"\n{read}"
    ));
    assert!(
        shown.contains("\"served_by_region\":\"ENAM\""),
        "the write: {shown}"
    );
    assert!(
        shown.contains("\"served_by_region\":\"APAC\""),
        "the read: {shown}"
    );
    assert!(shown.contains("\"customers\":1001"), "{shown}");
    let bookmark = shown
        .lines()
        .find_map(|line| line.strip_prefix("bookmark: "));
    assert_eq!(bookmark.map(str::len), Some(59), "{shown}");
    let verify = shell(&dev.command(&format!("{PROGRAM} verify")));
    assert!(verify.contains("sample"), "{verify}");
    dev.stop().await;

    // The second start finds what the first one left.
    let dev = Dev::start(directory.path(), port).await;
    let shown = shell(&read.replace("$BOOKMARK", bookmark.unwrap_or_default()));
    assert!(shown.contains("\"customers\":1001"), "{shown}");
    dev.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_dev_cluster_on_the_same_ports_says_what_to_do() {
    let directory = tempfile::tempdir().expect("make a temporary directory");
    let port = free_ports(3);
    let dev = Dev::start(directory.path(), port).await;
    let second = Command::new(PROGRAM)
        .args(["dev", "--port", &port.to_string(), "--data"])
        .arg(directory.path().join("other"))
        .output()
        .expect("run a second tidemark dev");
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains("--port takes other ports"), "{error}");
    dev.stop().await;
}

/// Runs commands as a user would; returns what they print, errors included.
fn shell(commands: &str) -> String {
    let output = Command::new("bash")
        .arg("-c")
        .arg(commands)
        .output()
        .expect("run bash");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{printed}");
    printed
}
