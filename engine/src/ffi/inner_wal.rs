//! libSQL's own WAL object of one connection, with safe methods.

use std::ffi::c_int;
use std::ptr;

use libsql_ffi as c;
use tidemark_protocol::{PAGE_SIZE, PageNo};

use super::code::Code;

/// Flags for `xFrames` and `xCheckpoint` that amount to `synchronous=NORMAL`: no sync at a commit, a
/// sync of the WAL header when the WAL starts over (bits 2 and 3 are for everything but commits).
const SYNC_NORMAL: c_int = c::SQLITE_SYNC_NORMAL << 2;
const PAGE_SIZE_C: c_int = 4096;
const _: () = assert!(PAGE_SIZE_C as usize == PAGE_SIZE);

/// What identifies a snapshot of the WAL: its generation and the number of its last committed frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WalKey {
    salt: [u32; 2],
    frames: u32,
}

impl WalKey {
    /// Number of the last committed frame.
    pub(crate) fn frames(self) -> u32 {
        self.frames
    }

    /// Whether it is the beginning of the generation after that of `older`. SQLite begins one only when the
    /// database file has all of the one before, and counts them in the first salt, as big-endian bytes.
    pub(crate) fn begins_after(self, older: Self) -> bool {
        let generation = |key: Self| u32::from_be(key.salt[0]);
        self.frames == 0 && generation(self) == generation(older).wrapping_add(1)
    }

    #[cfg(test)]
    pub(crate) fn at(generation: u32, frames: u32) -> Self {
        Self {
            salt: [generation.to_be(), 4711],
            frames,
        }
    }
}

/// libSQL's own WAL object of one connection. Lives from `xOpen` to `xClose`.
pub(crate) struct InnerWal {
    wal: c::libsql_wal,
}

// SAFETY: the object has no thread affinity; whoever holds the `InnerWal` holds it exclusively, and the
// connection it belongs to is used by one thread at a time.
unsafe impl Send for InnerWal {}

impl std::fmt::Debug for InnerWal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InnerWal")
            .field("key", &self.key())
            .finish()
    }
}

/// Calls a method of the inner WAL object.
macro_rules! call {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let method = $self.wal.methods.$method.expect("libSQL fills in every method of its own WAL");
        // SAFETY: `pData` is the object these methods belong to, alive until `xClose` takes it, and
        // `&mut self` makes this the only use of it. The arguments' own needs are met at each call.
        unsafe { method($self.wal.pData, $($argument),*) }
    }};
}

impl InnerWal {
    /// Wraps what the built-in manager's `xOpen` filled in.
    pub(super) fn new(wal: c::libsql_wal) -> Self {
        Self { wal }
    }

    /// The object as C has it, for `xClose` and for methods that are handed through.
    pub(super) fn raw(&self) -> &c::libsql_wal {
        &self.wal
    }

    fn data(&self) -> &c::sqlite3_wal {
        // SAFETY: behind `pData` of libSQL's own WAL is a `sqlite3_wal`, whose layout the bindings take
        // from the same header the C code is compiled with; it lives as long as `self`.
        unsafe { &*self.wal.pData.cast::<c::sqlite3_wal>() }
    }

    /// Generation and last frame of the snapshot this connection has, or had last.
    pub(crate) fn key(&self) -> WalKey {
        let header = &self.data().hdr;
        WalKey {
            salt: header.aSalt,
            frames: header.mxFrame,
        }
    }

    /// Starts a read transaction. Whether the content changed since this connection's last one.
    pub(crate) fn begin_read(&mut self) -> Result<bool, Code> {
        let mut changed = 0;
        Code::check(call!(self.xBeginReadTransaction(&mut changed)))?;
        Ok(changed != 0)
    }

    /// Ends the read transaction, and a write transaction on top of it.
    pub(crate) fn end_read(&mut self) {
        call!(self.xEndReadTransaction());
    }

    /// Takes the write lock. A read transaction must be open.
    pub(crate) fn begin_write(&mut self) -> Result<(), Code> {
        Code::check(call!(self.xBeginWriteTransaction()))
    }

    /// Releases the write lock.
    pub(crate) fn end_write(&mut self) {
        let _always_ok = call!(self.xEndWriteTransaction());
    }

    /// The frame that holds `page` in the current snapshot; 0 if the database file does.
    pub(crate) fn find_frame(&mut self, page: PageNo) -> Result<u32, Code> {
        let mut frame = 0;
        Code::check(call!(self.xFindFrame(page.0, &mut frame)))?;
        Ok(frame)
    }

    /// Reads a frame's page.
    pub(crate) fn read_frame(&mut self, frame: u32, into: &mut [u8]) -> Result<(), Code> {
        let length = c_int::try_from(into.len()).map_err(|_| Code(c::SQLITE_MISUSE))?;
        Code::check(call!(self.xReadFrame(frame, length, into.as_mut_ptr())))
    }

    /// Pages of the database in the current snapshot; 0 if the WAL does not tell.
    pub(crate) fn pages(&mut self) -> u32 {
        call!(self.xDbsize())
    }

    /// Writes `pages` as one committed WAL transaction. Read and write transactions must be open.
    pub(crate) fn write_commit(
        &mut self,
        pages: &[(PageNo, &[u8; PAGE_SIZE])],
        pages_after: u32,
    ) -> Result<(), Code> {
        if pages.is_empty() || pages_after == 0 {
            return Err(Code(c::SQLITE_MISUSE));
        }
        let mut headers: Vec<c::libsql_pghdr> = pages
            .iter()
            .map(|(page, image)| c::libsql_pghdr {
                pPage: ptr::null_mut(),
                pData: image.as_ptr().cast_mut().cast(),
                pExtra: ptr::null_mut(),
                pCache: ptr::null_mut(),
                pDirty: ptr::null_mut(),
                pPager: ptr::null_mut(),
                pgno: page.0,
                pageHash: 0,
                flags: 0,
                nRef: 0,
                pDirtyNext: ptr::null_mut(),
                pDirtyPrev: ptr::null_mut(),
            })
            .collect();
        let first = headers.as_mut_ptr();
        for index in 1..headers.len() {
            // SAFETY: both indexes are within `headers`, which is not moved from here on.
            unsafe { (*first.add(index - 1)).pDirty = first.add(index) };
        }
        // SAFETY (of the list): it outlives the call; libSQL reads `pData`, `pgno` and `pDirty` and
        // writes `flags`, nothing else, when it has no encryption compiled in.
        // The frame count it could return is null on purpose: it is wrong after a spill.
        Code::check(call!(self.xFrames(
            PAGE_SIZE_C,
            first,
            pages_after,
            1,
            SYNC_NORMAL,
            ptr::null_mut()
        )))
    }

    /// Reads a page of the database file, past the WAL. Bytes beyond the end of the file are zero, as
    /// SQLite itself reads them.
    pub(crate) fn read_file(
        &mut self,
        page: PageNo,
        into: &mut [u8; PAGE_SIZE],
    ) -> Result<(), Code> {
        let file = self.data().pDbFd;
        let offset = i64::from(page.0 - 1) * i64::from(PAGE_SIZE_C);
        // SAFETY: the file is open as long as the WAL object is; `into` has PAGE_SIZE bytes.
        let raw = unsafe {
            let read = (*(*file).pMethods).xRead.expect("every VFS can read");
            read(file, into.as_mut_ptr().cast(), PAGE_SIZE_C, offset)
        };
        // A short read has zeroed the rest.
        if raw == c::SQLITE_IOERR_SHORT_READ {
            Ok(())
        } else {
            Code::check(raw)
        }
    }

    /// Whole pages in the database file.
    pub(crate) fn file_pages(&mut self) -> Result<u32, Code> {
        let file = self.data().pDbFd;
        let mut bytes = 0;
        // SAFETY: the file is open as long as the WAL object is.
        Code::check(unsafe {
            let size = (*(*file).pMethods)
                .xFileSize
                .expect("every VFS can tell a file's size");
            size(file, &mut bytes)
        })?;
        u32::try_from(bytes / i64::from(PAGE_SIZE_C)).map_err(|_| Code(c::SQLITE_TOOBIG))
    }

    /// Reads a page as the current snapshot has it, from the WAL or the file.
    pub(crate) fn read_page(
        &mut self,
        page: PageNo,
        into: &mut [u8; PAGE_SIZE],
    ) -> Result<(), Code> {
        match self.find_frame(page)? {
            0 => self.read_file(page, into),
            frame => self.read_frame(frame, into),
        }
    }

    /// Pages of the database in the current snapshot, from the WAL or the file.
    pub(crate) fn snapshot_pages(&mut self) -> Result<u32, Code> {
        match self.pages() {
            0 => self.file_pages(),
            pages => Ok(pages),
        }
    }
}
