//! A compiled statement: binding, stepping, reading columns, counters.

use std::ffi::{CStr, c_int, c_uchar};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use libsql_ffi as c;
use tidemark_protocol::{Value, ValueRef};

use super::code::Code;
use super::connection::Context;
use crate::authorizer::Marks;

const UTF8: c_uchar = 1;
const _: () = assert!(c::SQLITE_UTF8 == UTF8 as i32);

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A row is there.
    Row,
    /// The statement is complete.
    Done,
}

/// A compiled statement. Finalised when dropped.
#[derive(Debug)]
pub(crate) struct Prepared {
    raw: *mut c::sqlite3_stmt,
    /// The callbacks' context: a statement may outlive its connection's handle.
    _context: Arc<Context>,
    marks: Marks,
}

// SAFETY: statements stay beside their connection in `Sql` and move with it; see `Connection`.
unsafe impl Send for Prepared {}

impl Prepared {
    /// # Safety
    /// `raw` is a statement that nobody else has.
    pub(super) unsafe fn new(
        raw: *mut c::sqlite3_stmt,
        context: Arc<Context>,
        marks: Marks,
    ) -> Self {
        Self {
            raw,
            _context: context,
            marks,
        }
    }

    /// What the authorizer noticed when it was compiled.
    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    /// Whether it cannot write. EXPLAIN never does, whatever it explains.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: the statement is alive.
        unsafe {
            c::sqlite3_stmt_readonly(self.raw) != 0 || c::sqlite3_stmt_isexplain(self.raw) != 0
        }
    }

    /// Whether it shows no rows, whatever it finds, and is no PRAGMA: it is there for what it does. SQLite
    /// calls `DROP TRIGGER IF EXISTS` read-only where there is no such trigger, and does not ask the
    /// authorizer either; the next state may have one.
    pub(crate) fn is_command(&self) -> bool {
        self.column_count() == 0 && !self.marks.pragma
    }

    /// Parameters it takes.
    pub(crate) fn parameter_count(&self) -> usize {
        // SAFETY: the statement is alive.
        usize::try_from(unsafe { c::sqlite3_bind_parameter_count(self.raw) }).unwrap_or(0)
    }

    /// Binds `values` to all parameters, by position. They are lent until the returned guard goes,
    /// because SQLite reads texts and blobs in place.
    pub(crate) fn bind<'run>(&'run mut self, values: &'run [Value]) -> Result<Bound<'run>, Code> {
        let bound = Bound {
            statement: self,
            _lent: PhantomData,
        };
        for (index, value) in (1..).zip(values) {
            bound.statement.bind_one(index, value)?;
        }
        Ok(bound)
    }

    fn bind_one(&self, index: c_int, value: &Value) -> Result<(), Code> {
        // SAFETY: the statement is alive and was reset. The bytes stay in place until `Bound`, which
        // borrows them, clears all bindings; that is what SQLITE_STATIC (a null destructor) needs.
        Code::check(unsafe {
            match value {
                Value::Null => c::sqlite3_bind_null(self.raw, index),
                Value::Integer(integer) => c::sqlite3_bind_int64(self.raw, index, *integer),
                Value::Real(real) => c::sqlite3_bind_double(self.raw, index, *real),
                Value::Text(text) => c::sqlite3_bind_text64(
                    self.raw,
                    index,
                    text.as_ptr().cast(),
                    text.len() as u64,
                    c::SQLITE_STATIC(),
                    UTF8,
                ),
                // The pointer of an empty slice is not null, so this is no NULL.
                Value::Blob(bytes) => c::sqlite3_bind_blob64(
                    self.raw,
                    index,
                    bytes.as_ptr().cast(),
                    bytes.len() as u64,
                    c::SQLITE_STATIC(),
                ),
            }
        })
    }

    /// Runs until the next row or the end.
    pub(crate) fn step(&mut self) -> Result<Step, Code> {
        // SAFETY: the statement is alive.
        match unsafe { c::sqlite3_step(self.raw) } {
            c::SQLITE_ROW => Ok(Step::Row),
            c::SQLITE_DONE => Ok(Step::Done),
            code => Err(Code(code)),
        }
    }

    /// Makes it ready to run again and lets go of all bound values. The result code repeats that of
    /// the last step and is of no interest.
    pub(crate) fn reset(&mut self) {
        // SAFETY: the statement is alive.
        unsafe {
            c::sqlite3_reset(self.raw);
            c::sqlite3_clear_bindings(self.raw);
        }
    }

    /// Runs it to its end and resets it.
    pub(crate) fn run_to_end(&mut self) -> Result<(), Code> {
        let result = loop {
            match self.step() {
                Ok(Step::Row) => {}
                Ok(Step::Done) => break Ok(()),
                Err(code) => break Err(code),
            }
        };
        self.reset();
        result
    }

    /// Result columns. Up to date only after the first step, which recompiles after a schema change.
    pub(crate) fn column_count(&self) -> usize {
        // SAFETY: the statement is alive.
        usize::try_from(unsafe { c::sqlite3_column_count(self.raw) }).unwrap_or(0)
    }

    /// The name of a result column; `None` if it is not UTF-8 or memory is out.
    pub(crate) fn column_name(&self, column: usize) -> Option<&str> {
        let column = c_int::try_from(column).ok()?;
        // SAFETY: the statement is alive; the name stays valid until the statement is stepped or
        // finalised, both of which need `&mut self`.
        unsafe {
            let name = c::sqlite3_column_name(self.raw, column);
            if name.is_null() {
                None
            } else {
                CStr::from_ptr(name).to_str().ok()
            }
        }
    }

    /// The value of a column of the current row.
    pub(crate) fn column(&mut self, column: usize) -> ValueRef<'_> {
        let Ok(column) = c_int::try_from(column) else {
            return ValueRef::Null;
        };
        // SAFETY: the statement is alive, and so is the value until the next step or reset, with its text or blob;
        // the borrow of `self` ends before any of these. That it is "unprotected" means that no lock of SQLite
        // guards it, of which connections here have none: `&mut self` is what makes this its only use. The pointer is
        // asked for before the length, as SQLite's manual wants it. Of the value, not of the column, which would be
        // looked up again for each question.
        unsafe {
            let value = c::sqlite3_column_value(self.raw, column);
            let bytes = |data: *const u8| {
                if data.is_null() {
                    return &[][..]; // an empty blob
                }
                let length = c::sqlite3_value_bytes(value);
                std::slice::from_raw_parts(data, usize::try_from(length).unwrap_or(0))
            };
            match c::sqlite3_value_type(value) {
                c::SQLITE_INTEGER => ValueRef::Integer(c::sqlite3_value_int64(value)),
                c::SQLITE_FLOAT => ValueRef::Real(c::sqlite3_value_double(value)),
                c::SQLITE_TEXT => ValueRef::Text(bytes(c::sqlite3_value_text(value))),
                c::SQLITE_BLOB => ValueRef::Blob(bytes(c::sqlite3_value_blob(value).cast())),
                _ => ValueRef::Null,
            }
        }
    }

    /// A column of the current row as an integer.
    pub(crate) fn integer(&mut self, column: usize) -> i64 {
        let Ok(column) = c_int::try_from(column) else {
            return 0;
        };
        // SAFETY: the statement is alive.
        unsafe { c::sqlite3_column_int64(self.raw, column) }
    }

    /// libSQL's counter of rows read, set back to zero.
    pub(crate) fn take_rows_read(&mut self) -> u64 {
        self.take_status(c::LIBSQL_STMTSTATUS_ROWS_READ)
    }

    /// libSQL's counter of rows written, set back to zero.
    pub(crate) fn take_rows_written(&mut self) -> u64 {
        self.take_status(c::LIBSQL_STMTSTATUS_ROWS_WRITTEN)
    }

    /// Steps of the virtual machine, set back to zero.
    pub(crate) fn take_steps(&mut self) -> u64 {
        self.take_status(c::SQLITE_STMTSTATUS_VM_STEP)
    }

    fn take_status(&mut self, counter: c_int) -> u64 {
        // SAFETY: the statement is alive. The counters are 32 bits wide and may wrap.
        let value = unsafe { c::sqlite3_stmt_status(self.raw, counter, 1) };
        u64::from(value.cast_unsigned())
    }
}

/// A statement with its values bound. Resets the statement when dropped.
#[derive(Debug)]
pub(crate) struct Bound<'run> {
    statement: &'run mut Prepared,
    _lent: PhantomData<&'run [Value]>,
}

impl Deref for Bound<'_> {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        self.statement
    }
}

impl DerefMut for Bound<'_> {
    fn deref_mut(&mut self) -> &mut Prepared {
        self.statement
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.statement.reset();
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: the statement is ours; its result code repeats that of the last step.
        unsafe { c::sqlite3_finalize(self.raw) };
    }
}
