//! Files in transit, in a directory of their own: SQL that was uploaded, exports that wait to be fetched.
//!
//! A file lasts as long as somebody holds its [`Spooled`], and is gone after a crash: [`Spool::open`] empties
//! the directory. All files together have a bound, and the last of the disk's space is left to the log: a node
//! that cannot write its log has to end.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemark_protocol::{Failure, FailureKind};
use tokio::runtime::Handle;
use tracing::warn;

/// Space on the disk is looked at each time that a file has grown by this.
const LOOK_EVERY_BYTES: u64 = 4 << 20;
/// What a file takes on the disk, however small.
const FILE_BYTES_MIN: u64 = 4096;
/// How long a client should wait that met a full spool.
const FULL_WAIT: Duration = Duration::from_secs(30);

/// Bounds on files in transit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpoolConfig {
    /// Where they are. The directory is made if need be, and emptied.
    pub directory: PathBuf,
    /// Bytes of all of them, each counted as 4 KiB at least. Over it: 429. 4 GiB.
    pub bytes_max: u64,
    /// How many there may be. Over it: 429. 1,000.
    pub files_max: u64,
    /// Bytes of one that is to be imported, which is read into memory whole. Over it: 413. 512 MiB.
    pub import_bytes_max: u64,
    /// Bytes that are left free on the disk: for the log. 256 MiB.
    pub free_bytes_min: u64,
    /// How long a file, or a link to send one to, lasts. 1 h.
    pub age_max: Duration,
}

impl SpoolConfig {
    /// Default bounds.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            bytes_max: 4 << 30,
            files_max: 1000,
            import_bytes_max: 512 << 20,
            free_bytes_min: 256 << 20,
            age_max: Duration::from_secs(3600),
        }
    }
}

/// Why a file cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SpoolError {
    #[error("the files in transit on this node are {used} bytes already, the limit is {max} bytes")]
    Full { used: u64, max: u64 },
    #[error("{max} files are in transit on this node, which is the limit")]
    Files { max: u64 },
    #[error(
        "the disk of this node has {free} bytes free, of which {min} are kept for its log: no room for a file"
    )]
    LowDisk { free: u64, min: u64 },
    #[error("this node cannot {doing} a file in transit: {source}")]
    Io {
        doing: &'static str,
        source: io::Error,
    },
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        let text = error.to_string();
        match error {
            SpoolError::Full { .. } | SpoolError::Files { .. } => {
                Failure::new(FailureKind::Overloaded, text).retry_after(FULL_WAIT)
            }
            SpoolError::LowDisk { .. } | SpoolError::Io { .. } => {
                Failure::new(FailureKind::Internal, text)
            }
        }
    }
}

/// The directory, and how much is in it.
#[derive(Debug)]
pub struct Spool {
    config: SpoolConfig,
    used: AtomicU64,
    files: AtomicU64,
    made: AtomicU64,
}

impl Spool {
    /// Makes the directory, or empties it: files named as ours are were of a process that has ended.
    pub fn open(config: SpoolConfig) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(&config.directory)?;
        for entry in std::fs::read_dir(&config.directory)? {
            let path = entry?.path();
            if is_ours(&path) && path.is_file() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Arc::new(Self {
            config,
            used: AtomicU64::new(0),
            files: AtomicU64::new(0),
            made: AtomicU64::new(0),
        }))
    }

    pub(crate) fn config(&self) -> &SpoolConfig {
        &self.config
    }

    /// Begins a file. Blocks, as all that has to do with files here.
    pub(crate) fn create(self: &Arc<Self>) -> Result<SpoolWriter, SpoolError> {
        let counted = self.count()?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.config.directory.join(format!("{number}.sql"));
        let mut options = File::options();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(io_at("make"))?;
        Ok(SpoolWriter {
            file,
            looked_at: None,
            spooled: Spooled {
                path,
                bytes: 0,
                counted,
            },
        })
    }

    /// Takes room for a file.
    fn count(self: &Arc<Self>) -> Result<Counted, SpoolError> {
        let max = self.config.files_max;
        let one_more = |files: u64| (files < max).then_some(files + 1);
        let counted = self
            .files
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.map_err(|_| SpoolError::Files { max })?;
        // From here on it is given back.
        let mut counted = Counted {
            spool: Arc::clone(self),
            bytes: 0,
        };
        counted.grow_to(FILE_BYTES_MIN)?;
        Ok(counted)
    }

    /// Takes room for more of a file.
    fn grow(&self, bytes: u64) -> Result<(), SpoolError> {
        let max = self.config.bytes_max;
        let grown = |used: u64| used.checked_add(bytes).filter(|used| *used <= max);
        let grow = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        match grow {
            Ok(_) => Ok(()),
            Err(used) => Err(SpoolError::Full { used, max }),
        }
    }

    fn check_disk(&self) -> Result<(), SpoolError> {
        let min = self.config.free_bytes_min;
        let disk = rustix::fs::statvfs(&self.config.directory)
            .map_err(|error| io_at("look for room for")(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < min.saturating_add(LOOK_EVERY_BYTES) {
            return Err(SpoolError::LowDisk { free, min });
        }
        Ok(())
    }
}

fn io_at(doing: &'static str) -> impl Fn(io::Error) -> SpoolError {
    move |source| SpoolError::Io { doing, source }
}

/// A file that is being written. Gone if it is dropped.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    file: File,
    /// Bytes that it had when the disk was looked at last.
    looked_at: Option<u64>,
    spooled: Spooled,
}

impl SpoolWriter {
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        let spooled = &mut self.spooled;
        let looked_at = self.looked_at;
        if looked_at.is_none_or(|at| spooled.bytes - at >= LOOK_EVERY_BYTES) {
            spooled.counted.spool.check_disk()?;
            self.looked_at = Some(spooled.bytes);
        }
        let bytes = piece.len() as u64;
        spooled.counted.grow_to(spooled.bytes + bytes)?;
        spooled.bytes += bytes;
        self.file.write_all(piece).map_err(io_at("write"))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.spooled.bytes
    }

    /// The file, whole.
    pub(crate) fn finish(self) -> Arc<Spooled> {
        Arc::new(self.spooled)
    }
}

/// A file. Gone when the last holder lets go.
#[derive(Debug)]
pub(crate) struct Spooled {
    path: PathBuf,
    bytes: u64,
    counted: Counted,
}

/// A file's part of the bounds.
#[derive(Debug)]
struct Counted {
    spool: Arc<Spool>,
    bytes: u64,
}

impl Counted {
    fn grow_to(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let more = bytes.saturating_sub(self.bytes);
        self.spool.grow(more)?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.spool.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.spool.files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spooled {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = std::fs::remove_file(&path) {
                warn!(path = %path.display(), %error, "a file in transit stays");
            }
        };
        // Freeing a large file takes a while, which the runtime's threads must not spend.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Whether a file is named as those made here.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_suffix(".sql"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
