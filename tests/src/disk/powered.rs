//! Disks under whose nodes the power can fail: each node's files are on a file system of its own, served by this process
//! (FUSE), which keeps in memory what was synced and what was not.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use tempfile::TempDir;

use super::volatile::{Ino, Lost, ROOT, Volatile};
use super::write_script;
use crate::cell::{Cell, Layout};
use crate::node::Node;

/// The kernel keeps nothing: what it showed before the power failed would not be true after.
const NO_TIME: Duration = Duration::ZERO;
const BLOCK_BYTES: u32 = 4096;
/// What a sync takes, as on a disk: time in which the power can fail.
const SYNC_TAKES: Duration = Duration::from_millis(3);
/// So that others are served meanwhile.
const THREADS: usize = 4;
/// Room that the disks say they have.
const BLOCKS: u64 = 1 << 20;

/// A cell under whose nodes the power can fail.
#[derive(Debug)]
pub struct PoweredCell {
    /// The cell.
    pub cell: Cell,
    // After the cell: the processes go first.
    disks: Vec<Disk>,
    _directory: TempDir,
}

/// A mounted disk.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    content: Arc<Mutex<Volatile>>,
    session: Option<BackgroundSession>,
}

impl PoweredCell {
    /// Whether file systems can be served here. Says on standard error when they cannot.
    pub fn available() -> bool {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        match Disk::mount(directory.path()) {
            Ok(_) => true,
            Err(error) => {
                eprintln!("skipped: file systems cannot be served here (FUSE): {error}");
                false
            }
        }
    }

    /// Starts what `layout` says, and waits until all are ready.
    pub async fn start(program: &str, layout: Layout) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("tidemark-powered-")
            .tempdir()
            .expect("make a temporary directory");
        let mounts = directory.path().join("mounts");
        let nodes = (1..=layout.voters).map(|id| format!("voter-{id}"));
        let nodes = nodes.chain((1..=layout.replicas).map(|number| format!("replica-{number}")));
        let disks = nodes.map(|node| {
            let path = mounts.join(node);
            std::fs::create_dir_all(&path).expect("make a directory to mount on");
            Disk::mount(&path).expect("mount a disk")
        });
        let disks = disks.collect();
        let script = format!(
            "#!/bin/sh\n\
             for word; do [ \"$before\" = --data ] && data=$word; before=$word; done\n\
             [ -e \"$data\" ] || ln -s '{mounts}'/\"$(basename \"$(dirname \"$data\")\")\" \"$data\"\n\
             exec '{program}' \"$@\"\n",
            mounts = mounts.display(),
        );
        let stand_in = directory.path().join("node");
        write_script(&stand_in, &script);
        let cell = Cell::of(&stand_in.to_string_lossy(), layout).await;
        Self {
            cell,
            disks,
            _directory: directory,
        }
    }

    /// The power of this node fails: the process is gone, and of what it had not synced all that had not reached the disk.
    pub fn fail(&mut self, voter: usize, random: &mut fastrand::Rng) -> Lost {
        let node = &mut self.cell.voters[voter];
        node.kill();
        let disk = disk_of(&self.disks, node);
        disk.content().fail(random)
    }

    /// The power of all nodes fails.
    pub fn fail_all(&mut self, random: &mut fastrand::Rng) -> Vec<Lost> {
        self.cell.nodes_mut().for_each(Node::kill);
        let disks = self.disks.iter();
        disks.map(|disk| disk.content().fail(random)).collect()
    }
}

fn disk_of<'d>(disks: &'d [Disk], node: &Node) -> &'d Disk {
    let data = node.data().canonicalize().expect("a node's directory");
    let mut disks = disks.iter();
    let disk = disks.find(|disk| disk.path == data);
    disk.expect("each node has a disk")
}

impl Disk {
    fn mount(path: &Path) -> io::Result<Self> {
        let content = Arc::new(Mutex::new(Volatile::new()));
        let served = Served(Arc::clone(&content));
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("tidemark-test".to_owned())];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(served, path, &config)?;
        Ok(Self {
            path: path.canonicalize()?,
            content,
            session: Some(session),
        })
    }

    fn content(&self) -> MutexGuard<'_, Volatile> {
        lock(&self.content)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that ends may have it in use for a moment; there is nobody left to tell of an error.
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .status();
        drop(self.session.take());
    }
}

/// What the kernel is served.
struct Served(Arc<Mutex<Volatile>>);

fn lock(content: &Mutex<Volatile>) -> MutexGuard<'_, Volatile> {
    // A panic in a test leaves nothing that another would read.
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Served {
    fn content(&self) -> MutexGuard<'_, Volatile> {
        lock(&self.0)
    }
}

fn attributes(content: &Volatile, ino: Ino) -> Option<FileAttr> {
    let is_directory = content.is_directory(ino);
    let size = match content.length(ino) {
        Some(length) => length as u64,
        None if is_directory => 0,
        None => return None,
    };
    let kind = if is_directory {
        FileType::Directory
    } else {
        FileType::RegularFile
    };
    Some(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    })
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("files fit into memory")
}

fn done(reply: ReplyEmpty, is_there: bool) {
    if is_there {
        reply.ok();
    } else {
        reply.error(Errno::ENOENT);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "on a thread of the file system, which is a slow disk"
)]
fn take_time() {
    std::thread::sleep(SYNC_TAKES);
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let content = self.content();
        let found = content.look_up(parent.0, name);
        match found.and_then(|ino| attributes(&content, ino)) {
            Some(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.content(), ino.0) {
            Some(attributes) => reply.attr(&NO_TIME, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut content = self.content();
        if let Some(size) = size {
            content.set_length(ino.0, at(size));
        }
        match attributes(&content, ino.0) {
            Some(attributes) => reply.attr(&NO_TIME, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut content = self.content();
        let ino = content.make(parent.0, name, true);
        let attributes = attributes(&content, ino).expect("it was just made");
        reply.entry(&NO_TIME, &attributes, Generation(0));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.content().remove(parent.0, name);
        reply.ok();
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut content = self.content();
        let found = content.look_up(parent.0, name);
        let mut names = found.and_then(|ino| content.names(ino).map(Iterator::count));
        match names.take() {
            Some(0) => {
                content.remove(parent.0, name);
                reply.ok();
            }
            Some(_) => reply.error(Errno::ENOTEMPTY),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self
            .content()
            .rename((parent.0, name), (newparent.0, newname));
        done(reply, renamed);
    }

    fn open(&self, _: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut content = self.content();
        let ino = content.make(parent.0, name, false);
        let attributes = attributes(&content, ino).expect("it was just made");
        let (handle, flags) = (FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        reply.created(&NO_TIME, &attributes, Generation(0), handle, flags);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.content().read(ino.0, at(offset), size as usize) {
            Some(bytes) => reply.data(bytes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let size = u32::try_from(data.len()).expect("the kernel writes in small pieces");
        if self.content().write(ino.0, at(offset), data) {
            reply.written(size);
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        take_time();
        let synced = self.content().sync(ino.0);
        done(reply, synced);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        take_time();
        self.content().sync_names();
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let content = self.content();
        let Some(names) = content.names(ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        for (place, (name, ino)) in (1_u64..).zip(names).skip(at(offset)) {
            let kind = if content.is_directory(ino) {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(ino), place, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCK_BYTES,
            255,
            BLOCK_BYTES,
        );
    }
}

const _: () = assert!(ROOT == INodeNo::ROOT.0);
