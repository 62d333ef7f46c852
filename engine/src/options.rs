//! How a database is opened: sizes of caches and pools, bounds, SQLite's limits.

use std::time::Duration;

use tidemark_protocol::transaction::TRANSACTION_BYTES_MAX;

/// Bytes of a file that takes a few milliseconds to open, which reads and hashes every page: up to here
/// closing it for want of use is worth while.
pub const SMALL_BYTES_MAX: u64 = 4 << 20;

/// How a database is opened. `Default` is meant for servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Use SQLite's `unix-excl` VFS: this process alone may open the files, the WAL index lives on the
    /// heap, and a point read costs less than half. Off only where another process must read the file.
    pub exclusive: bool,
    /// Upper bound of the page cache of each connection, in KiB. Taken as it fills, not at once.
    pub cache_kib: u32,
    /// Reader connections at most. They open on demand; a read beyond them waits for one.
    pub readers_max: usize,
    /// File handles of all databases of the process from which on each makes do with the readers that it has.
    pub files_max: usize,
    /// Prepared statements each connection keeps, least recently used first out (about 2.3 KB each).
    pub statements_cached: usize,
    /// SQLite's limits for statements of clients.
    pub limits: Limits,
    /// Bytes of transactions that may await acknowledgement before [`crate::Owner::execute`] refuses.
    pub overlay_bytes_max: usize,
    /// How long a `Restart` or `Truncate` checkpoint waits for readers. Writes wait as long.
    pub checkpoint_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            exclusive: true,
            cache_kib: 4096,
            readers_max: 8,
            files_max: usize::MAX,
            statements_cached: 64,
            limits: Limits::default(),
            // Behind one of the largest there is room for another.
            overlay_bytes_max: 2 * TRANSACTION_BYTES_MAX,
            checkpoint_wait: Duration::from_millis(30),
        }
    }
}

/// Bounds that SQLite enforces on statements (`sqlite3_limit`). A value above the one compiled in is
/// cut to that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a string, a blob or a row.
    pub length: u32,
    /// Bytes of the text of one statement.
    pub sql_length: u32,
    /// Columns of a table, an index, a result, a SET clause.
    pub columns: u32,
    /// Depth of an expression.
    pub expr_depth: u32,
    /// Terms of a compound SELECT.
    pub compound_select: u32,
    /// Instructions of one compiled statement.
    pub vdbe_ops: u32,
    /// Arguments of a function.
    pub function_args: u32,
    /// Bytes of a LIKE or GLOB pattern.
    pub like_pattern_length: u32,
    /// Highest parameter number.
    pub variables: u32,
    /// Depth of triggers that fire triggers.
    pub trigger_depth: u32,
}

impl Default for Limits {
    /// SQLite's own defaults, but for `length`: longer values belong elsewhere, and each takes several times
    /// its length in memory on its way; and `sql_length`, which was SQLite's before it became a thousand
    /// times that: compiling has no deadline, and long values belong into parameters.
    fn default() -> Self {
        Self {
            length: 64 << 20,
            sql_length: 1_000_000,
            columns: 2000,
            expr_depth: 1000,
            compound_select: 500,
            vdbe_ops: 250_000_000,
            function_args: 127,
            like_pattern_length: 50_000,
            variables: 32_766,
            trigger_depth: 1000,
        }
    }
}

impl Limits {
    /// [`Limits::sql_length`] of a file: it has values where requests have parameters, and exports write a blob
    /// with two digits for a byte.
    pub(crate) fn script_sql_length(&self) -> u32 {
        self.length
            .saturating_mul(2)
            .saturating_add(self.sql_length)
    }

    /// The limits of Cloudflare's D1 as its engine sets them, for parity tests.
    pub fn strict_d1() -> Self {
        Self {
            length: 4 << 20,
            sql_length: 100_000,
            columns: 100,
            expr_depth: 100,
            compound_select: 5,
            vdbe_ops: 25_000,
            function_args: 127,
            like_pattern_length: 50,
            variables: 100,
            trigger_depth: 10,
        }
    }
}
