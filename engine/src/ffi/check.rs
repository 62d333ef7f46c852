//! SQLite's own look at a file: a connection that only reads, and takes no lock.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;

use libsql_ffi as c;

use super::code::Code;
use super::math;

/// A handle that is closed in any case.
struct Handle(*mut c::sqlite3);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: what was opened here and nowhere else; a null pointer is allowed.
        let _nothing_to_do = unsafe { c::sqlite3_close(self.0) };
    }
}

/// What SQLite complains of in the database file at `path`, which nobody changes meanwhile. A WAL beside it is not
/// looked at. `full`: indexes are compared with their tables too.
pub(crate) fn check(path: &Path, full: bool) -> Result<Vec<String>, Code> {
    let uri = uri(path)?;
    let pragma = if full {
        c"PRAGMA integrity_check(20)"
    } else {
        c"PRAGMA quick_check(20)"
    };
    let flags = c::SQLITE_OPEN_READONLY
        | c::SQLITE_OPEN_URI
        | c::SQLITE_OPEN_NOMUTEX
        | c::SQLITE_OPEN_EXRESCODE;
    let mut handle = Handle(ptr::null_mut());
    let mut complaints: Vec<String> = Vec::new();
    // SAFETY: initialising is idempotent. The texts outlive the calls, and so does what the callback writes to; the
    // handle is closed after all of them, whatever they return.
    unsafe {
        Code::check(c::sqlite3_initialize())?;
        Code::check(c::sqlite3_open_v2(
            uri.as_ptr(),
            &mut handle.0,
            flags,
            ptr::null(),
        ))?;
        math::add_to(handle.0)?;
        // Clients may have written what a CHECK forbids, under the same pragma: that is their content, and no damage.
        Code::check(c::sqlite3_exec(
            handle.0,
            c"PRAGMA ignore_check_constraints=1".as_ptr(),
            None,
            ptr::null_mut(),
            ptr::null_mut(),
        ))?;
        Code::check(c::sqlite3_exec(
            handle.0,
            pragma.as_ptr(),
            Some(x_row),
            (&raw mut complaints).cast::<c_void>(),
            ptr::null_mut(),
        ))?;
    }
    complaints.retain(|complaint| complaint != "ok");
    Ok(complaints)
}

/// The path as SQLite takes one that says more than a path.
fn uri(path: &Path) -> Result<CString, Code> {
    let mut text = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(*byte));
            }
            other => text.push_str(&format!("%{other:02x}")),
        }
    }
    text.push_str("?immutable=1");
    CString::new(text).map_err(|_| Code(Code::CANTOPEN))
}

unsafe extern "C" fn x_row(
    complaints: *mut c_void,
    columns: c_int,
    values: *mut *mut c_char,
    _names: *mut *mut c_char,
) -> c_int {
    let took = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the pointer given to `sqlite3_exec`, which has no other user while that runs.
        let complaints = unsafe { &mut *complaints.cast::<Vec<String>>() };
        if columns < 1 {
            return;
        }
        // SAFETY: SQLite passes as many texts as columns, terminated or null, alive during the call.
        let value = unsafe { *values };
        if !value.is_null() {
            // SAFETY: as above.
            let text = unsafe { CStr::from_ptr(value) };
            complaints.push(text.to_string_lossy().into_owned());
        }
    }));
    c_int::from(took.is_err())
}
