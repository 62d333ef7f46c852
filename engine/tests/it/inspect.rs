//! Files that are looked at while nobody has them open: whatever byte of them changes is found, and what a crash
//! leaves is not taken for damage.

use std::path::Path;

use tidemark_engine::{CheckpointMode, Depth, Inspection, Severity, inspect};
use tidemark_protocol::PAGE_SIZE;

use crate::support::{Node, Random, id};

const FILES: [&str; 3] = ["main.db", "main.db-wal", "positions"];
const FRAME: usize = 24 + PAGE_SIZE;

fn look(directory: &Path) -> Inspection {
    inspect(directory, id(), Depth::Full)
}

fn damage(seen: &Inspection) -> Vec<&Path> {
    let findings = seen.findings.iter();
    let damage = findings.filter(|finding| finding.severity == Severity::Damage);
    damage.map(|finding| &*finding.path).collect()
}

/// Rows, some of them in the WAL alone; an index, to be compared with its table.
fn filled() -> Node {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); CREATE INDEX i ON t(abs(b))");
    for _ in 0..40 {
        node.commit("INSERT INTO t(b, c) VALUES(random() >> 1, randomblob(3000))");
    }
    // From the beginning of an empty WAL: behind its end lies nothing of before.
    node.owner.checkpoint(CheckpointMode::Truncate).unwrap();
    for _ in 0..10 {
        node.commit("INSERT INTO t(b, c) VALUES(random() >> 1, randomblob(3000))");
    }
    node
}

/// Copies the files as a kill leaves them.
fn killed(node: &Node) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in FILES {
        let from = node.path.join(name);
        if from.exists() {
            std::fs::copy(from, directory.path().join(name)).unwrap();
        }
    }
    directory
}

#[test]
fn what_a_kill_leaves_is_sound_and_at_the_position_it_was() {
    let mut node = filled();
    let check = |node: &Node| {
        let files = killed(node);
        let seen = look(files.path());
        assert_eq!(seen.findings, [], "{seen:?}");
        assert_eq!(seen.position, node.owner.position());
        assert!(!files.path().join("main.db.new").exists());
        seen
    };
    let seen = check(&node);
    assert!(seen.covered > 0 && seen.pages > seen.covered, "{seen:?}");
    // A WAL that starts over has frames of before behind its end.
    node.owner.checkpoint(CheckpointMode::Restart).unwrap();
    check(&node);
    node.commit("INSERT INTO t(b, c) VALUES(1, 2)");
    check(&node);
    node.commit("DELETE FROM t");
    check(&node);
    node.owner.checkpoint(CheckpointMode::Truncate).unwrap();
    check(&node);
}

/// Of a WAL that a process was writing to when it was killed the last transaction may be there in part.
#[test]
fn a_last_transaction_that_is_cut_anywhere_is_unfinished_and_an_earlier_one_is_damage() {
    let mut node = filled();
    let before = node.owner.position();
    let whole = std::fs::read(node.path.join("main.db-wal")).unwrap().len();
    node.commit("UPDATE t SET b = 1 WHERE a < 5");
    let files = killed(&node);
    let wal = files.path().join("main.db-wal");
    let bytes = std::fs::read(&wal).unwrap();
    assert!(bytes.len() > whole + FRAME, "several frames");
    let mut random = Random(11);
    for _ in 0..20 {
        let cut =
            whole + 1 + usize::try_from(random.below((bytes.len() - whole - 1) as u64)).unwrap();
        std::fs::write(&wal, &bytes[..cut]).unwrap();
        let seen = look(files.path());
        assert_eq!(damage(&seen), [] as [&Path; 0], "cut at {cut}: {seen:?}");
        assert_eq!(seen.findings.len(), 1, "cut at {cut}: {seen:?}");
        assert_eq!(seen.position, before);
    }
    std::fs::write(&wal, &bytes[..whole - 100]).unwrap();
    let seen = look(files.path());
    assert!(damage(&seen).contains(&&*wal), "{seen:?}");
}

/// A transaction that was killed midway, and a shorter one written over its beginning after the next start: the rest of
/// the first has the salt of now, and a checksum that follows on nothing.
#[test]
fn frames_of_a_killed_transaction_behind_the_end_are_unfinished() {
    let node = filled();
    let files = killed(&node);
    let wal = files.path().join("main.db-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes.extend_from_within(32 + FRAME..32 + 3 * FRAME);
    std::fs::write(&wal, &bytes).unwrap();
    let seen = look(files.path());
    let severities: Vec<_> = seen.findings.iter().map(|f| f.severity).collect();
    assert_eq!(severities, [Severity::Unfinished], "{seen:?}");
    assert_eq!(seen.position, node.owner.position());
}

#[test]
fn rows_that_break_a_check_are_content_and_a_marked_copy_is_damage() {
    let mut node = filled();
    node.commit("CREATE TABLE u(a CHECK(a > 0))");
    node.commit("PRAGMA ignore_check_constraints=1; INSERT INTO u VALUES(-1)");
    let files = killed(&node);
    let seen = look(files.path());
    assert_eq!(seen.findings, [], "{seen:?}");

    tidemark_engine::mark_damaged(files.path(), "a test").unwrap();
    let seen = look(files.path());
    assert_eq!(damage(&seen), [files.path().join("damaged")], "{seen:?}");
    assert_eq!(seen.position, None);
    for name in FILES {
        assert!(!files.path().join(name).exists(), "{name}");
        let aside = files.path().join(format!("{name}.damaged"));
        assert_eq!(
            std::fs::read(aside).unwrap(),
            std::fs::read(node.path.join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn any_byte_that_changes_is_found_in_its_file() {
    let mut random = Random(7);
    let mut node = filled();
    for with_wal in [true, false] {
        if !with_wal {
            node.owner.checkpoint(CheckpointMode::Truncate).unwrap();
        }
        let files = killed(&node);
        let covered = if with_wal {
            look(files.path()).covered
        } else {
            0
        };
        assert_eq!(covered > 0, with_wal);
        for name in FILES {
            let path = files.path().join(name);
            let Ok(good) = std::fs::read(&path) else {
                continue;
            };
            if good.is_empty() {
                continue;
            }
            // Pages of the main file that the WAL covers are read by nobody.
            if with_wal && name == "main.db" {
                continue;
            }
            let mut offsets: Vec<usize> = (0..150)
                .map(|_| usize::try_from(random.below(good.len() as u64)).unwrap())
                .collect();
            // Every byte of headers, and of the last frame's and entry's.
            offsets.extend(0..good.len().min(100));
            let last = good
                .len()
                .saturating_sub(if name == "main.db-wal" { FRAME } else { 24 });
            offsets.extend(last..(last + 24).min(good.len()));
            for offset in offsets {
                let mut bad = good.clone();
                bad[offset] ^= 1 << random.below(8);
                std::fs::write(&path, &bad).unwrap();
                let seen = look(files.path());
                let found = damage(&seen);
                assert!(
                    !found.is_empty(),
                    "{name} at {offset} of {}: {seen:?}",
                    good.len()
                );
                if name != "main.db" {
                    assert!(found.contains(&&*path), "{name} at {offset}: {seen:?}");
                }
            }
            std::fs::write(&path, &good).unwrap();
        }
        assert_eq!(look(files.path()).findings, []);
    }
}

#[test]
fn a_file_that_is_not_there_and_another_database_s_journal_are_damage() {
    let mut node = filled();
    node.owner.checkpoint(CheckpointMode::Truncate).unwrap();
    let files = killed(&node);
    let other = inspect(
        files.path(),
        tidemark_protocol::DatabaseId::CATALOGUE,
        Depth::Quick,
    );
    assert!(!damage(&other).is_empty(), "{other:?}");
    std::fs::remove_file(files.path().join("main.db")).unwrap();
    assert!(!damage(&look(files.path())).is_empty());
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(look(empty.path()).findings, [], "not made yet");
}
