//! What a crash leaves behind, and whether the database finds its feet again.
//!
//! At stake: serving a state that is none, or losing the way back to one.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidemark_engine::{CheckpointMode, Database, OpenError, Options};
use tidemark_protocol::{Position, Transaction};

use crate::support::{Node, Random, id, statement};

const FILES: [&str; 3] = ["main.db", "main.db-wal", "positions"];
const WAL_HEADER_BYTES: u64 = 32;
const WAL_FRAME_BYTES: u64 = 24 + 4096;
/// A journal's header and its first entry, which are never written but whole and synced.
const JOURNAL_BYTES_MIN: u64 = 48;

/// A copy of a database's files as they are now: what a process killed at this moment leaves.
fn killed(path: &Path) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in FILES {
        if path.join(file).exists() {
            fs::copy(path.join(file), copy.join(file)).unwrap();
        }
    }
    (directory, copy)
}

fn cut(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    if file.metadata().unwrap().len() > bytes {
        file.set_len(bytes).unwrap();
    }
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// A random write; `random` decides which.
fn write(node: &mut Node, random: &mut Random) -> Transaction {
    let sql = match random.below(8) {
        0 => "INSERT INTO t(b) VALUES(randomblob(20000))",
        1 => "DELETE FROM t WHERE a % 7 = 0",
        2 => "UPDATE t SET b = randomblob(200) WHERE a % 3 = 0",
        _ => "INSERT INTO t(b) VALUES(randomblob(300)), ('x')",
    };
    let sql = format!("UPDATE n SET n = n + 1; {sql}");
    node.execute(&sql).0.unwrap()
}

fn new_node() -> (Node, Vec<Transaction>) {
    let mut node = Node::new();
    let first = node.commit(
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE n(n); INSERT INTO n VALUES(0)",
    );
    (node, vec![first])
}

#[test]
fn a_killed_process_loses_no_acknowledged_transaction() {
    let mut random = Random(11);
    let (mut node, _) = new_node();
    let mut pending = Vec::new();
    for step in 0..120 {
        pending.push(write(&mut node, &mut random).header().next);
        if random.below(3) == 0 {
            let count = 1 + random.below(pending.len() as u64) as usize;
            node.owner.acknowledge(pending[count - 1].seq).unwrap();
            pending.drain(..count);
        }
        match random.below(20) {
            0 => drop(node.owner.checkpoint(CheckpointMode::Passive).unwrap()),
            1 => drop(node.owner.checkpoint(CheckpointMode::Truncate).unwrap()),
            _ => {}
        }
        if step % 6 == 0 {
            let (_directory, copy) = killed(&node.path);
            let mut copy = Node::open(&copy);
            assert_eq!(copy.owner.position(), node.owner.position(), "step {step}");
            assert_eq!(copy.owner.durable(), node.owner.durable(), "step {step}");
            assert_eq!(copy.read("PRAGMA integrity_check").1.text(), "ok");
            // And it can go on from there.
            copy.commit("UPDATE n SET n = -1");
        }
    }
}

/// Where the copy stands, and that replaying the log from its durable position leads to `want`.
fn recover(copy: &Path, log: &[Transaction], want: Position) -> (Option<Position>, Vec<u8>) {
    let mut node = Node::open(copy);
    let found = node.owner.position();
    let durable = node.owner.durable();
    let after = |position: Position| {
        log.iter()
            .filter(move |entry| entry.header().next.seq > position.seq)
            .cloned()
    };
    if found.is_none() {
        assert!(node.try_read(&[statement("SELECT n FROM n")]).is_err());
        assert!(node.try_execute(&[statement("DELETE FROM n")]).is_err());
        for transaction in after(durable) {
            if node.owner.replay(&transaction).unwrap().is_some() {
                break;
            }
        }
    }
    let position = node
        .owner
        .position()
        .expect("the log reaches past every state");
    assert!(position.seq >= durable.seq);
    let rest: Vec<_> = after(position).collect();
    assert_eq!(node.owner.apply(&rest).unwrap(), want);
    assert_eq!(node.read("PRAGMA integrity_check").1.text(), "ok");
    (found, node.bytes())
}

#[test]
fn a_power_loss_is_repaired_from_the_log() {
    let seed = 5;
    let mut random = Random(seed);
    let (mut node, mut log) = new_node();
    let mut found = (0, 0);
    // Bytes of the WAL that a checkpoint has synced; everything later may be lost.
    let mut synced = 0;
    for step in 0..200 {
        let transaction = write(&mut node, &mut random);
        let frames_before = node.owner.wal_frames();
        node.owner
            .acknowledge(transaction.header().next.seq)
            .unwrap();
        log.push(transaction);
        if node.owner.wal_frames() < frames_before {
            synced = 0;
        }
        let mode = match random.below(30) {
            0 => Some(CheckpointMode::Passive),
            1 => Some(CheckpointMode::Restart),
            2 => Some(CheckpointMode::Truncate),
            _ => None,
        };
        if let Some(mode) = mode {
            node.owner.checkpoint(mode).unwrap();
            synced = WAL_HEADER_BYTES + u64::from(node.owner.wal_frames()) * WAL_FRAME_BYTES;
        }
        if step % 8 != 7 {
            continue;
        }
        let (_directory, copy) = killed(&node.path);
        let wal = copy.join("main.db-wal");
        let used = WAL_HEADER_BYTES + u64::from(node.owner.wal_frames()) * WAL_FRAME_BYTES;
        cut(&wal, synced + random.below(used.saturating_sub(synced) + 1));
        let journal = copy.join("positions");
        let length = fs::metadata(&journal).unwrap().len();
        cut(
            &journal,
            JOURNAL_BYTES_MIN + random.below(length - JOURNAL_BYTES_MIN + 1),
        );
        let (position, bytes) = recover(&copy, &log, node.owner.position().unwrap());
        match position {
            Some(_) => found.0 += 1,
            None => found.1 += 1,
        }
        let (_directory, whole) = killed(&node.path);
        assert!(
            bytes == Node::open(&whole).bytes(),
            "seed {seed}, step {step}: files differ"
        );
    }
    // Both kinds of loss occurred, or this test shows nothing.
    assert!(found.0 > 0 && found.1 > 0, "{found:?}");
}

/// The replay itself may outgrow the WAL and be checkpointed, and die. It starts again where it started.
#[test]
fn a_replay_that_is_interrupted_starts_again() {
    let (mut node, mut log) = new_node();
    log.push(node.commit(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
         INSERT INTO t SELECT i, zeroblob(3000) FROM n",
    ));
    node.bytes();
    // Each touches a page of its own, so that no state but the last can come about by accident: a
    // transaction that writes every page makes any content its own, and replay rightly says so.
    for row in 1..=30 {
        log.push(node.commit(&format!(
            "UPDATE t SET b = randomblob(3000) WHERE a = {row}"
        )));
    }
    let (_directory, path) = killed(&node.path);
    cut(&path.join("positions"), JOURNAL_BYTES_MIN);
    let mut copy = Node::open(&path);
    let durable = copy.owner.durable();
    assert_eq!(
        (copy.owner.position(), durable.seq),
        (None, log[1].header().next.seq)
    );
    for (index, transaction) in log[2..20].iter().enumerate() {
        assert_eq!(copy.owner.replay(transaction).unwrap(), None);
        if index % 5 == 4 {
            let report = copy.owner.checkpoint(CheckpointMode::Truncate).unwrap();
            assert_eq!(report.durable, None, "an unknown state is no position");
        }
    }
    assert_eq!(copy.owner.durable(), durable);
    drop(copy);
    let (found, bytes) = recover(&path, &log, node.owner.position().unwrap());
    assert_eq!(found, None);
    assert!(bytes == node.bytes());
}

#[test]
fn a_lost_journal_needs_the_whole_log() {
    let (mut node, mut log) = new_node();
    log.push(node.commit("INSERT INTO t(b) VALUES(1)"));
    let (_directory, copy) = killed(&node.path);
    fs::remove_file(copy.join("positions")).unwrap();
    let want = node.owner.position().unwrap();
    let (found, bytes) = recover(&copy, &log, want);
    assert_eq!(found, None);
    assert!(bytes == node.bytes());
}

#[test]
fn a_journal_of_another_database_is_not_believed() {
    let (mut node, _) = new_node();
    node.bytes();
    let (_directory, copy) = killed(&node.path);
    flip(&copy.join("positions"), 10); // within the database's identifier
    let opened = Database::open(&copy, id(), &Options::default());
    assert!(
        matches!(opened, Err(OpenError::NotADatabase { .. })),
        "{opened:?}"
    );
}

#[test]
fn a_byte_flipped_on_disk_is_noticed_at_open() {
    let (mut node, _) = new_node();
    for _ in 0..40 {
        node.commit("INSERT INTO t(b) VALUES(randomblob(3000))");
    }
    let size = node.bytes().len();
    let mut random = Random(3);
    for _ in 0..60 {
        let (_directory, copy) = killed(&node.path);
        let offset = random.below(size as u64) as usize;
        flip(&copy.join("main.db"), offset);
        match Database::open(&copy, id(), &Options::default()) {
            Ok(opened) => assert_eq!(opened.owner.position(), None, "offset {offset}"),
            Err(error) => assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}"),
        }
    }
}

#[test]
fn a_byte_flipped_in_the_wal_loses_only_what_follows() {
    let (mut node, mut log) = new_node();
    node.bytes();
    for _ in 0..10 {
        log.push(node.commit("INSERT INTO t(b) VALUES(randomblob(300))"));
    }
    let (_directory, copy) = killed(&node.path);
    let frames = u64::from(node.owner.wal_frames());
    flip(
        &copy.join("main.db-wal"),
        (WAL_HEADER_BYTES + frames / 2 * WAL_FRAME_BYTES + 99) as usize,
    );
    let (found, bytes) = recover(&copy, &log, node.owner.position().unwrap());
    assert!(found.expect("the journal lists every state").seq < node.owner.position().unwrap().seq);
    assert!(bytes == node.bytes());
}

/// Copies the files each time a named point is passed and checks that every copy opens at the position
/// before or after.
#[test]
fn a_crash_between_any_two_steps_leaves_the_state_before_or_after() {
    use std::sync::{Arc, Mutex};

    let points = [
        "engine-before-journal",
        "engine-before-inject",
        "engine-after-inject",
        "engine-before-checkpoint",
        "engine-after-checkpoint",
        "engine-after-rewrite",
    ];
    let scenario = fail::FailScenario::setup();
    let (mut node, _) = new_node();
    let copies = Arc::new(Mutex::new(Vec::new()));
    for point in points {
        let (copies, path) = (copies.clone(), node.path.clone());
        let thread = std::thread::current().id();
        fail::cfg_callback(point, move || {
            // Other tests of this process pass here too.
            if std::thread::current().id() == thread {
                copies.lock().unwrap().push((point, killed(&path)));
            }
        })
        .unwrap();
    }
    let mut random = Random(23);
    for step in 0..12 {
        let before = node.owner.position();
        let next = write(&mut node, &mut random).header().next;
        node.owner.acknowledge(next.seq).unwrap();
        if step % 3 == 2 {
            node.owner.checkpoint(CheckpointMode::Truncate).unwrap();
        }
        let taken = std::mem::take(&mut *copies.lock().unwrap());
        assert!(taken.len() >= 3);
        for (point, (_directory, copy)) in taken {
            let position = Node::open(&copy).owner.position();
            let want = if matches!(point, "engine-before-journal" | "engine-before-inject") {
                before
            } else {
                Some(next)
            };
            assert_eq!(position, want, "{point}");
        }
    }
    scenario.teardown();
}
