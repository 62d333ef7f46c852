//! Where a closed database says that it stands, read without opening it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tidemark_protocol::{DatabaseId, PAGE_SIZE, Position};

use crate::files::{WAL, is_marked, main_path};
use crate::genesis;
use crate::journal;
use crate::options::SMALL_BYTES_MAX;

/// Bytes of SQLite's header up to the number of pages that it ends with.
const HEADER_BYTES: usize = 32;
/// Where that number lies, big-endian.
const PAGES_AT: usize = 28;

/// Where the database in `directory` stands, as it says: one that was closed behind a complete checkpoint, or that has
/// no files yet. A claim, which opening it proves or refutes. `None`: only opening it tells, or it is so large, or so
/// clearly damaged, that this had better be done at once.
pub fn claimed_position(directory: &Path, id: DatabaseId) -> Option<Position> {
    if is_marked(directory) {
        return None; // nothing of it is to be believed
    }
    let main = match File::open(main_path(directory)) {
        Ok(main) => main,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(genesis::position()),
        Err(_) => return None,
    };
    let wal_bytes = std::fs::metadata(directory.join(WAL)).map_or(0, |wal| wal.len());
    let bytes = main.metadata().ok()?.len();
    if bytes > SMALL_BYTES_MAX || wal_bytes > 0 || pages(main)? * PAGE_SIZE as u64 != bytes {
        return None;
    }
    match journal::read(directory, id).as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

/// Pages that a database file says it has.
fn pages(mut main: File) -> Option<u64> {
    let mut header = [0; HEADER_BYTES];
    main.read_exact(&mut header).ok()?;
    // Magic, page size, WAL versions.
    let is_ours = header[..20] == genesis::PAGE[..20];
    let pages = header[PAGES_AT..].try_into().map(u32::from_be_bytes);
    pages.ok().filter(|_| is_ours).map(u64::from)
}
