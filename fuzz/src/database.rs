//! Files of a database as a start may find them: with changes anywhere, also such that every checksum on the way
//! in is right, so that SQLite and the engine work on them.

mod wal;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use tidemark_engine::{CheckpointMode, Owner, page_hash};
use tidemark_protocol::{PAGE_SIZE, PageNo, Rules};

use crate::engine::{self, ID, directory, execute, exported, open};

/// What the files of the template hold.
const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB, c REAL DEFAULT 1.5);
     CREATE INDEX i ON t (a, c);
     CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
     CREATE VIEW s AS SELECT a, count(*) AS n FROM t GROUP BY a;
     CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT OR IGNORE INTO w VALUES (new.a, new.id); END;
     CREATE VIRTUAL TABLE f USING fts5(x);
     INSERT INTO t (a, b) VALUES ('x', zeroblob(5000)), ('y', x'0102'), (NULL, NULL);
     INSERT INTO f VALUES ('the tide leaves a mark');";
/// What comes into the write-ahead log.
const CHANGES: &str = "INSERT INTO t (a) VALUES ('z'); UPDATE t SET c = 2 WHERE id = 1;";
/// What is asked of the files.
const READS: [&str; 6] = [
    "SELECT * FROM t ORDER BY a",
    "SELECT * FROM w",
    "SELECT * FROM s",
    "SELECT rowid, * FROM f WHERE f MATCH 'tide'",
    "SELECT * FROM sqlite_schema, pragma_table_xinfo(name)",
    "PRAGMA integrity_check",
];
/// Changes to one input's files at most.
const PATCHES_MAX: usize = 64;

/// Sound files.
struct Template {
    main: Vec<u8>,
    wal: Vec<u8>,
    positions: Vec<u8>,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let place = directory();
    let path = place.path().join("template");
    let file = |name: &str| std::fs::read(path.join(name)).expect("it is there");
    let mut opened = open(&path).expect("an empty database opens");
    commit(&mut opened.owner, SCHEMA);
    let folded = opened.owner.checkpoint(CheckpointMode::Truncate);
    folded.expect("nobody reads");
    let main = file("main.db");
    commit(&mut opened.owner, CHANGES);
    Template {
        main,
        wal: file("main.db-wal"),
        positions: file("positions"),
    }
});

fn commit(owner: &mut Owner, sql: &str) {
    let made = execute(owner, Rules::Script, &[sql]);
    let made = made.expect("sound SQL").expect("it writes");
    let seq = made.header().next.seq;
    owner.acknowledge(seq).expect("the newest one");
}

/// Which file is changed: the first byte of an input.
const MAIN: u8 = 0;
const WAL: u8 = 1;
const POSITIONS: u8 = 2;

/// The first byte says which file is changed and whether its checksums are made right, the others how.
pub fn check(bytes: &[u8]) {
    let [which, patches @ ..] = bytes else {
        return;
    };
    let Template {
        main,
        wal,
        positions,
    } = &*TEMPLATE;
    let (mut main, mut wal, mut positions) = (main.clone(), wal.clone(), positions.clone());
    match which % 4 {
        MAIN => {
            wal.clear();
            patch(&mut main, patches);
        }
        WAL => patch(&mut wal, patches),
        POSITIONS => patch(&mut positions, patches),
        // Whatever somebody has in its place.
        _ => {
            wal.clear();
            main = patches.to_vec();
        }
    }
    let sealed = which & 4 == 0 && which % 4 != POSITIONS;
    if sealed {
        wal::seal(&mut wal);
        positions = journal(&content(&main, &wal));
    }
    let place = directory();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(place.path().join(name), bytes).expect("write a file");
    };
    write("main.db", &main);
    write("main.db-wal", &wal);
    write("positions", &positions);
    used(place.path());
}

/// Opens what is there, reads, writes, and opens it again.
fn used(path: &Path) {
    let Ok(mut opened) = open(path) else {
        return;
    };
    let Some(position) = opened.database.position() else {
        // Its content is at no known position: nothing is served.
        assert_eq!(engine::read(&opened.database, &READS), 0);
        assert!(execute(&mut opened.owner, Rules::Request, &[CHANGES]).is_err());
        return;
    };
    engine::read(&opened.database, &READS);
    let _ = exported(&opened.database);
    if let Ok(Some(made)) = execute(&mut opened.owner, Rules::Request, &[CHANGES]) {
        assert_eq!(made.header().base, position);
        let next = made.header().next;
        if opened.owner.acknowledge(next.seq).is_ok() {
            assert_eq!(opened.database.position(), Some(next));
        }
    }
    let _ = opened.owner.checkpoint(CheckpointMode::Truncate);
    let last = opened.database.position();
    drop(opened);
    if let Ok(again) = open(path) {
        assert_eq!(
            again.database.position(),
            last,
            "a start finds what was left"
        );
    }
}

/// Changes bytes in place: page, offset in it, count, bytes; and whether the file ends there.
fn patch(file: &mut Vec<u8>, mut patches: &[u8]) {
    for _ in 0..PATCHES_MAX {
        let [page, low, high, count, rest @ ..] = patches else {
            return;
        };
        let at = usize::from(*page) * PAGE_SIZE + usize::from(u16::from_le_bytes([*low, *high]));
        let (bytes, rest) = rest.split_at(usize::from(count & 0x7f).min(rest.len()));
        patches = rest;
        if count & 0x80 != 0 {
            file.truncate(at);
        } else if let Some(place) = file.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The pages that a reader of these files sees.
fn content(main: &[u8], wal: &[u8]) -> BTreeMap<u32, [u8; PAGE_SIZE]> {
    let numbered = (1..).zip(main.as_chunks::<PAGE_SIZE>().0.iter().copied());
    let mut pages: BTreeMap<u32, _> = numbered.collect();
    wal::lay_over(&mut pages, wal);
    pages
}

/// A journal that knows this content.
fn journal(pages: &BTreeMap<u32, [u8; PAGE_SIZE]>) -> Vec<u8> {
    let hashes = pages
        .iter()
        .map(|(page, image)| page_hash(PageNo(*page), image));
    let checksum = hashes.fold(0, |sum, hash| sum ^ hash);
    let mut entry = Vec::new();
    entry.extend(1_u32.to_le_bytes());
    entry.extend(9_u64.to_le_bytes());
    entry.extend(checksum.to_le_bytes());
    let crc = crc32fast::hash(&entry);
    let header = [&b"TMPO\x01\0\0\0"[..], &ID.to_bytes()].concat();
    [&header[..], &entry, &crc.to_le_bytes()].concat()
}
