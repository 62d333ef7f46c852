//! The servers under load, as processes of their own.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A process that serves, killed when dropped.
pub(crate) struct Empty {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Empty {
    /// Starts this program as the handler that does nothing but return `answer`.
    pub(crate) fn start(answer: &[u8]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("empty")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        process.stdin.take().unwrap().write_all(answer)?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line)?;
        Ok(Self {
            process,
            address: line.trim().parse()?,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program as users have it, which was built beside this one.
pub(crate) fn node_program() -> anyhow::Result<String> {
    let path: PathBuf = std::env::current_exe()?.with_file_name("tidemark");
    anyhow::ensure!(
        path.exists(),
        "{} is missing: build it with `cargo build --release -p tidemark-cli -p tidemark-tests --bins`",
        path.display()
    );
    Ok(path.to_string_lossy().into_owned())
}

/// CPU time of a process so far, user and system, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields after the name in parentheses: utime and stime are the 12th and 13th, in ticks of 10 ms.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// Bytes that a process has written to files so far, whether they reached a disk yet or not.
pub(crate) fn written_bytes(pid: u32) -> anyhow::Result<f64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let figure = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(figure.unwrap_or("0").parse()?)
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: f64 = line
        .and_then(|l| l.split_whitespace().nth(1))
        .unwrap_or("0")
        .parse()?;
    Ok(kib / 1024.0)
}
