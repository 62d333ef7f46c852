//! What processes take of the machine, as the kernel tells it, measured by a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::fault::Elders;
use super::trend::Series;
use super::{Soak, lock};
use crate::cell::Cell;
use crate::node::{Node, Running};

/// Shortest time between two measurements.
const EVERY_MIN: Duration = Duration::from_secs(2);
/// Most measurements of a run; a longer one is measured less often.
const MOST: u32 = 2000;
/// What the program that judges is called.
const JUDGE: &str = "the judge";

/// Measures until it is dropped.
pub(super) struct Samples {
    shared: Arc<Mutex<Measured>>,
    // Dropped before the thread is waited for: that ends it.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// Every process there was.
    pub(super) lives: Vec<Life>,
    /// By node, MiB of its files over the whole run.
    pub(super) disks: Vec<(String, Series)>,
}

/// A process from its start to its end. Times are from its start.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// The node.
    pub(super) node: String,
    /// Which of the node's processes, from 1.
    pub(super) number: u32,
    /// Whether it is spared.
    pub(super) elder: bool,
    pid: u32,
    began: Instant,
    /// MiB of memory.
    pub(super) resident: Series,
    /// MiB of it that no file is behind.
    pub(super) anonymous: Series,
    /// Open handles of files, sockets among them.
    pub(super) files: Series,
    /// Threads.
    pub(super) threads: Series,
}

struct Subject {
    name: String,
    elder: bool,
    running: Running,
    data: PathBuf,
}

impl Samples {
    /// From now on.
    pub(super) fn begin(cell: &Cell, elders: Elders, soak: &Soak) -> Self {
        let subject = |node: &Node, elder| Subject {
            name: node.name().to_owned(),
            elder,
            running: node.running(),
            data: node.data(),
        };
        let voters = cell.voters.iter().enumerate();
        let voters = voters.map(|(at, node)| subject(node, at == elders.voter));
        let replicas = cell.replicas.iter().enumerate();
        let replicas = replicas.map(|(at, node)| subject(node, at == elders.replica));
        let subjects: Vec<_> = voters.chain(replicas).collect();
        let shared = Arc::new(Mutex::new(Measured::default()));
        let every = EVERY_MIN.max(soak.duration / MOST);
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            let began = Instant::now();
            move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                    lock(&shared).measure(&subjects, began);
                }
            }
        });
        Self {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// What was measured so far.
    pub(super) fn so_far(&self) -> Measured {
        lock(&self.shared).clone()
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only reads.
            let _ = thread.join();
        }
    }
}

impl Measured {
    fn measure(&mut self, subjects: &[Subject], began: Instant) {
        self.process(JUDGE, false, std::process::id());
        for (at, subject) in subjects.iter().enumerate() {
            if let Some(pid) = subject.running.pid() {
                self.process(&subject.name, subject.elder, pid);
            }
            if self.disks.len() == at {
                self.disks.push((subject.name.clone(), Series::default()));
            }
            let seconds = began.elapsed().as_secs_f64();
            self.disks[at]
                .1
                .push(seconds, mib(disk_bytes(&subject.data)));
        }
    }

    fn process(&mut self, node: &str, elder: bool, pid: u32) {
        let now = Instant::now();
        // One that ends at this moment has nothing to tell any more.
        let Some(taken) = Taken::by(pid) else { return };
        let mut lives = self.lives.iter().rev();
        let last = lives.find(|life| life.node == node);
        let number = last.map_or(0, |life| life.number);
        if last.is_none_or(|life| life.pid != pid) {
            self.lives.push(Life {
                node: node.to_owned(),
                number: number + 1,
                elder,
                pid,
                began: now,
                resident: Series::default(),
                anonymous: Series::default(),
                files: Series::default(),
                threads: Series::default(),
            });
        }
        let mut lives = self.lives.iter_mut().rev();
        let life = lives.find(|life| life.node == node);
        let life = life.expect("it was there or has been added");
        let at = (now - life.began).as_secs_f64();
        life.resident.push(at, taken.resident);
        life.anonymous.push(at, taken.anonymous);
        life.files.push(at, taken.files);
        life.threads.push(at, taken.threads);
    }
}

/// What a process takes now.
struct Taken {
    resident: f64,
    anonymous: f64,
    files: f64,
    threads: f64,
}

impl Taken {
    #[expect(clippy::cast_precision_loss, reason = "numbers of files are small")]
    fn by(pid: u32) -> Option<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        Some(Self {
            resident: figure("VmRSS:")? / 1024.0,
            anonymous: figure("RssAnon:")? / 1024.0,
            files: std::fs::read_dir(process.join("fd")).ok()?.count() as f64,
            threads: figure("Threads:")?,
        })
    }
}

/// Bytes of all files below a directory, as `du` counts them. Files that go meanwhile count as nothing.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(told) if told.is_dir() => disk_bytes(&entry.path()),
        Ok(told) => told.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_that_are_opened_and_bytes_that_are_written_are_seen() {
        let before = Taken::by(std::process::id()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("file");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let open: Vec<_> = (0..100)
            .map(|_| std::fs::File::open(&path).unwrap())
            .collect();
        let after = Taken::by(std::process::id()).unwrap();
        assert!(after.files > before.files + 50.0, "{} files", open.len());
        assert!(after.threads >= 1.0 && after.resident >= after.anonymous);
        assert!(mib(disk_bytes(directory.path())) >= 1.0);
    }

    #[test]
    fn another_process_is_another_life() {
        let mut measured = Measured::default();
        let own = std::process::id();
        measured.process("node", false, own);
        measured.process("node", false, own);
        measured.process("other", false, own);
        measured.process("node", true, std::os::unix::process::parent_id());
        let lives: Vec<_> = measured
            .lives
            .iter()
            .map(|life| (&*life.node, life.number))
            .collect();
        assert_eq!(lives, [("node", 1), ("other", 1), ("node", 2)]);
    }
}
