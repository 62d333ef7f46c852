//! Everything at once, at random: DDL, transactions that outgrow the page cache, growth, vacuum, failing
//! requests, acknowledgements and discards in any rhythm, checkpoints; a reader beside it that checks
//! that what it sees is exactly the state its position names; and a second database fed with the
//! acknowledged transactions in merged runs, which must end up with the same bytes.
//!
//! At stake: a reader that sees a write which is lost later, a position that lies, a copy that differs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tidemark_engine::{CheckpointMode, Database, Options};
use tidemark_protocol::{Seq, Statement, Transaction, Value};

use crate::support::{Node, Random, Rows, soon, stamp, statement, with};

const ACCOUNTS: u64 = 400;
const STEPS: u64 = 500;

/// Which version each seq has: what a reader at that seq must see.
type Versions = Arc<Mutex<HashMap<Seq, i64>>>;

#[test]
fn random_mix_with_seed_1() {
    mix(1);
}

#[test]
fn random_mix_with_seed_2() {
    mix(2);
}

#[test]
fn random_mix_with_a_fresh_seed() {
    let seed = u64::from(std::process::id()) ^ u64::from(uuid::Uuid::new_v4().as_fields().0);
    mix(seed);
}

fn mix(seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    // A cache of a few pages: larger transactions spill.
    let options = Options {
        cache_kib: 64,
        ..Options::default()
    };
    let mut primary = Node::with(&options);
    let mut follower = Node::with(&options);
    let versions = Versions::default();
    versions.lock().unwrap().insert(Seq(1), 0);
    let mut outbox = vec![primary.commit(&format!(
        "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
         CREATE INDEX by_note ON account(note);
         CREATE TABLE filler(x);
         CREATE TABLE version(v INTEGER);
         INSERT INTO version VALUES(0);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS})
         INSERT INTO account SELECT i, 1000, 'note ' || i FROM n;"
    ))];
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (database, versions, stop, reads) =
                (primary.database.clone(), versions.clone(), &stop, &reads);
            scope.spawn(move || read_until(&database, &versions, stop, reads));
        }
        // Also stops the readers when an assertion below fails.
        let _stop = StopOnDrop(&stop);
        let mut version = 0;
        let mut pending: Vec<Transaction> = Vec::new();
        for step in 0..STEPS {
            let statements = request(&mut random, step, version + 1);
            let is_vacuum = random.below(60) == 0;
            let made = if is_vacuum {
                primary.owner.vacuum(&stamp()).unwrap()
            } else {
                let mut rows = Rows::default();
                match primary
                    .owner
                    .execute(&statements, &stamp(), &soon(), &mut rows)
                {
                    Ok(made) => made,
                    Err(error) => {
                        assert_eq!(step % 17, 3, "step {step}: {error}");
                        None
                    }
                }
            };
            if let Some(transaction) = made {
                version += i64::from(!is_vacuum);
                let seq = transaction.header().next.seq;
                versions.lock().unwrap().insert(seq, version);
                pending.push(transaction);
            }
            let acknowledged = random.below(3).min(pending.len() as u64) as usize;
            if let Some(last) = acknowledged.checked_sub(1).map(|last| &pending[last]) {
                primary.owner.acknowledge(last.header().next.seq).unwrap();
            }
            outbox.extend(pending.drain(..acknowledged));
            if random.below(40) == 0 {
                primary.owner.discard().unwrap();
                pending.clear();
                version = versions.lock().unwrap()[&primary.owner.position().unwrap().seq];
                assert_eq!(
                    primary.execute("SELECT v FROM version").1.integer(),
                    version
                );
            }
            if random.below(20) == 0 {
                follower.owner.apply(&outbox).unwrap();
                outbox.clear();
                assert_eq!(follower.owner.position(), primary.owner.position());
                check_state(&follower.database, &versions);
            }
            match random.below(90) {
                0 => drop(primary.owner.checkpoint(CheckpointMode::Passive).unwrap()),
                1 => drop(primary.owner.checkpoint(CheckpointMode::Restart).unwrap()),
                2 => drop(primary.owner.checkpoint(CheckpointMode::Truncate).unwrap()),
                3 => drop(follower.owner.checkpoint(CheckpointMode::Passive).unwrap()),
                4 => drop(follower.owner.checkpoint(CheckpointMode::Truncate).unwrap()),
                _ => {}
            }
        }
        if let Some(last) = pending.last() {
            primary.owner.acknowledge(last.header().next.seq).unwrap();
        }
        outbox.append(&mut pending);
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    follower.owner.apply(&outbox).unwrap();
    check_state(&primary.database, &versions);
    check_state(&follower.database, &versions);
    for node in [&mut primary, &mut follower] {
        assert_eq!(node.read("PRAGMA integrity_check").1.text(), "ok");
        let mut snapshot = node.database.snapshot().unwrap();
        assert_eq!(snapshot.checksum().unwrap(), snapshot.position().checksum);
        assert_eq!(snapshot.hashes().unwrap(), node.owner.page_hashes());
    }
    assert!(primary.bytes() == follower.bytes(), "files differ");
    let (at, follower) = (primary.owner.position(), follower.reopen());
    assert_eq!(follower.owner.position(), at);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A request that moves money, sets the version, and does something else besides.
fn request(random: &mut Random, step: u64, version: i64) -> Vec<Statement> {
    let (from, to, amount) = (
        1 + random.below(ACCOUNTS),
        1 + random.below(ACCOUNTS),
        random.below(9),
    );
    let integer = |n: u64| Value::Integer(n.cast_signed());
    let transfer = "UPDATE account SET balance = balance + ?1 WHERE id = ?2";
    let mut statements = vec![
        with(
            transfer,
            vec![Value::Integer(-amount.cast_signed()), integer(from)],
        ),
        with(transfer, vec![integer(amount), integer(to)]),
        with("UPDATE version SET v = ?1", vec![Value::Integer(version)]),
    ];
    let more = match step % 17 {
        // Fails after it has spilled: the statement's savepoint and the transaction are undone.
        3 => "UPDATE account SET note = 'lost ' || id; UPDATE account SET id = 1",
        5 => "UPDATE account SET note = note || hex(randomblob(100)) WHERE id % 3 = 0",
        6 => "UPDATE account SET note = substr(note, 1, 20)",
        8 => "INSERT INTO filler(x) SELECT randomblob(9000) FROM account LIMIT 20",
        11 => "DELETE FROM filler",
        13 => "INSERT OR IGNORE INTO account(id, balance) SELECT id, 1 FROM account",
        _ => "",
    };
    if !more.is_empty() {
        statements.push(statement(more));
    }
    match step % 50 {
        10 => statements.push(statement(&format!(
            "CREATE TABLE t{step}(a, b); CREATE INDEX i{step} ON t{step}(a);
             INSERT INTO t{step} SELECT id, note FROM account LIMIT 100"
        ))),
        20 => statements.push(statement(&format!("ALTER TABLE filler ADD COLUMN c{step}"))),
        30 => statements.push(statement(&format!("DROP TABLE IF EXISTS t{}", step - 20))),
        _ => {}
    }
    statements
}

fn read_until(database: &Database, versions: &Versions, stop: &AtomicBool, reads: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        check_state(database, versions);
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two statements on one snapshot: the money is all there, and the version is that of the position.
fn check_state(database: &Database, versions: &Versions) {
    let mut rows = Rows::default();
    let statements = [
        statement("SELECT sum(balance) FROM account"),
        statement("SELECT v, (SELECT sum(balance) FROM account) FROM version"),
    ];
    let position = database.read(&statements, &soon(), &mut rows).unwrap();
    let total = Value::Integer(1000 * ACCOUNTS.cast_signed());
    assert_eq!(rows.statements[0].rows[0][0], total);
    assert_eq!(rows.statements[1].rows[0][1], total);
    assert_eq!(
        rows.integer(),
        versions.lock().unwrap()[&position.seq],
        "at {position}"
    );
    // One statement alone takes its snapshot without a transaction around it.
    let mut rows = Rows::default();
    let position = database.read(&statements[1..], &soon(), &mut rows).unwrap();
    assert_eq!(
        rows.integer(),
        versions.lock().unwrap()[&position.seq],
        "at {position}"
    );
}
