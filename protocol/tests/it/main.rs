//! The formats that leave a process, held to what was written down before: bytes in `testdata/` that
//! every later build must still read and write, and damage that every build must recognise.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod bookmark;
mod golden;
mod stream;
mod transaction;
mod values;
