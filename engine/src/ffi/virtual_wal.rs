//! A WAL of our own between SQLite's pager and libSQL's WAL: the method table, and its safe face.
//!
//! [`VirtualWal`] is what the overlay and the probe implement. The functions below translate SQLite's
//! calls into it: each locks the object, catches panics, and answers with a code. The object is shared
//! with its owner on the Rust side through `Arc<Mutex<..>>`; the lock is never contended, because a
//! connection and its owner are one thread at a time.
//!
//! Trap: `xUndo` calls back into the pager, which may read pages through this very table. The pages
//! are therefore collected first and the callback runs without the lock.

use std::ffi::{c_char, c_int, c_longlong, c_uchar, c_uint, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Mutex};

use libsql_ffi as c;
use tidemark_protocol::{PAGE_SIZE, PageNo};

use super::code::Code;
use super::inner_wal::InnerWal;

/// What the overlay and the probe do in place of libSQL's WAL. Defaults hand the call through.
pub(crate) trait VirtualWal: Send + 'static {
    /// Where the inner WAL is kept: filled when the connection opens it, emptied when it closes.
    fn inner_slot(&mut self) -> &mut Option<InnerWal>;

    /// The inner WAL.
    fn inner(&mut self) -> Result<&mut InnerWal, Code> {
        self.inner_slot().as_mut().ok_or(Code(c::SQLITE_MISUSE))
    }

    /// Starts a read transaction: whether the page cache is out of date.
    fn begin_read(&mut self) -> Result<bool, Code> {
        self.inner()?.begin_read()
    }

    /// Ends it.
    fn end_read(&mut self) {
        if let Ok(inner) = self.inner() {
            inner.end_read();
        }
    }

    /// A number by which [`VirtualWal::read_frame`] finds the page; 0 if the database file has it.
    fn find_frame(&mut self, page: PageNo) -> Result<u32, Code> {
        self.inner()?.find_frame(page)
    }

    /// Reads the page that [`VirtualWal::find_frame`] found.
    fn read_frame(&mut self, frame: u32, into: &mut [u8]) -> Result<(), Code> {
        self.inner()?.read_frame(frame, into)
    }

    /// Pages of the database; 0 if the file's size tells.
    fn pages(&mut self) -> u32 {
        self.inner().map_or(0, InnerWal::pages)
    }

    /// Takes the write lock.
    fn begin_write(&mut self) -> Result<(), Code>;

    /// Releases it.
    fn end_write(&mut self) {
        if let Ok(inner) = self.inner() {
            inner.end_write();
        }
    }

    /// Takes pages of a transaction, and with `commit` the transaction itself.
    fn frames(&mut self, pages: PageList<'_>, pages_after: u32, commit: bool) -> Result<(), Code>;

    /// Forgets the transaction in hand; returns the pages it had written.
    fn undo(&mut self) -> Vec<PageNo>;

    /// A mark to come back to within the transaction in hand.
    fn savepoint(&mut self) -> u32;

    /// Comes back to a mark.
    fn savepoint_undo(&mut self, mark: u32) -> Result<(), Code>;

    /// Runs a checkpoint.
    fn checkpoint(&mut self, call: CheckpointCall) -> Result<(), Code>;
}

/// The pages SQLite hands over in one call, lent for its duration.
#[derive(Clone, Copy)]
pub(crate) struct PageList<'call> {
    next: *const c::libsql_pghdr,
    _lent: PhantomData<&'call c::libsql_pghdr>,
}

impl<'call> Iterator for PageList<'call> {
    type Item = (PageNo, &'call [u8; PAGE_SIZE]);

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: SQLite hands over a null-terminated list linked through `pDirty`, valid during the
        // call that `'call` stands for; each `pData` is a page, and `frames` has checked its size.
        unsafe {
            let header = self.next.as_ref()?;
            self.next = header.pDirty;
            Some((
                PageNo(header.pgno),
                &*header.pData.cast::<[u8; PAGE_SIZE]>(),
            ))
        }
    }
}

/// A checkpoint that SQLite asks for, to be handed to the inner WAL as it is.
#[derive(Debug)]
pub(crate) struct CheckpointCall {
    db: *mut c::sqlite3,
    mode: c_int,
    busy: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    busy_argument: *mut c_void,
    sync_flags: c_int,
    buffer_bytes: c_int,
    buffer: *mut c_uchar,
    frames: *mut c_int,
    backfilled: *mut c_int,
}

impl CheckpointCall {
    /// Runs it on libSQL's own WAL.
    pub(crate) fn run(self, inner: &mut InnerWal) -> Result<(), Code> {
        let wal = inner.raw();
        let method = wal
            .methods
            .xCheckpoint
            .expect("libSQL fills in every method of its own WAL");
        // SAFETY: the arguments are those that SQLite passed to our `xCheckpoint`, which is still on
        // the stack; the object is alive and `inner` is exclusive.
        Code::check(unsafe {
            method(
                wal.pData,
                self.db,
                self.mode,
                self.busy,
                self.busy_argument,
                self.sync_flags,
                self.buffer_bytes,
                self.buffer,
                self.frames,
                self.backfilled,
                None,
                ptr::null_mut(),
            )
        })
    }
}

/// What stands behind both `wal_manager_impl` and `wal_impl`.
struct Slot<W> {
    wal: Arc<Mutex<W>>,
}

/// The table that makes SQLite use `wal`. Ownership of the slot passes to SQLite, which gives it back
/// through `xDestroy`.
pub(super) fn manager<W: VirtualWal>(wal: Arc<Mutex<W>>) -> c::libsql_wal_manager {
    c::libsql_wal_manager {
        bUsesShm: 1,
        xOpen: Some(x_open::<W>),
        xClose: Some(x_close::<W>),
        xLogDestroy: Some(x_log_destroy),
        xLogExists: Some(x_log_exists),
        xDestroy: Some(x_destroy::<W>),
        pData: Box::into_raw(Box::new(Slot { wal })).cast(),
    }
}

fn methods<W: VirtualWal>() -> c::libsql_wal_methods {
    c::libsql_wal_methods {
        iVersion: 2,
        xLimit: Some(x_limit::<W>),
        xBeginReadTransaction: Some(x_begin_read::<W>),
        xEndReadTransaction: Some(x_end_read::<W>),
        xFindFrame: Some(x_find_frame::<W>),
        xReadFrame: Some(x_read_frame::<W>),
        xReadFrameRaw: Some(x_read_frame_raw),
        xDbsize: Some(x_db_size::<W>),
        xBeginWriteTransaction: Some(x_begin_write::<W>),
        xEndWriteTransaction: Some(x_end_write::<W>),
        xUndo: Some(x_undo::<W>),
        xSavepoint: Some(x_savepoint::<W>),
        xSavepointUndo: Some(x_savepoint_undo::<W>),
        xFrameCount: Some(x_frame_count),
        xFrames: Some(x_frames::<W>),
        xCheckpoint: Some(x_checkpoint::<W>),
        xCallback: Some(x_callback),
        xExclusiveMode: Some(x_exclusive_mode::<W>),
        xHeapMemory: Some(x_heap_memory::<W>),
        // Not compiled in: SQLITE_ENABLE_SNAPSHOT, ZIPVFS, SETLK_TIMEOUT.
        xSnapshotGet: None,
        xSnapshotOpen: None,
        xSnapshotRecover: None,
        xSnapshotCheck: None,
        xSnapshotUnlock: None,
        xFramesize: None,
        xFile: Some(x_file::<W>),
        xWriteLock: None,
        xDb: Some(x_db::<W>),
        xSavepointForget: Some(x_savepoint_forget),
    }
}

/// Runs `work` on the object behind `wal`; a panic or a poisoned lock becomes an error.
///
/// # Safety
/// `wal` must be a pointer made by [`manager`] or [`x_open`] for the same `W`, not yet given back.
unsafe fn with<W, P, R>(
    wal: *mut P,
    work: impl FnOnce(&mut W) -> Result<R, Code>,
) -> Result<R, Code> {
    // SAFETY: by this function's contract.
    let slot = unsafe { &*wal.cast::<Slot<W>>() };
    catch_unwind(AssertUnwindSafe(|| {
        // The panic that poisons the lock happened on this connection: its state is in doubt.
        let mut wal = slot.wal.lock().map_err(|_| Code(c::SQLITE_INTERNAL))?;
        work(&mut wal)
    }))
    .unwrap_or(Err(Code(c::SQLITE_INTERNAL)))
}

fn raw(result: Result<(), Code>) -> c_int {
    result.map_or_else(|code| code.0, |()| c::SQLITE_OK)
}

unsafe extern "C" fn x_open<W: VirtualWal>(
    manager: *mut c::wal_manager_impl,
    vfs: *mut c::sqlite3_vfs,
    file: *mut c::sqlite3_file,
    no_shm: c_int,
    size_max: c_longlong,
    name: *const c_char,
    out: *mut c::libsql_wal,
) -> c_int {
    // SAFETY: SQLite passes arguments that its own manager would be given; `out` is a zeroed
    // `libsql_wal` that we fill in on success. `manager` came from `manager::<W>`.
    unsafe {
        let built_in = c::sqlite3_wal_manager;
        let mut inner = std::mem::zeroed::<c::libsql_wal>();
        let open = built_in.xOpen.expect("libSQL fills in its own manager");
        let code = open(
            built_in.pData,
            vfs,
            file,
            no_shm,
            size_max,
            name,
            &mut inner,
        );
        if code != c::SQLITE_OK {
            return code;
        }
        let stored = with::<W, _, _>(manager, |wal| {
            *wal.inner_slot() = Some(InnerWal::new(inner));
            Ok(())
        });
        if let Err(code) = stored {
            return code.0; // the inner object leaks: its lock is poisoned and nothing is usable
        }
        let wal = (*manager.cast::<Slot<W>>()).wal.clone();
        (*out).methods = methods::<W>();
        (*out).pData = Box::into_raw(Box::new(Slot { wal })).cast();
    }
    c::SQLITE_OK
}

unsafe extern "C" fn x_close<W: VirtualWal>(
    _manager: *mut c::wal_manager_impl,
    wal: *mut c::wal_impl,
    db: *mut c::sqlite3,
    sync_flags: c_int,
    buffer_bytes: c_int,
    buffer: *mut c_uchar,
) -> c_int {
    // SAFETY: SQLite closes a WAL once, with the pointer that `x_open` made, and does not use it again.
    unsafe {
        let inner = with::<W, _, _>(wal, |wal| Ok(wal.inner_slot().take()));
        drop(Box::from_raw(wal.cast::<Slot<W>>()));
        match inner {
            Ok(Some(inner)) => {
                let built_in = c::sqlite3_wal_manager;
                let close = built_in.xClose.expect("libSQL fills in its own manager");
                let data = inner.raw().pData;
                close(built_in.pData, data, db, sync_flags, buffer_bytes, buffer)
            }
            Ok(None) => c::SQLITE_MISUSE,
            Err(code) => code.0,
        }
    }
}

unsafe extern "C" fn x_destroy<W>(manager: *mut c::wal_manager_impl) {
    // SAFETY: SQLite destroys a manager once, with the pointer that `manager` made.
    unsafe { drop(Box::from_raw(manager.cast::<Slot<W>>())) };
}

unsafe extern "C" fn x_log_destroy(
    _manager: *mut c::wal_manager_impl,
    vfs: *mut c::sqlite3_vfs,
    name: *const c_char,
) -> c_int {
    // SAFETY: the arguments are those SQLite would give its own manager.
    unsafe {
        let built_in = c::sqlite3_wal_manager;
        built_in
            .xLogDestroy
            .expect("libSQL fills in its own manager")(built_in.pData, vfs, name)
    }
}

unsafe extern "C" fn x_log_exists(
    _manager: *mut c::wal_manager_impl,
    vfs: *mut c::sqlite3_vfs,
    name: *const c_char,
    exists: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are those SQLite would give its own manager.
    unsafe {
        let built_in = c::sqlite3_wal_manager;
        built_in
            .xLogExists
            .expect("libSQL fills in its own manager")(built_in.pData, vfs, name, exists)
    }
}

unsafe extern "C" fn x_begin_read<W: VirtualWal>(
    wal: *mut c::wal_impl,
    changed: *mut c_int,
) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`, `changed` is an out parameter of SQLite.
    unsafe {
        match with(wal, W::begin_read) {
            Ok(is_changed) => {
                *changed = c_int::from(is_changed);
                c::SQLITE_OK
            }
            Err(code) => code.0,
        }
    }
}

unsafe extern "C" fn x_end_read<W: VirtualWal>(wal: *mut c::wal_impl) {
    // SAFETY: `wal` came from `x_open::<W>`. A failure here shows in the next call.
    let _ = unsafe {
        with(wal, |wal: &mut W| {
            wal.end_read();
            Ok(())
        })
    };
}

unsafe extern "C" fn x_find_frame<W: VirtualWal>(
    wal: *mut c::wal_impl,
    page: c_uint,
    frame: *mut c_uint,
) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`, `frame` is an out parameter of SQLite.
    unsafe {
        match with(wal, |wal: &mut W| wal.find_frame(PageNo(page))) {
            Ok(found) => {
                *frame = found;
                c::SQLITE_OK
            }
            Err(code) => code.0,
        }
    }
}

unsafe extern "C" fn x_read_frame<W: VirtualWal>(
    wal: *mut c::wal_impl,
    frame: c_uint,
    length: c_int,
    into: *mut c_uchar,
) -> c_int {
    let Ok(length) = usize::try_from(length) else {
        return c::SQLITE_MISUSE;
    };
    // SAFETY: `wal` came from `x_open::<W>`; SQLite lends a buffer of `length` bytes.
    unsafe {
        let into = std::slice::from_raw_parts_mut(into, length);
        raw(with(wal, |wal: &mut W| wal.read_frame(frame, into)))
    }
}

/// Raw frames are for libSQL's replication calls, which nobody here makes.
unsafe extern "C" fn x_read_frame_raw(
    _wal: *mut c::wal_impl,
    _frame: c_uint,
    _length: c_int,
    _into: *mut c_uchar,
) -> c_int {
    c::SQLITE_MISUSE
}

unsafe extern "C" fn x_db_size<W: VirtualWal>(wal: *mut c::wal_impl) -> c_uint {
    // SAFETY: `wal` came from `x_open::<W>`.
    unsafe { with(wal, |wal: &mut W| Ok(wal.pages())) }.unwrap_or(0)
}

unsafe extern "C" fn x_begin_write<W: VirtualWal>(wal: *mut c::wal_impl) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`.
    raw(unsafe { with(wal, W::begin_write) })
}

unsafe extern "C" fn x_end_write<W: VirtualWal>(wal: *mut c::wal_impl) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`.
    raw(unsafe {
        with(wal, |wal: &mut W| {
            wal.end_write();
            Ok(())
        })
    })
}

unsafe extern "C" fn x_undo<W: VirtualWal>(
    wal: *mut c::wal_impl,
    undo: Option<unsafe extern "C" fn(*mut c_void, c_uint) -> c_int>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`; `undo` and `context` belong together. The lock is free
    // again when `undo` runs, because it reads pages through this table.
    unsafe {
        let pages = match with(wal, |wal: &mut W| Ok(wal.undo())) {
            Ok(pages) => pages,
            Err(code) => return code.0,
        };
        if let Some(undo) = undo {
            for page in pages {
                let code = undo(context, page.0);
                if code != c::SQLITE_OK {
                    return code;
                }
            }
        }
    }
    c::SQLITE_OK
}

unsafe extern "C" fn x_savepoint<W: VirtualWal>(wal: *mut c::wal_impl, data: *mut c_uint) {
    // SAFETY: `wal` came from `x_open::<W>`; `data` has room for four numbers.
    unsafe {
        if let Ok(mark) = with(wal, |wal: &mut W| Ok(wal.savepoint())) {
            *data = mark;
        }
    }
}

unsafe extern "C" fn x_savepoint_undo<W: VirtualWal>(
    wal: *mut c::wal_impl,
    data: *mut c_uint,
) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`; `data` is what `x_savepoint` filled in.
    unsafe {
        let mark = *data;
        raw(with(wal, |wal: &mut W| wal.savepoint_undo(mark)))
    }
}

unsafe extern "C" fn x_savepoint_forget(_wal: *mut c::wal_impl, _data: *mut c_uint) {}

/// Frame counts are for libSQL's replication calls, which nobody here makes.
unsafe extern "C" fn x_frame_count(
    _wal: *mut c::wal_impl,
    _locked: c_int,
    _count: *mut c_uint,
) -> c_int {
    c::SQLITE_MISUSE
}

unsafe extern "C" fn x_frames<W: VirtualWal>(
    wal: *mut c::wal_impl,
    page_size: c_int,
    pages: *mut c::libsql_pghdr,
    pages_after: c_uint,
    commit: c_int,
    _sync_flags: c_int,
    frames: *mut c_int,
) -> c_int {
    if usize::try_from(page_size) != Ok(PAGE_SIZE) {
        return c::SQLITE_MISUSE;
    }
    // SAFETY: `wal` came from `x_open::<W>`; the list is SQLite's and valid during this call;
    // `frames` is null or an out parameter.
    unsafe {
        if !frames.is_null() {
            *frames = 0;
        }
        let list = PageList {
            next: pages,
            _lent: PhantomData,
        };
        raw(with(wal, |wal: &mut W| {
            wal.frames(list, pages_after, commit != 0)
        }))
    }
}

unsafe extern "C" fn x_checkpoint<W: VirtualWal>(
    wal: *mut c::wal_impl,
    db: *mut c::sqlite3,
    mode: c_int,
    busy: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    busy_argument: *mut c_void,
    sync_flags: c_int,
    buffer_bytes: c_int,
    buffer: *mut c_uchar,
    frames: *mut c_int,
    backfilled: *mut c_int,
    _each: Option<
        unsafe extern "C" fn(*mut c_void, c_int, *const c_uchar, c_int, c_int, c_int) -> c_int,
    >,
    _each_argument: *mut c_void,
) -> c_int {
    let call = CheckpointCall {
        db,
        mode,
        busy,
        busy_argument,
        sync_flags,
        buffer_bytes,
        buffer,
        frames,
        backfilled,
    };
    // SAFETY: `wal` came from `x_open::<W>`.
    raw(unsafe { with(wal, |wal: &mut W| wal.checkpoint(call)) })
}

/// Zero: nobody sets a WAL hook.
unsafe extern "C" fn x_callback(_wal: *mut c::wal_impl) -> c_int {
    0
}

unsafe extern "C" fn x_limit<W: VirtualWal>(wal: *mut c::wal_impl, limit: c_longlong) {
    // SAFETY: `wal` came from `x_open::<W>`; the inner object is alive while it is in its slot.
    let _ = unsafe {
        with(wal, |wal: &mut W| {
            let inner = wal.inner()?.raw();
            inner.methods.xLimit.expect("libSQL fills in its own WAL")(inner.pData, limit);
            Ok(())
        })
    };
}

unsafe extern "C" fn x_exclusive_mode<W: VirtualWal>(wal: *mut c::wal_impl, op: c_int) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`; the inner object is alive while it is in its slot.
    unsafe {
        with(wal, |wal: &mut W| {
            let inner = wal.inner()?.raw();
            Ok(inner
                .methods
                .xExclusiveMode
                .expect("libSQL fills in its own WAL")(
                inner.pData, op
            ))
        })
    }
    .unwrap_or(0)
}

unsafe extern "C" fn x_heap_memory<W: VirtualWal>(wal: *mut c::wal_impl) -> c_int {
    // SAFETY: `wal` came from `x_open::<W>`; the inner object is alive while it is in its slot.
    unsafe {
        with(wal, |wal: &mut W| {
            let inner = wal.inner()?.raw();
            Ok(inner
                .methods
                .xHeapMemory
                .expect("libSQL fills in its own WAL")(
                inner.pData
            ))
        })
    }
    .unwrap_or(0)
}

unsafe extern "C" fn x_file<W: VirtualWal>(wal: *mut c::wal_impl) -> *mut c::sqlite3_file {
    // SAFETY: `wal` came from `x_open::<W>`; the inner object is alive while it is in its slot.
    unsafe {
        with(wal, |wal: &mut W| {
            let inner = wal.inner()?.raw();
            Ok(inner.methods.xFile.expect("libSQL fills in its own WAL")(
                inner.pData,
            ))
        })
    }
    .unwrap_or(ptr::null_mut())
}

unsafe extern "C" fn x_db<W: VirtualWal>(wal: *mut c::wal_impl, db: *mut c::sqlite3) {
    // SAFETY: `wal` came from `x_open::<W>`; the inner object is alive while it is in its slot.
    let _ = unsafe {
        with(wal, |wal: &mut W| {
            let inner = wal.inner()?.raw();
            inner.methods.xDb.expect("libSQL fills in its own WAL")(inner.pData, db);
            Ok(())
        })
    };
}
