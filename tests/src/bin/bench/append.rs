//! What the disk allows: records of as many bytes as the log writes per update, appended by a closed loop of writers
//! and made durable in groups by the log's rules (`docs/decisions/0004-log-flush.md`), and nothing else.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::oneshot;

use crate::load::Round;

/// Size at which the log closes a segment.
const SEGMENT_BYTES: usize = 64 << 20;
/// The log's pause after a flush of several entries: from this length on,
const LINGER_FROM: Duration = Duration::from_micros(400);
/// as a part of it,
const LINGER_SHARE: u32 = 8;
/// and at most.
const LINGER_MAX: Duration = Duration::from_micros(250);

/// One who appends, to be told when it is durable.
type Waiter = oneshot::Sender<()>;

/// Appends records of `bytes` to files in `directory` by `writers` at a time, for `duration`.
pub(crate) async fn run(
    directory: PathBuf,
    bytes: usize,
    writers: u64,
    duration: Duration,
) -> anyhow::Result<Round> {
    let start = Instant::now();
    let (queue, queued) = channel();
    let flusher: JoinHandle<anyhow::Result<()>> =
        std::thread::spawn(move || flush(Segment::first(&directory)?, bytes, &queued));
    let tasks: Vec<_> = (0..writers)
        .map(|_| tokio::spawn(one(queue.clone(), start + duration)))
        .collect();
    drop(queue);
    let mut micros = Histogram::new(3)?;
    for task in tasks {
        micros.add(task.await??)?;
    }
    let elapsed = start.elapsed();
    let flushed = tokio::task::spawn_blocking(|| flusher.join()).await?;
    flushed.expect("the flushing thread does not panic")?;
    Ok(Round {
        requests: micros.len(),
        elapsed,
        micros,
    })
}

async fn one(queue: Sender<Waiter>, until: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut micros = Histogram::new(3)?;
    while Instant::now() < until {
        let (waiter, durable) = oneshot::channel();
        let sent = Instant::now();
        queue.send(waiter)?;
        durable.await?;
        micros.record(u64::try_from(sent.elapsed().as_micros())?.max(1))?;
    }
    Ok(micros)
}

/// At most one flush at a time; what is appended meanwhile goes with the next.
fn flush(mut segment: Segment, bytes: usize, queued: &Receiver<Waiter>) -> anyhow::Result<()> {
    let mut group = Vec::new();
    while let Ok(first) = queued.recv() {
        let begun = Instant::now();
        let waiters: Vec<Waiter> = std::iter::once(first).chain(queued.try_iter()).collect();
        group.resize(group.len().max(bytes * waiters.len()), 0xa5);
        segment.append(&group[..bytes * waiters.len()])?;
        let (count, took) = (waiters.len(), begun.elapsed());
        for waiter in waiters {
            let _ = waiter.send(()); // its round may be over
        }
        if count > 1 && took >= LINGER_FROM {
            #[allow(clippy::disallowed_methods)] // the log lingers as long
            std::thread::sleep((took / LINGER_SHARE).min(LINGER_MAX));
        }
    }
    std::fs::remove_file(&segment.path)?;
    Ok(())
}

struct Segment {
    path: PathBuf,
    file: File,
    length: usize,
}

impl Segment {
    fn first(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("appended");
        let file = Self::begin(&path)?;
        Ok(Self {
            path,
            file,
            length: 0,
        })
    }

    fn begin(path: &Path) -> anyhow::Result<File> {
        let options = OpenOptions::new().create(true).append(true).clone();
        let _ = std::fs::remove_file(path);
        Ok(options.open(path)?)
    }

    fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.length >= SEGMENT_BYTES {
            self.file = Self::begin(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(bytes)?;
        self.file.sync_data()?;
        self.length += bytes.len();
        Ok(())
    }
}
