//! The overlay against plain SQLite: the same statements on both, savepoints and spills included, which
//! clients cannot send but SQLite itself uses. At stake: a page of a rolled-back savepoint that survives.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemark_protocol::transaction::TransactionHeader;
use tidemark_protocol::{DatabaseId, Epoch, Position, StateChecksum};

use super::*;
use crate::ffi::{Connection, Prepared, Setup, Step};
use crate::genesis;
use crate::options::Limits;

/// A connection over an overlay.
struct Side {
    connection: Connection,
    wal: Arc<Mutex<Overlay>>,
    seq: u64,
}

impl Side {
    fn open(path: &Path) -> Self {
        let wal = Arc::new(Mutex::new(Overlay::default()));
        let limits = Limits::default();
        let setup = Setup {
            exclusive: true,
            limits: &limits,
            busy_timeout: Duration::from_secs(1),
        };
        let connection = Connection::open(path, wal.clone(), &setup).expect("opened");
        Self {
            connection,
            wal,
            seq: 0,
        }
    }

    fn run(&self, sql: &str) {
        let sql = std::ffi::CString::new(sql).expect("no zero byte");
        let ran = self.connection.run_internal(&sql);
        ran.unwrap_or_else(|code| panic!("{sql:?}: {code:?} {}", self.connection.message()));
    }

    fn text(&self, sql: &std::ffi::CStr) -> String {
        let mut prepared: Prepared = self
            .connection
            .prepare_internal(sql)
            .expect("valid statement");
        self.connection.internally(|| {
            let step = prepared.step();
            assert_eq!(step, Ok(Step::Row), "{}", self.connection.message());
            let value = prepared.column(0);
            let tidemark_protocol::ValueRef::Text(text) = value else {
                panic!("{value:?}")
            };
            String::from_utf8(text.to_vec()).expect("UTF-8")
        })
    }

    /// The content as text.
    fn content(&self) -> String {
        self.text(c"SELECT coalesce(group_concat(a || ':' || quote(b), ';'), '') FROM (SELECT * FROM t ORDER BY a)")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Overlay> {
        self.wal.lock().expect("no panic in the WAL")
    }

    /// Makes a record of what was committed.
    fn seal(&mut self) {
        let Some((pages, pages_after)) = self.lock().take_sealed() else {
            return;
        };
        let at = |seq| Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
            checksum: StateChecksum::default(),
        };
        let header = TransactionHeader {
            database: DatabaseId::CATALOGUE,
            base: at(self.seq),
            next: at(self.seq + 1),
            request: None,
            proposed_at_ms: 0,
            pages_after,
        };
        self.seq += 1;
        let transaction = pages.finish(header, &[]).expect("a valid record");
        self.lock().push(transaction);
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Runs random transactions with savepoints on an overlay and on a database in memory, and compares.
#[allow(clippy::print_stdout)]
fn check(seed: u64) {
    println!("seed {seed}");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("main.db");
    fs::write(&path, genesis::PAGE).expect("written");
    let mut real = Side::open(&path);
    let plain = Side::open(Path::new(":memory:"));
    let mut random = Random(seed);
    real.run("PRAGMA cache_size=6"); // pages: nearly every statement spills
    let both = |real: &Side, sql: &str| {
        real.run(sql);
        plain.run(sql);
    };
    both(&real, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    real.seal();
    both(&real, "CREATE INDEX i ON t(b)");
    real.seal();
    let mut spilled = false;
    for _ in 0..30 {
        let (before, pages_before) = (plain.content(), real.lock().pages());
        both(&real, "BEGIN IMMEDIATE");
        let mut depth = 0;
        for _ in 0..1 + random.below(12) {
            if depth == 0 {
                real.lock().release_savepoints();
            }
            let n = random.below(60);
            let sql = match random.below(10) {
                0 | 1 => format!(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
                     INSERT INTO t(b) SELECT hex(zeroblob({n} + i)) FROM n"
                ),
                2 => format!("UPDATE t SET b = b || '{n}' WHERE a % 5 < 3"),
                3 => format!("UPDATE t SET b = substr(b, 1, {n})"),
                4 => format!("DELETE FROM t WHERE a % 11 = {}", n % 11),
                5 => format!("INSERT INTO t(b) VALUES(hex(zeroblob({n} * 200)))"),
                6 | 7 => {
                    depth += 1;
                    format!("SAVEPOINT s{depth}")
                }
                8 if depth > 0 => {
                    depth = 1 + random.below(depth);
                    format!("ROLLBACK TO s{depth}")
                }
                9 if depth > 0 => {
                    depth -= 1;
                    format!("RELEASE s{}", depth + 1)
                }
                _ => continue,
            };
            both(&real, &sql);
            spilled |= !real.lock().written.is_empty();
            assert_eq!(real.content(), plain.content(), "{sql}");
        }
        if random.below(4) == 0 {
            both(&real, "ROLLBACK");
            assert_eq!(plain.content(), before);
            assert_eq!(real.lock().pages(), pages_before);
            let wal = real.lock();
            assert!(wal.sealed.is_none() && wal.written.is_empty());
        } else {
            both(&real, "COMMIT");
            real.seal();
        }
        assert_eq!(real.content(), plain.content());
        let waiting = real.lock().pending.len();
        if waiting > 0 && random.below(3) == 0 {
            let count = 1 + usize::try_from(random.below(waiting as u64)).expect("small");
            real.lock().flush(count).expect("flushed");
            assert_eq!(real.lock().pending.len(), waiting - count);
        }
        assert_eq!(real.content(), plain.content());
        assert_eq!(real.text(c"PRAGMA integrity_check"), "ok");
    }
    assert!(
        spilled,
        "the cache was large enough for everything: nothing was tested"
    );
    // Everything acknowledged: another connection, without overlay, sees the same.
    let waiting = real.lock().pending.len();
    if waiting > 0 {
        real.lock().flush(waiting).expect("flushed");
    }
    assert_eq!(real.lock().bytes, 0);
    assert!(real.lock().latest.is_empty());
    let other = Side::open(&path);
    assert_eq!(other.content(), plain.content());
    assert_eq!(other.text(c"PRAGMA integrity_check"), "ok");
}

#[test]
fn spills_and_savepoints_come_out_as_in_plain_sqlite() {
    for seed in 1..4 {
        check(seed);
    }
    check(u64::from(std::process::id()));
}

#[test]
fn a_transaction_that_outgrows_the_record_is_undone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("main.db");
    fs::write(&path, genesis::PAGE).expect("written");
    let mut side = Side::open(&path);
    side.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    side.seal();
    side.run("INSERT INTO t VALUES(1, 'kept')");
    side.seal();
    side.run("BEGIN IMMEDIATE");
    side.run("UPDATE t SET b = 'lost'");
    let huge = c"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 280)
                 INSERT INTO t(b) SELECT zeroblob(1000000) FROM n";
    side.connection
        .run_internal(huge)
        .expect("the cache spills without complaint");
    assert_eq!(
        side.connection.run_internal(c"COMMIT"),
        Err(Code(Code::FULL))
    );
    assert!(
        side.lock()
            .take_too_large()
            .is_some_and(|bytes| bytes > PAGES_BYTES_MAX)
    );
    if !side.connection.is_autocommit() {
        side.run("ROLLBACK");
    }
    assert_eq!(side.content(), "1:'kept'");
    assert_eq!(side.text(c"PRAGMA integrity_check"), "ok");
    side.run("UPDATE t SET b = 'next'");
    side.seal();
    assert_eq!(side.content(), "1:'next'");
}
