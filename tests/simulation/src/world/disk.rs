//! The disk of a node: a folder, how long a flush takes, and what is left after a crash.
//!
//! Files are real, in memory if the machine has such a place. A node that crashes leaves a copy of its folder as it was at
//! that moment, and its next life begins on that: what the dying process does to its files while it is taken down
//! is lost, as it never happens when a process is killed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemark_primary::{Flush, SlowDisk};
use tokio::runtime::Handle;
use tokio::time::sleep;

/// How slow the disk of one node is now.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    /// Longest flush, in microseconds.
    flush_max_us: AtomicU64,
}

impl Speed {
    pub(crate) fn set_flush_max(&self, flush_max: Duration) {
        let us = u64::try_from(flush_max.as_micros()).unwrap_or(u64::MAX);
        self.flush_max_us.store(us, Ordering::Relaxed);
    }
}

/// Lets each flush take its time. What the log had not flushed when its node crashed is lost.
pub(crate) struct SimDisk {
    pub(crate) runtime: Handle,
    pub(crate) speed: Arc<Speed>,
    pub(crate) random: Mutex<fastrand::Rng>,
}

impl SlowDisk for SimDisk {
    fn flush(&self, flush: Flush) {
        let (part, is_early) = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            (random.f64(), random.bool())
        };
        let longest = Duration::from_micros(self.speed.flush_max_us.load(Ordering::Relaxed));
        let wait = longest.mul_f64(part);
        self.runtime.spawn(async move {
            // In a crash meanwhile everything is there, or nothing, and nobody was told either way.
            if is_early {
                let tell = flush();
                sleep(wait).await;
                tell();
            } else {
                sleep(wait).await;
                flush()();
            }
        });
    }
}

/// The folders of one node, of which the newest is its disk.
#[derive(Debug)]
pub(crate) struct Folders {
    root: PathBuf,
    lives: u32,
}

impl Folders {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, lives: 0 }
    }

    pub(crate) fn now(&self) -> PathBuf {
        self.root.join(self.lives.to_string())
    }

    /// The node crashes: its next life begins on a copy.
    pub(crate) fn crash(&mut self) -> io::Result<()> {
        let before = self.now();
        self.lives += 1;
        copy(&before, &self.now())
    }

    /// Removes what the former life has left behind, which is taken down.
    pub(crate) fn forget_former(&self) -> io::Result<()> {
        let Some(former) = self.lives.checked_sub(1) else {
            return Ok(());
        };
        match std::fs::remove_dir_all(self.root.join(former.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
