//! Calls of the C library that fail, by libfiu.
//!
//! libfiu comes before the C library in the node's process and asks a table before each call; the table is
//! changed from outside through a named pipe. Rust's standard library and SQLite both call through it.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::write_script;
use crate::node::Node;

/// Longest that a process may take to hear of a fault, in seconds.
const TOLD_WITHIN_S: &str = "20";

/// A way to start nodes whose calls can be made to fail.
#[derive(Debug)]
pub struct Faults {
    directory: TempDir,
}

/// A call, or several of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// `fdatasync`: the log.
    Fdatasync,
    /// `fsync`: databases, the small files that are replaced whole, directories.
    Fsync,
    /// `writev`: the log; and sockets.
    Writev,
    /// `pwrite`: databases and their WALs.
    Pwrite,
    /// `ftruncate`: the WAL of a database.
    Ftruncate,
    /// `rename`: the small files that are replaced whole.
    Rename,
}

/// What it fails with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errno {
    /// `EIO`
    Io,
    /// `ENOSPC`
    NoSpace,
}

impl Faults {
    /// Whether libfiu is installed. Says on standard error when it is not.
    pub fn available() -> bool {
        let found = Command::new("fiu-ctrl").arg("-h").output().is_ok();
        if !found {
            eprintln!("skipped: libfiu is not installed (Debian: fiu-utils)");
        }
        found
    }

    /// For nodes of `program`. Each checkpoints after `checkpoint_every` of log, a size as the command line
    /// takes it.
    pub fn new(program: &str, checkpoint_every: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-faults-")
            .tempdir()
            .expect("make a temporary directory");
        let faults = Self { directory };
        let (pipes, from_start) = (faults.pipes(), faults.fault_file());
        let script = format!(
            "#!/bin/sh\n\
             export TIDEMARK_CHECKPOINT_EVERY={checkpoint_every}\n\
             if [ -s '{from_start}' ]; then set -- -c \"$(cat '{from_start}')\" '{program}' \"$@\"; else set -- '{program}' \"$@\"; fi\n\
             exec fiu-run -x -f '{pipes}' \"$@\"\n",
            pipes = pipes.display(),
            from_start = from_start.display(),
        );
        write_script(&faults.script(), &script);
        faults
    }

    /// What to start in place of the node's program.
    pub fn program(&self) -> String {
        self.script().to_string_lossy().into_owned()
    }

    /// From now on, all these calls of this node's process fail. A new process is well again.
    pub fn fail(&self, node: &Node, call: Call, error: Errno) {
        let told = Command::new("timeout")
            .args([TOLD_WITHIN_S, "fiu-ctrl", "-f"])
            .arg(self.pipes())
            .args(["-c", &command(call, error), &node.pid().to_string()])
            .status();
        assert!(
            told.expect("run fiu-ctrl").success(),
            "cannot make {call:?} of {} fail",
            node.name()
        );
    }

    /// Whether processes that are started from now on find the disk failing, and how.
    pub fn fail_from_start(&self, fault: Option<(Call, Errno)>) {
        let text = fault.map_or_else(String::new, |(call, error)| command(call, error));
        std::fs::write(self.fault_file(), text).expect("write the fault");
    }

    fn script(&self) -> PathBuf {
        self.directory.path().join("node")
    }

    fn pipes(&self) -> PathBuf {
        self.directory.path().join("pipe")
    }

    fn fault_file(&self) -> PathBuf {
        self.directory.path().join("from-start")
    }
}

/// As libfiu's remote control takes it.
fn command(call: Call, error: Errno) -> String {
    let point = match call {
        Call::Fdatasync => "posix/io/sync/fdatasync",
        Call::Fsync => "posix/io/sync/fsync",
        Call::Writev => "posix/io/rw/writev",
        Call::Pwrite => "posix/io/rw/pwrite",
        Call::Ftruncate => "posix/io/rw/ftruncate",
        Call::Rename => "posix/io/dir/rename",
    };
    // libfiu takes the value for errno from its "failure information".
    let errno = match error {
        Errno::Io => 5,
        Errno::NoSpace => 28,
    };
    format!("enable name={point},failinfo={errno}")
}
