//! Requests that begin with `PRAGMA foreign_keys=off`: migrations that make a table anew.
//!
//! At stake: dropping a table deletes its rows first, and with foreign keys on takes along what refers to them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidemark_engine::ExecuteError;
use tidemark_protocol::ValueRef;
use tidemark_protocol::render::{AnswerLimit, ResultSink, StatementStatistics};

use crate::support::{Node, soon, stamp, statement};

const SCHEMA: &str = "CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT);
     CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(id) ON DELETE CASCADE);
     INSERT INTO parent VALUES(1, 'one'), (2, 'two');
     INSERT INTO child VALUES(10, 1), (20, 2), (21, 2);";

/// The usual way to change a table in ways that ALTER TABLE cannot.
const REBUILD: &str = "CREATE TABLE parent_new(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
     INSERT INTO parent_new SELECT id, name FROM parent;
     DROP TABLE parent;
     ALTER TABLE parent_new RENAME TO parent;";

fn with_family() -> Node {
    let mut node = Node::new();
    node.commit(SCHEMA);
    node
}

fn children(node: &Node) -> i64 {
    node.read("SELECT count(*) FROM child").1.integer()
}

/// Whether a row that refers to none is refused, as it should between all requests.
#[track_caller]
fn assert_enforced(node: &mut Node) {
    let message = node.refused("INSERT INTO child VALUES(99, 99)");
    assert_eq!(
        message,
        "FOREIGN KEY constraint failed: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_FOREIGNKEY)"
    );
}

#[test]
fn a_table_made_anew_with_foreign_keys_on_loses_what_refers_to_it() {
    let mut node = with_family();
    node.commit(REBUILD);
    assert_eq!(
        children(&node),
        0,
        "if it keeps them, the next test shows nothing"
    );
}

#[test]
fn a_table_made_anew_with_foreign_keys_off_keeps_what_refers_to_it() {
    for head in [
        "PRAGMA foreign_keys = off;",
        "PRAGMA foreign_keys=OFF;",
        "pragma Foreign_Keys=0;",
        "PRAGMA foreign_keys(no);",
        "PRAGMA foreign_keys=false;",
        "PRAGMA main.foreign_keys = 'off';",
        "PRAGMA \"foreign_keys\" = \"off\";",
        "PRAGMA[foreign_keys]=off;",
        "\u{feff} -- a migration; made by hand\n ;; /* PRAGMA */ PRAGMA/**/foreign_keys\n=\toff ;",
    ] {
        let mut node = with_family();
        node.commit(&format!("{head} {REBUILD} PRAGMA foreign_keys=on;"));
        assert_eq!(children(&node), 3, "{head}");
        let schema = node.read("SELECT sql FROM sqlite_schema WHERE name = 'parent'");
        assert!(schema.1.text().contains("NOT NULL"), "{head}");
        assert_enforced(&mut node);
    }
}

#[test]
fn a_batch_may_begin_so() {
    let mut node = with_family();
    let texts: Vec<_> = ["PRAGMA foreign_keys=off"]
        .into_iter()
        .chain(
            REBUILD
                .split_inclusive(';')
                .filter(|sql| !sql.trim().is_empty()),
        )
        .map(statement)
        .collect();
    let (made, _) = node.try_execute(&texts).expect("a valid migration");
    let made = made.expect("a migration writes").header().next;
    node.owner.acknowledge(made.seq).expect("flushed");
    assert_eq!(children(&node), 3);
    assert_enforced(&mut node);
}

#[test]
fn elsewhere_than_at_the_head_it_does_nothing() {
    for text in [
        format!("SELECT 1; PRAGMA foreign_keys=off; {REBUILD}"),
        format!("PRAGMA foreign_keys; PRAGMA foreign_keys=off; {REBUILD}"),
        format!("PRAGMA foreign_keys=on; PRAGMA foreign_keys=off; {REBUILD}"),
        format!("PRAGMA defer_foreign_keys=on; PRAGMA foreign_keys=off; {REBUILD}"),
        // Not a word that turns anything off.
        format!("PRAGMA foreign_keys=yes; {REBUILD}"),
    ] {
        let mut node = with_family();
        node.commit(&text);
        assert_eq!(children(&node), 0, "{text}");
        assert_enforced(&mut node);
    }
}

#[test]
fn a_statement_compiled_before_does_not_remember_the_switch() {
    let mut node = with_family();
    // Compiled with foreign keys, and kept.
    node.commit("DELETE FROM parent WHERE id = 1");
    assert_eq!(children(&node), 2);
    let texts = [
        statement("PRAGMA foreign_keys=off"),
        statement("DELETE FROM parent WHERE id = 1"),
        statement("DELETE FROM parent WHERE id = 2"),
        statement("INSERT INTO parent VALUES(2, 'two')"),
    ];
    let (made, _) = node.try_execute(&texts).expect("what is gone came back");
    let made = made.expect("it writes").header().next;
    node.owner.acknowledge(made.seq).expect("flushed");
    assert_eq!(children(&node), 2);
    // Compiled without, and kept.
    node.commit("DELETE FROM parent WHERE id = 2");
    assert_eq!(children(&node), 0);
}

#[test]
fn a_row_that_refers_to_none_at_the_end_undoes_everything() {
    let mut node = with_family();
    let before = node.owner.tip();
    for (text, row) in [
        (
            "PRAGMA foreign_keys=off; DELETE FROM parent WHERE id = 2",
            "row 20 of table \"child\" refers to no row of \"parent\"",
        ),
        (
            "PRAGMA foreign_keys=off; DROP TABLE parent",
            "row 10 of table \"child\" refers to no row of \"parent\"",
        ),
        (
            "PRAGMA foreign_keys=off; CREATE TABLE w(a PRIMARY KEY REFERENCES parent(id)) WITHOUT ROWID;
             INSERT INTO w VALUES(7)",
            "a row of table \"w\" refers to no row of \"parent\"",
        ),
    ] {
        let message = node.refused(text);
        let failed = "FOREIGN KEY constraint failed: SQLITE_CONSTRAINT (extended: \
                      SQLITE_CONSTRAINT_FOREIGNKEY)";
        assert_eq!(message, format!("{failed}: {row}"), "{text}");
        assert_eq!(node.owner.tip(), before, "{text}");
        assert_enforced(&mut node);
    }
    assert_eq!(children(&node), 3);
    assert_eq!(node.execute("SELECT count(*) FROM parent").1.integer(), 2);
}

#[test]
fn whatever_fails_the_next_request_has_foreign_keys_again() {
    let mut node = with_family();
    let before = node.owner.tip();
    for text in [
        "PRAGMA foreign_keys=off; SELECT nope",
        "PRAGMA foreign_keys=off; DROP TABLE parent; SELEC",
        "PRAGMA foreign_keys=off; INSERT INTO parent VALUES(1, 'again')",
        "PRAGMA foreign_keys=off; SELECT ?",
        "PRAGMA foreign_keys=off 1",
        "PRAGMA foreign_keys=off; ROLLBACK",
        "PRAGMA foreign_keys=off; INSERT OR ROLLBACK INTO parent VALUES(1, 'again')",
    ] {
        node.refused(text);
        assert_eq!(node.owner.tip(), before, "{text}");
        assert_enforced(&mut node);
    }
    // Nothing but the switch.
    let (nothing, _) = node.execute("PRAGMA foreign_keys=off");
    assert!(nothing.is_none());
    assert_enforced(&mut node);
}

/// Panics at the first row.
struct Bomb;

impl ResultSink for Bomb {
    fn begin_statement(&mut self) {}
    fn columns(&mut self, _: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn begin_row(&mut self) {
        panic!("a row");
    }
    fn cell(&mut self, _: usize, _: ValueRef<'_>) {}
    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn end_statement(&mut self, _: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn recorded(&self) -> &[u8] {
        &[]
    }
}

#[test]
fn after_a_panic_the_next_request_has_foreign_keys_again_and_nothing_happened() {
    let mut node = with_family();
    let before = node.owner.tip();
    let text = [statement(
        "PRAGMA foreign_keys=off; DELETE FROM parent; SELECT * FROM child",
    )];
    let owner = &mut node.owner;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        owner.execute(&text, &stamp(), &soon(), &mut Bomb)
    }));
    ran.expect_err("the sink panics");
    assert_enforced(&mut node);
    assert_eq!(node.owner.tip(), before);
    assert_eq!(node.execute("SELECT count(*) FROM parent").1.integer(), 2);
}

#[test]
fn the_check_keeps_to_the_deadline() {
    let mut node = Node::new();
    node.commit(
        "CREATE TABLE p(a PRIMARY KEY);
         CREATE TABLE c(a REFERENCES p(a));
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
         INSERT INTO p SELECT i FROM n;
         INSERT INTO c SELECT a FROM p;",
    );
    let before = node.owner.tip();
    let control = tidemark_engine::Control {
        steps_max: Some(20_000),
        ..soon()
    };
    let text = [statement(
        "PRAGMA foreign_keys=off; INSERT INTO p VALUES('x')",
    )];
    let mut rows = crate::support::Rows::default();
    let stopped = node.owner.execute(&text, &stamp(), &control, &mut rows);
    assert!(
        matches!(stopped, Err(ExecuteError::Budget { .. })),
        "{stopped:?}"
    );
    assert_eq!(node.owner.tip(), before);
}
