//! Files of SQL: as requests, but for what files say around their statements.

use tidemark_engine::{ExecuteError, Options};
use tidemark_protocol::render::{ScriptRenderer, ServedBy, ValueForm};
use tidemark_protocol::{Rules, Transaction};

use crate::support::{Node, Random, TRANSACTION, soon, stamp, statement};

fn sink() -> ScriptRenderer {
    let served_by = ServedBy {
        region: "ENAM".to_owned(),
        primary: true,
    };
    ScriptRenderer::new(ValueForm::D1, &served_by)
}

fn try_import(
    node: &mut Node,
    text: &str,
) -> Result<(Option<Transaction>, serde_json::Value), ExecuteError> {
    let mut sink = sink();
    let text = [statement(text)];
    let rules = Rules::Script;
    let made = node
        .owner
        .execute_under(rules, &text, &stamp(), &soon(), &mut sink)?;
    let results = serde_json::from_slice(&sink.finish().results).expect("JSON");
    Ok((made, results))
}

fn import(node: &mut Node, text: &str) -> serde_json::Value {
    let (made, results) = try_import(node, text).expect("a valid file");
    let made = made.expect("it writes").header().next;
    node.owner.acknowledge(made.seq).expect("flushed");
    results
}

#[test]
fn the_shells_dump_is_taken_as_it_is() {
    let mut node = Node::new();
    let results = import(
        &mut node,
        "PRAGMA foreign_keys=OFF;
         BEGIN TRANSACTION;
         CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, p REFERENCES p(id));
         INSERT INTO c VALUES(1,7);
         INSERT INTO c VALUES(5,8);
         CREATE TABLE p(id INTEGER PRIMARY KEY);
         INSERT INTO p VALUES(7);
         INSERT INTO p VALUES(8);
         DELETE FROM sqlite_sequence;
         INSERT INTO sqlite_sequence VALUES('c',40);
         SELECT * FROM c;
         COMMIT;
        ",
    );
    let element = &results[0];
    assert_eq!(results.as_array().map(Vec::len), Some(1), "{results}");
    assert_eq!(element["num_queries"], 12, "{results}");
    assert_eq!(element["results"], serde_json::json!([]));
    assert_eq!(element["success"], true);
    assert_eq!(element["meta"]["changed_db"], true);
    assert_eq!(element["meta"]["changes"], 6, "{results}");
    node.commit("INSERT INTO c(p) VALUES(7)");
    assert_eq!(node.read("SELECT max(id) FROM c").1.integer(), 41);
    node.refused("INSERT INTO c(p) VALUES(9)");
}

#[test]
fn every_spelling_of_begin_and_commit_does_nothing() {
    let mut node = Node::new();
    for (begin, commit) in [
        ("BEGIN", "COMMIT"),
        ("BEGIN TRANSACTION", "COMMIT TRANSACTION"),
        ("BEGIN DEFERRED", "END"),
        ("BEGIN IMMEDIATE TRANSACTION", "END TRANSACTION"),
        ("BEGIN EXCLUSIVE", "END"),
    ] {
        import(
            &mut node,
            &format!(
                "{begin}; CREATE TABLE t(a); {commit}; {begin}; INSERT INTO t VALUES(1); {commit}"
            ),
        );
        let failed = try_import(
            &mut node,
            &format!("{begin}; DELETE FROM t; {commit}; SELECT nope"),
        );
        assert!(matches!(failed, Err(ExecuteError::Sql(_))), "{failed:?}");
        assert_eq!(
            node.execute("SELECT count(*) FROM t").1.integer(),
            1,
            "{commit}"
        );
        node.commit("DROP TABLE t");
    }
}

#[test]
fn what_undoes_is_refused() {
    let mut node = Node::new();
    for sql in [
        "BEGIN; CREATE TABLE t(a); ROLLBACK",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE s",
        "CREATE TABLE t(a); ROLLBACK TO s",
    ] {
        match try_import(&mut node, sql) {
            Err(ExecuteError::Sql(error)) => {
                assert!(error.message.starts_with(TRANSACTION), "{error}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    // A request after a file is none.
    import(&mut node, "BEGIN; CREATE TABLE t(a); COMMIT");
    let message = node.refused("BEGIN; INSERT INTO t VALUES(1); COMMIT");
    assert!(message.starts_with(TRANSACTION), "{message}");
}

#[test]
fn a_file_of_many_megabytes_is_read_to_its_end() {
    let mut node = Node::new();
    let mut text = "CREATE TABLE t(id INTEGER PRIMARY KEY, b TEXT);\n".to_owned();
    let row = "\u{e9}".repeat(700);
    for id in 0..4000 {
        text.push_str(&format!("INSERT INTO t VALUES({id},'{row}');\n"));
        if id % 500 == 0 {
            text.push_str(&format!("/* {} */ -- ;\n", "x".repeat(300_000)));
        }
    }
    let results = import(&mut node, &text);
    assert_eq!(results[0]["num_queries"], 4001);
    let count = node
        .read("SELECT sum(length(b)) + max(id) FROM t")
        .1
        .integer();
    assert_eq!(count, 4000 * 700 + 3999);
    text.push_str("INSERT INTO t VALUES(0, '')");
    let Err(ExecuteError::Sql(error)) = try_import(&mut node, &text) else {
        panic!("the table exists");
    };
    assert!(
        error.message.starts_with("table t already exists"),
        "{error}"
    );

    // As long as an export may have to write it, though not in a request.
    let long = format!(
        "INSERT INTO t VALUES(9999, '{}'); SELECT 1",
        "x".repeat(20 << 20)
    );
    import(&mut node, &long);
    let length = "SELECT length(b) FROM t WHERE id = 9999";
    assert_eq!(node.read(length).1.integer(), 20 << 20);
    assert_eq!(node.refused(&long), "statement too long: SQLITE_TOOBIG");
    let cut = &long[..10 << 20];
    let Err(ExecuteError::Sql(error)) = try_import(&mut node, cut) else {
        panic!("the text ends within a literal");
    };
    assert!(
        error.message.starts_with("unrecognized token"),
        "{:.100}",
        error.message
    );
}

/// Each statement writes to pages all over an index, most of which the cache has let go of before: what counts
/// is how many there are in the end, not how often each was written.
#[test]
fn a_file_that_fills_an_index_in_no_order_is_no_larger_than_its_pages() {
    let mut node = Node::with(&Options {
        cache_kib: 64,
        ..Options::default()
    });
    import(&mut node, "CREATE TABLE t(a); CREATE INDEX i ON t(a)");
    let mut random = Random(5);
    let mut text = String::new();
    for _ in 0..9000 {
        text.push_str("INSERT INTO t VALUES");
        for row in 0..25 {
            let comma = if row > 0 { "," } else { "" };
            text.push_str(&format!("{comma}('{:064x}')", random.next()));
        }
        text.push_str(";\n");
    }
    import(&mut node, &text);
    let count = "SELECT count(*) FROM t INDEXED BY i WHERE a > ''";
    assert_eq!(node.read(count).1.integer(), 225_000);
    assert_eq!(node.read("PRAGMA integrity_check").1.text(), "ok");
}

#[test]
fn frame_of_a_script_is_refused_in_a_request_also_after_the_script() {
    let mut node = Node::new();
    for frame in ["COMMIT;", "BEGIN TRANSACTION;"] {
        drop(try_import(&mut node, frame).expect("a frame of nothing"));
        let text = [statement(frame)];
        let made = node.owner.execute(&text, &stamp(), &soon(), &mut sink());
        assert!(matches!(made, Err(ExecuteError::Sql(_))), "{made:?}");
    }
}
