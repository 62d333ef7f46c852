//! Wall clocks that can be set while a node runs.
//!
//! A small library comes before the C library in the node's process (`clocks/clock.c`, built by the C compiler that the
//! engine needs too) and adds to the time of day what a file says. Monotonic clocks are left alone, as a wall clock that is
//! set leaves them. Note: libfaketime does the same, and waits for ever in a process whose allocator is jemalloc.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::disk::write_script;
use crate::node::Node;

/// What stands between a node and its wall clock.
const SOURCE: &str = include_str!("clocks/clock.c");

/// A way to start nodes whose wall clocks can be set.
#[derive(Debug)]
pub struct Clocks {
    directory: TempDir,
}

impl Clocks {
    /// For nodes of `program`.
    pub fn new(program: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-clocks-")
            .tempdir()
            .expect("make a temporary directory");
        let (source, library) = (
            directory.path().join("clock.c"),
            directory.path().join("clock.so"),
        );
        std::fs::write(&source, SOURCE).expect("write the source");
        let built = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(built.expect("run cc").success(), "clock.c is not built");
        let script = format!(
            "#!/bin/sh\n\
             for word; do [ \"$before\" = --data ] && data=$word; before=$word; done\n\
             export CLOCK_AHEAD_FILE=\"$(dirname \"$data\")/clock\"\n\
             [ -e \"$CLOCK_AHEAD_FILE\" ] || head -c 8 /dev/zero >\"$CLOCK_AHEAD_FILE\"\n\
             export LD_PRELOAD='{library}'\n\
             exec '{program}' \"$@\"\n",
            library = library.display(),
        );
        let clocks = Self { directory };
        write_script(&clocks.script(), &script);
        clocks
    }

    /// What to start in place of the node's program.
    pub fn program(&self) -> String {
        self.script().to_string_lossy().into_owned()
    }

    /// From now on, also after a restart, the clock of a node that was started is ahead of this machine's by so many
    /// seconds.
    pub fn set(node: &Node, ahead_s: i64) {
        let clock = node.data().with_file_name("clock");
        let clock = OpenOptions::new().write(true).open(clock);
        let clock = clock.expect("the clock of a node that was started");
        let set = clock.write_all_at(&ahead_s.to_ne_bytes(), 0);
        set.expect("set a clock");
    }

    fn script(&self) -> PathBuf {
        self.directory.path().join("node")
    }
}
