//! A cell whose nodes each have a file system of their own, in memory, that can be filled.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::write_script;
use crate::cell::{Cell, Layout};
use crate::node::Node;

/// What takes the room on a full disk.
const BALLAST: &str = "ballast";

/// A cell whose nodes' files are on small file systems.
#[derive(Debug)]
pub struct SmallDiskCell {
    // First: its directories can only go when nothing is mounted on them.
    _mounts: Mounts,
    /// The cell.
    pub cell: Cell,
}

/// Where something is mounted. Detaches it when dropped, though processes may still use it.
#[derive(Debug)]
struct Mounts {
    directory: TempDir,
}

impl SmallDiskCell {
    /// Whether file systems can be mounted here. Says on standard error when they cannot.
    pub fn available() -> bool {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tidemark-test"])
            .arg(directory.path())
            .output()
            .is_ok_and(|mount| mount.status.success());
        if mounted {
            unmount(directory.path());
        } else {
            eprintln!("skipped: file systems cannot be mounted here");
        }
        mounted
    }

    /// Starts what `layout` says with `mib` MiB of disk each, and waits until all are ready.
    pub async fn start(program: &str, layout: Layout, mib: u32) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-mounts-")
            .tempdir()
            .expect("make a temporary directory");
        let mounts = Mounts { directory };
        let list = mounts.list();
        let script = format!(
            "#!/bin/sh\n\
             for word; do [ \"$before\" = --data ] && data=$word; before=$word; done\n\
             mkdir -p \"$data\"\n\
             if ! mountpoint -q \"$data\"; then\n\
               mount -t tmpfs -o size={mib}m tidemark-test \"$data\" || exit\n\
               echo \"$data\" >>'{list}'\n\
             fi\n\
             exec '{program}' \"$@\"\n",
            list = list.display(),
        );
        let stand_in = mounts.directory.path().join("node");
        write_script(&stand_in, &script);
        let cell = Cell::of(&stand_in.to_string_lossy(), layout).await;
        Self {
            _mounts: mounts,
            cell,
        }
    }

    /// Takes all the room that is left on this node's disk.
    pub fn fill(node: &Node) {
        let mut ballast = OpenOptions::new()
            .create(true)
            .append(true)
            .open(ballast(node))
            .expect("open the ballast");
        for size in [1 << 20, 4096, 1] {
            loop {
                match ballast.write(&vec![0; size]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("fill the disk of {}: {error}", node.name()),
                }
            }
        }
    }

    /// Gives the room back.
    pub fn free(node: &Node) {
        // Emptied first: a process that ends could otherwise still hold the room.
        File::create(ballast(node)).expect("empty the ballast");
        std::fs::remove_file(ballast(node)).expect("remove the ballast");
    }
}

impl Mounts {
    /// The file with the paths, one a line.
    fn list(&self) -> PathBuf {
        self.directory.path().join("list")
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for mounted in std::fs::read_to_string(self.list())
            .unwrap_or_default()
            .lines()
        {
            unmount(Path::new(mounted));
        }
    }
}

fn ballast(node: &Node) -> PathBuf {
    node.data().join(BALLAST)
}

fn unmount(path: &Path) {
    // There is nobody left to tell of an error.
    let _ = Command::new("umount").arg("-l").arg(path).status();
}
