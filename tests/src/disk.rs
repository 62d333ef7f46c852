//! Disks that can be made to fail, below nodes that run unchanged.
//!
//! Each way is a program that stands in for the node's own, prepares what lies below it and becomes it:
//! hand [`Faults::program`] to [`Cell::of`](crate::Cell::of), or use [`SmallDiskCell`] or [`PoweredCell`].
//!
//! - [`Faults`]: calls of the C library fail with an error of choice, from a moment of choice on (libfiu).
//! - [`SmallDiskCell`]: every node's files are on a file system of their own that can be filled and freed.
//! - [`PoweredCell`]: every node's files are on a file system of their own that loses what was not synced.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

mod faults;
mod powered;
mod small;
mod volatile;

pub use faults::{Call, Errno, Faults};
pub use powered::PoweredCell;
pub use small::SmallDiskCell;
pub use volatile::Lost;

/// Writes a program for the shell.
pub(crate) fn write_script(path: &Path, text: &str) {
    std::fs::write(path, text).expect("write a script");
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("make it a program");
}
