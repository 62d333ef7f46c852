//! A copy made anew from the pages of another.

use tidemark_engine::{Database, Options, Rebuild, RebuildError};
use tidemark_protocol::{PAGE_SIZE, PageNo, StateChecksum};

use crate::support::{Node, id, statement};

fn filled() -> Node {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a, b); CREATE INDEX i ON t(a)");
    for _ in 0..20 {
        node.commit("INSERT INTO t VALUES(random(), randomblob(2000))");
    }
    node
}

#[test]
fn a_rebuilt_copy_is_the_original() {
    let mut source = filled();
    let mut snapshot = source.database.snapshot().unwrap();
    let target = snapshot.position();
    // The copy has content of its own, in its WAL too, and is damaged.
    let mut copy = filled();
    copy.commit("DELETE FROM t");
    let Node {
        database,
        owner,
        path,
        ..
    } = &mut copy;
    let mut rebuild = Rebuild::begin(path, id(), target, snapshot.page_count()).unwrap();
    let mut image = [0; PAGE_SIZE];
    // In any order, some pages twice.
    for page in (1..=snapshot.page_count()).rev().chain(1..3).map(PageNo) {
        rebuild.write(page, &[9; PAGE_SIZE]).unwrap();
        snapshot.page(page, &mut image).unwrap();
        rebuild.write(page, &image).unwrap();
    }
    assert_eq!(rebuild.hashes(), snapshot.hashes().unwrap());
    let beyond = rebuild.write(PageNo(snapshot.page_count() + 1), &image);
    assert!(matches!(beyond, Err(RebuildError::Page { .. })));
    assert!(matches!(
        rebuild.write(PageNo(0), &image),
        Err(RebuildError::Page { .. })
    ));
    // The old database still serves until it is closed.
    assert!(database.position().is_some() && owner.position().is_some());
    let copy = copy.closed();
    rebuild.install().unwrap();
    let mut copy = copy.open_again();
    assert_eq!(copy.owner.position(), Some(target));
    assert_eq!(copy.owner.durable(), target);
    assert_eq!(copy.read("PRAGMA integrity_check").1.text(), "ok");
    drop(snapshot);
    let next = source.commit("INSERT INTO t VALUES(1, 1)");
    copy.owner.apply(&[next]).unwrap();
    assert!(copy.bytes() == source.bytes());
}

#[test]
fn a_rebuild_of_other_content_leaves_the_old() {
    let source = filled();
    let mut snapshot = source.database.snapshot().unwrap();
    let mut target = snapshot.position();
    target.checksum = StateChecksum(target.checksum.0 ^ 1);
    let copy = filled();
    let before = copy.owner.position();
    let mut rebuild = Rebuild::begin(&copy.path, id(), target, snapshot.page_count()).unwrap();
    let mut image = [0; PAGE_SIZE];
    for page in (1..=snapshot.page_count()).map(PageNo) {
        snapshot.page(page, &mut image).unwrap();
        rebuild.write(page, &image).unwrap();
    }
    let copy = copy.closed();
    assert!(matches!(
        rebuild.install(),
        Err(RebuildError::Checksum { .. })
    ));
    let copy = copy.open_again();
    assert_eq!(copy.owner.position(), before);
    assert!(!copy.path.join("main.db.new").exists());
}

#[test]
fn a_rebuild_of_an_open_database_is_refused() {
    let node = filled();
    let mut snapshot = node.database.snapshot().unwrap();
    let target = snapshot.position();
    let mut rebuild = Rebuild::begin(&node.path, id(), target, snapshot.page_count()).unwrap();
    let mut image = [0; PAGE_SIZE];
    for page in (1..=snapshot.page_count()).map(PageNo) {
        snapshot.page(page, &mut image).unwrap();
        rebuild.write(page, &image).unwrap();
    }
    assert!(matches!(rebuild.install(), Err(RebuildError::Open { .. })));
}

#[test]
fn a_rebuild_needs_no_old_database() {
    let source = filled();
    let mut snapshot = source.database.snapshot().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new");
    let mut rebuild =
        Rebuild::begin(&path, id(), snapshot.position(), snapshot.page_count()).unwrap();
    let mut image = [0; PAGE_SIZE];
    for page in (1..=snapshot.page_count()).map(PageNo) {
        snapshot.page(page, &mut image).unwrap();
        rebuild.write(page, &image).unwrap();
    }
    rebuild.install().unwrap();
    let opened = Database::open(&path, id(), &Options::default()).unwrap();
    assert_eq!(opened.owner.position(), Some(snapshot.position()));
}

/// What a resync needs: the damaged copy's own pages and hashes, though it serves nobody.
#[test]
fn a_damaged_copy_still_tells_its_pages() {
    let mut source = filled();
    source.bytes();
    let path = source.path.clone();
    let closed = source.closed();
    let main = path.join("main.db");
    let mut bytes = std::fs::read(&main).unwrap();
    bytes[3 * PAGE_SIZE + 77] ^= 1; // page 4
    std::fs::write(&main, &bytes).unwrap();
    let mut copy = closed.open_again();
    assert_eq!(copy.owner.position(), None);
    assert!(copy.try_read(&[statement("SELECT 1")]).is_err());
    assert!(copy.database.snapshot().is_err());
    assert_eq!(copy.owner.page_hashes().len() * PAGE_SIZE, bytes.len());
    let mut image = [0; PAGE_SIZE];
    copy.owner.page(PageNo(4), &mut image).unwrap();
    assert_eq!(image[..], bytes[3 * PAGE_SIZE..4 * PAGE_SIZE]);
}
