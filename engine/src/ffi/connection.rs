//! A connection: opening it over a virtual WAL, its bounds, its counters, its errors.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use libsql_ffi as c;
use tidemark_protocol::Rules;

use super::code::Code;
use super::math;
use super::statement::Prepared;
use super::virtual_wal::{VirtualWal, manager};
use crate::authorizer::{Action, Marks, Refusal, is_frame, judge};
use crate::options::Limits;

const PERSISTENT: c_uint = c::SQLITE_PREPARE_PERSISTENT.cast_unsigned();
/// Steps of the virtual machine between two looks at the deadline.
const PROGRESS_STEPS: u32 = 400;

/// Connections that are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How a connection is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// With the `unix-excl` VFS.
    pub(crate) exclusive: bool,
    /// With these limits.
    pub(crate) limits: &'a Limits,
    /// How long to wait for a lock.
    pub(crate) busy_timeout: Duration,
}

/// Why a run was stopped from within.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stopped {
    /// The deadline passed.
    Deadline,
    /// The steps were used up.
    Budget,
}

/// Called every now and then while statements run.
struct Pulse(Box<dyn Fn() + Send>);

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}

/// What the callbacks of a connection see. Shared with its statements, so that it outlives them.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Statements of our own are not subject to the authorizer.
    internal: Cell<bool>,
    /// How statements of clients are taken.
    rules: Cell<Rules>,
    /// What the authorizer noticed while the last statement was compiled.
    marks: Cell<Marks>,
    refusal: RefCell<Option<Refusal>>,
    deadline: Cell<Option<Instant>>,
    steps_max: Cell<Option<u64>>,
    steps: Cell<u64>,
    stopped: Cell<Option<Stopped>>,
    pulse: OnceCell<Pulse>,
}

/// Frames of the WAL, and frames of them in the database file, after a checkpoint. -1: unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CheckpointCounts {
    pub(crate) frames: i32,
    pub(crate) backfilled: i32,
}

/// A connection. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    raw: *mut c::sqlite3,
    context: Arc<Context>,
}

// SAFETY: SQLite is compiled thread-safe and the connection opened in multi-thread mode: it may move
// between threads as long as one uses it at a time, which owning it guarantees. Its statements stay
// beside it in `Sql` and move with it.
unsafe impl Send for Connection {}

/// Initialises SQLite, which must come first (`libsql_open_v3` allocates before it does so itself). Without
/// its account of memory: nobody asks for it, and each allocation would take a lock that all databases share.
fn initialize() -> Result<(), Code> {
    static CODE: OnceLock<c_int> = OnceLock::new();
    // SAFETY: nothing of SQLite is used before this, nor are its settings changed afterwards; the option takes one
    // int. Should it be refused, allocations cost more.
    let code = CODE.get_or_init(|| unsafe {
        let _ = c::sqlite3_config(c::SQLITE_CONFIG_MEMSTATUS, 0 as c_int);
        c::sqlite3_initialize()
    });
    Code::check(*code)
}

impl Connection {
    /// Opens the file at `path` over `wal`. Does not read it yet.
    pub(crate) fn open<W: VirtualWal>(
        path: &Path,
        wal: Arc<Mutex<W>>,
        setup: &Setup<'_>,
    ) -> Result<Self, Code> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Code(Code::CANTOPEN))?;
        let vfs = if setup.exclusive {
            c"unix-excl".as_ptr()
        } else {
            ptr::null()
        };
        let flags = c::SQLITE_OPEN_READWRITE | c::SQLITE_OPEN_NOMUTEX | c::SQLITE_OPEN_EXRESCODE;
        let mut raw = ptr::null_mut();
        initialize()?;
        // SAFETY: the strings outlive the call; the manager's data passes to SQLite.
        let code = unsafe { c::libsql_open_v3(path.as_ptr(), &mut raw, flags, vfs, manager(wal)) };
        OPEN.fetch_add(1, Ordering::Relaxed);
        let connection = Self {
            raw,
            context: Arc::default(),
        };
        if raw.is_null() {
            return Err(Code(if code == c::SQLITE_OK {
                Code::NOMEM
            } else {
                code
            }));
        }
        Code::check(code)?;
        connection.set_up(setup)?;
        Ok(connection)
    }

    fn set_up(&self, setup: &Setup<'_>) -> Result<(), Code> {
        let context = Arc::as_ptr(&self.context).cast_mut().cast::<c_void>();
        let busy_ms = c_int::try_from(setup.busy_timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the connection is open; the context lives as long as it and its statements.
        unsafe {
            Code::check(c::sqlite3_busy_timeout(self.raw, busy_ms))?;
            Code::check(c::sqlite3_wal_autocheckpoint(self.raw, 0))?;
            math::add_to(self.raw)?;
            for option in [
                c::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
                c::SQLITE_DBCONFIG_DEFENSIVE,
            ] {
                let code =
                    c::sqlite3_db_config(self.raw, option, 1 as c_int, ptr::null_mut::<c_int>());
                Code::check(code)?;
            }
            Code::check(c::sqlite3_set_authorizer(
                self.raw,
                Some(x_authorize),
                context,
            ))?;
            let steps = PROGRESS_STEPS.cast_signed();
            c::sqlite3_progress_handler(self.raw, steps, Some(x_progress), context);
        }
        self.limit(setup.limits);
        Ok(())
    }

    fn limit(&self, limits: &Limits) {
        let Limits {
            length,
            sql_length,
            columns,
            expr_depth,
            compound_select,
            vdbe_ops,
            function_args,
            like_pattern_length,
            variables,
            trigger_depth,
        } = *limits;
        let settings: [(c_int, u32); 12] = [
            (c::SQLITE_LIMIT_LENGTH, length),
            (c::SQLITE_LIMIT_SQL_LENGTH, sql_length),
            (c::SQLITE_LIMIT_COLUMN, columns),
            (c::SQLITE_LIMIT_EXPR_DEPTH, expr_depth),
            (c::SQLITE_LIMIT_COMPOUND_SELECT, compound_select),
            (c::SQLITE_LIMIT_VDBE_OP, vdbe_ops),
            (c::SQLITE_LIMIT_FUNCTION_ARG, function_args),
            (c::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, like_pattern_length),
            (c::SQLITE_LIMIT_VARIABLE_NUMBER, variables),
            (c::SQLITE_LIMIT_TRIGGER_DEPTH, trigger_depth),
            (c::SQLITE_LIMIT_ATTACHED, 0),
            (c::SQLITE_LIMIT_WORKER_THREADS, 0),
        ];
        for (limit, value) in settings {
            let value = c_int::try_from(value).unwrap_or(c_int::MAX);
            // SAFETY: the connection is open. SQLite cuts the value to what is compiled in.
            unsafe { c::sqlite3_limit(self.raw, limit, value) };
        }
    }

    /// Allows one attached database, which VACUUM needs, or none.
    pub(crate) fn allow_attached(&self, allowed: bool) {
        // SAFETY: the connection is open.
        unsafe { c::sqlite3_limit(self.raw, c::SQLITE_LIMIT_ATTACHED, c_int::from(allowed)) };
    }

    /// Compiles the first statement of `sql`. `None`: there is only blank space and comments. Also the
    /// number of bytes that belong to it. `kept`: it will be run many times.
    pub(crate) fn prepare(
        &self,
        sql: &CStr,
        kept: bool,
    ) -> Result<(Option<Prepared>, usize), Code> {
        self.context.marks.set(Marks::default());
        self.context.refusal.replace(None);
        let flags: c_uint = if kept { PERSISTENT } else { 0 };
        let mut statement = ptr::null_mut();
        let mut tail: *const c_char = ptr::null();
        // SAFETY: `sql` is terminated by a zero, so -1 for the length saves SQLite a copy of all that
        // follows; `tail` points into it.
        let used = unsafe {
            let text = sql.as_ptr();
            Code::check(c::sqlite3_prepare_v3(
                self.raw,
                text,
                -1,
                flags,
                &mut statement,
                &mut tail,
            ))?;
            usize::try_from(tail.offset_from(text)).expect("the tail lies within the text")
        };
        // SAFETY: SQLite made the statement for this connection, and nobody else has it.
        let prepared = (!statement.is_null()).then(|| unsafe {
            Prepared::new(statement, self.context.clone(), self.context.marks.get())
        });
        Ok((prepared, used))
    }

    /// Compiles and runs a statement of our own that yields nothing of interest.
    pub(crate) fn run_internal(&self, sql: &CStr) -> Result<(), Code> {
        let mut statement = self.prepare_internal(sql)?;
        self.internally(|| statement.run_to_end())
    }

    /// Compiles a statement of our own.
    pub(crate) fn prepare_internal(&self, sql: &CStr) -> Result<Prepared, Code> {
        let (prepared, _) = self.internally(|| self.prepare(sql, true))?;
        prepared.ok_or(Code(Code::MISUSE))
    }

    /// Runs `work` with the authorizer out of the way and without a deadline.
    pub(crate) fn internally<R>(&self, work: impl FnOnce() -> R) -> R {
        let before = self.context.internal.replace(true);
        let result = work();
        self.context.internal.set(before);
        result
    }

    /// Sets how statements are taken that are compiled from now on.
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.context.rules.set(rules);
    }

    /// Whether foreign keys are enforced.
    pub(crate) fn enforces_foreign_keys(&self) -> bool {
        let mut enforced: c_int = 1;
        let out: *mut c_int = &mut enforced;
        // SAFETY: the connection is open. A negative value changes nothing; the pointer is good for the call.
        unsafe {
            c::sqlite3_db_config(self.raw, c::SQLITE_DBCONFIG_ENABLE_FKEY, -1 as c_int, out);
        }
        enforced != 0
    }

    /// Sets the bytes of the longest statement that SQLite compiles.
    pub(crate) fn set_statement_bytes_max(&self, bytes: u32) {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: the connection is open. SQLite cuts the value to what is compiled in.
        unsafe { c::sqlite3_limit(self.raw, c::SQLITE_LIMIT_SQL_LENGTH, bytes) };
    }

    /// Bytes of the longest statement that SQLite compiles.
    pub(crate) fn statement_bytes_max(&self) -> usize {
        // SAFETY: the connection is open. A negative value changes nothing.
        let max = unsafe { c::sqlite3_limit(self.raw, c::SQLITE_LIMIT_SQL_LENGTH, -1) };
        usize::try_from(max).unwrap_or(0)
    }

    /// Sets the bounds of what runs from now on.
    pub(crate) fn bound(&self, deadline: Instant, steps_max: Option<u64>) {
        self.context.deadline.set(Some(deadline));
        self.context.steps_max.set(steps_max);
        self.context.steps.set(0);
        self.context.stopped.set(None);
    }

    /// Lifts them.
    pub(crate) fn unbound(&self) {
        self.context.deadline.set(None);
        self.context.steps_max.set(None);
    }

    /// Has `pulse` called every [`PROGRESS_STEPS`] steps, on the thread that runs the statement. Once for all.
    pub(crate) fn set_pulse(&self, pulse: Box<dyn Fn() + Send>) {
        let _ = self.context.pulse.set(Pulse(pulse));
    }

    /// Accounts for a finished statement's steps: those the progress handler did not see included.
    /// Says whether the bounds are passed.
    pub(crate) fn check_bounds(&self, steps_before: u64, statement_steps: u64) -> Option<Stopped> {
        let context = &self.context;
        context
            .steps
            .set(steps_before.saturating_add(statement_steps));
        context.passed()
    }

    /// Steps counted so far.
    pub(crate) fn steps(&self) -> u64 {
        self.context.steps.get()
    }

    /// Why SQLite was interrupted.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.context.stopped.get()
    }

    /// What the authorizer refused, if that is why compiling failed.
    pub(crate) fn take_refusal(&self) -> Option<Refusal> {
        self.context.refusal.take()
    }

    /// What the authorizer noticed while the last statement was compiled.
    pub(crate) fn marks(&self) -> Marks {
        self.context.marks.get()
    }

    /// The message of the last failure.
    pub(crate) fn message(&self) -> String {
        // SAFETY: the connection is open; the text is valid until the next call and copied here.
        unsafe {
            CStr::from_ptr(c::sqlite3_errmsg(self.raw))
                .to_string_lossy()
                .into_owned()
        }
    }

    /// Where in the statement's text the last failure lies, if SQLite knows.
    pub(crate) fn error_offset(&self) -> Option<usize> {
        // SAFETY: the connection is open. Negative: unknown.
        usize::try_from(unsafe { c::sqlite3_error_offset(self.raw) }).ok()
    }

    /// Pages that were in its cache, and pages that were not, since this was asked last.
    pub(crate) fn take_page_uses(&self) -> (u64, u64) {
        let take = |what| {
            let (mut now, mut highest) = (0, 0);
            // SAFETY: the connection is open, and both places are ours. It fails for what it does not know alone.
            unsafe { c::sqlite3_db_status(self.raw, what, &raw mut now, &raw mut highest, 1) };
            u64::try_from(now).unwrap_or_default()
        };
        let [had, read] = [c::SQLITE_DBSTATUS_CACHE_HIT, c::SQLITE_DBSTATUS_CACHE_MISS].map(take);
        (had, read)
    }

    /// Rows changed since the connection was opened, by triggers and cascades too.
    pub(crate) fn total_changes(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { c::sqlite3_total_changes64(self.raw) }
    }

    /// The last rowid that was inserted.
    pub(crate) fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { c::sqlite3_last_insert_rowid(self.raw) }
    }

    /// Whether no transaction is open.
    pub(crate) fn is_autocommit(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { c::sqlite3_get_autocommit(self.raw) != 0 }
    }

    /// Runs a checkpoint: `mode` is SQLite's number. BUSY means that it did less than it was asked to.
    pub(crate) fn checkpoint(&self, mode: c_int) -> Result<(bool, CheckpointCounts), Code> {
        let mut counts = CheckpointCounts {
            frames: -1,
            backfilled: -1,
        };
        // SAFETY: the connection is open; a null name stands for every attached database, of which
        // there is one.
        let code = unsafe {
            c::sqlite3_wal_checkpoint_v2(
                self.raw,
                ptr::null(),
                mode,
                &mut counts.frames,
                &mut counts.backfilled,
            )
        };
        if Code(code).primary() == Code::BUSY {
            return Ok((true, counts));
        }
        Code::check(code)?;
        Ok((false, counts))
    }
}

/// Connections that this process has open.
pub(crate) fn open_connections() -> usize {
    OPEN.load(Ordering::Relaxed)
}

impl Drop for Connection {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the connection is ours. With statements left SQLite keeps it until the last of them
        // is finalised; a null pointer is a no-op.
        unsafe { c::sqlite3_close_v2(self.raw) };
    }
}

impl Context {
    fn passed(&self) -> Option<Stopped> {
        let stopped = if self
            .steps_max
            .get()
            .is_some_and(|max| self.steps.get() > max)
        {
            Some(Stopped::Budget)
        } else if self
            .deadline
            .get()
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            Some(Stopped::Deadline)
        } else {
            None
        };
        if stopped.is_some() {
            self.stopped.set(stopped);
        }
        stopped
    }
}

unsafe extern "C" fn x_progress(context: *mut c_void) -> c_int {
    // SAFETY: `set_up` passed the connection's context, which the connection and every statement keep
    // alive; SQLite calls this on the thread that runs the statement.
    let context = unsafe { &*context.cast::<Context>() };
    if let Some(Pulse(pulse)) = context.pulse.get()
        && catch_unwind(AssertUnwindSafe(pulse)).is_err()
    {
        return 1;
    }
    if context.internal.get() {
        return 0;
    }
    context.steps.set(
        context
            .steps
            .get()
            .saturating_add(u64::from(PROGRESS_STEPS)),
    );
    c_int::from(context.passed().is_some())
}

unsafe extern "C" fn x_authorize(
    context: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    database: *const c_char,
    _inside: *const c_char,
) -> c_int {
    // SAFETY: `set_up` passed the connection's context, see `x_progress`.
    let context = unsafe { &*context.cast::<Context>() };
    if context.internal.get() {
        return c::SQLITE_OK;
    }
    // SAFETY: SQLite passes null or zero-terminated texts that live during the call.
    let text = |raw: *const c_char| unsafe {
        if raw.is_null() {
            None
        } else {
            CStr::from_ptr(raw).to_str().ok()
        }
    };
    let verdict = catch_unwind(AssertUnwindSafe(|| {
        let mut marks = context.marks.get();
        let action = Action {
            code: action,
            first: text(first),
            second: text(second),
            database: text(database),
        };
        if context.rules.get() == Rules::Script && is_frame(&action) {
            return Ok(c::SQLITE_IGNORE); // which leaves a statement that does nothing
        }
        let verdict = judge(&action, &mut marks);
        context.marks.set(marks);
        verdict.map(|()| c::SQLITE_OK)
    }));
    match verdict {
        Ok(Ok(code)) => code,
        Ok(Err(refusal)) => {
            context.refusal.replace(Some(refusal));
            c::SQLITE_DENY
        }
        Err(_panic) => c::SQLITE_DENY,
    }
}
