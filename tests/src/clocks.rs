//! Wall clocks that can be set while a node runs, by libfaketime.
//!
//! It comes before the C library in the node's process and adds to the time of day what a file says, which it reads
//! anew at every look at the clock. Monotonic clocks are left alone, as a wall clock that is set leaves them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::disk::write_script;
use crate::node::Node;

/// A way to start nodes whose wall clocks can be set.
#[derive(Debug)]
pub struct Clocks {
    directory: TempDir,
}

impl Clocks {
    /// Whether libfaketime is installed. Says on standard error when it is not.
    pub fn available() -> bool {
        let found = library().is_some();
        if !found {
            eprintln!("skipped: libfaketime is not installed (Debian: libfaketime)");
        }
        found
    }

    /// For nodes of `program`.
    pub fn new(program: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-clocks-")
            .tempdir()
            .expect("make a temporary directory");
        let clocks = Self { directory };
        let library = library().expect("libfaketime, which was found before");
        let script = format!(
            "#!/bin/sh\n\
             for word; do [ \"$before\" = --data ] && data=$word; before=$word; done\n\
             export FAKETIME_TIMESTAMP_FILE=\"$(dirname \"$data\")/clock\"\n\
             [ -e \"$FAKETIME_TIMESTAMP_FILE\" ] || echo +0 >\"$FAKETIME_TIMESTAMP_FILE\"\n\
             export FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\n\
             export LD_PRELOAD='{library}'\n\
             exec '{program}' \"$@\"\n",
            library = library.display(),
        );
        write_script(&clocks.script(), &script);
        clocks
    }

    /// What to start in place of the node's program.
    pub fn program(&self) -> String {
        self.script().to_string_lossy().into_owned()
    }

    /// From now on, also after a restart, the node's clock is ahead of this machine's by so many seconds.
    pub fn set(node: &Node, ahead_s: i64) {
        let clock = node.data().with_file_name("clock");
        let new = clock.with_extension("new");
        std::fs::write(&new, format!("{ahead_s:+}\n")).expect("write a clock");
        // As a whole: the process may look at any time.
        std::fs::rename(new, clock).expect("set a clock");
    }

    fn script(&self) -> PathBuf {
        self.directory.path().join("node")
    }
}

/// The variant for programs with threads, wherever the distribution has it.
fn library() -> Option<PathBuf> {
    let name = Path::new("faketime/libfaketimeMT.so.1");
    let below = std::fs::read_dir("/usr/lib").ok()?;
    let places = below.filter_map(|entry| Some(entry.ok()?.path()));
    let mut places = places.chain([PathBuf::from("/usr/lib")]);
    places.find_map(|place| Some(place.join(name)).filter(|path| path.exists()))
}
