//! What a request may contain, what its failures say, what its statistics count: D1's surface.

use tidemark_engine::{ExecuteError, Limits, Options, ReadError};
use tidemark_protocol::Value;
use tidemark_protocol::render::{
    AnswerBounds, AnswerLimit, Renderer, RowShape, ServedBy, ValueForm,
};

use crate::support::{Node, Rows, TRANSACTION, soon, stamp, statement, with};

#[test]
fn messages_have_d1s_form() {
    let mut node = Node::new();
    node.commit(
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, c NOT NULL, d CHECK(d > 0));
         CREATE TABLE s(a INTEGER) STRICT;
         CREATE TABLE p(id INTEGER PRIMARY KEY, t REFERENCES t(a));
         INSERT INTO t VALUES(1, 1, 1, 1);",
    );
    for (sql, message) in [
        ("SELECT * FROM nope", "no such table: nope: SQLITE_ERROR"),
        (
            "SELECT nope",
            "no such column: nope at offset 7: SQLITE_ERROR",
        ),
        (
            "SELEC",
            "near \"SELEC\": syntax error at offset 0: SQLITE_ERROR",
        ),
        (
            "SELECT 1; SELEC",
            "near \"SELEC\": syntax error at offset 10: SQLITE_ERROR",
        ),
        (
            "INSERT INTO t VALUES(2, 1, 1, 1)",
            "UNIQUE constraint failed: t.b: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)",
        ),
        (
            "INSERT INTO t VALUES(1, 2, 1, 1)",
            "UNIQUE constraint failed: t.a: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_PRIMARYKEY)",
        ),
        (
            "INSERT INTO t VALUES(2, 2, NULL, 1)",
            "NOT NULL constraint failed: t.c: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_NOTNULL)",
        ),
        (
            "INSERT INTO t VALUES(2, 2, 1, 0)",
            "CHECK constraint failed: d > 0: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_CHECK)",
        ),
        (
            "INSERT INTO p VALUES(1, 99)",
            "FOREIGN KEY constraint failed: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_FOREIGNKEY)",
        ),
        (
            "INSERT INTO s VALUES('x')",
            "cannot store TEXT value in INTEGER column s.a: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_DATATYPE)",
        ),
        (
            "SELECT regexp(1)",
            "no such function: regexp at offset 7: SQLITE_ERROR",
        ),
        ("SELECT json('{')", "malformed JSON: SQLITE_ERROR"),
        (
            "SELECT abs(-9223372036854775807 - 1)",
            "integer overflow: SQLITE_ERROR",
        ),
        (
            "CREATE TABLE sqlite_x(a)",
            "object name reserved for internal use: sqlite_x: SQLITE_ERROR",
        ),
        (
            "DELETE FROM sqlite_master",
            "table sqlite_master may not be modified: SQLITE_ERROR",
        ),
        (
            "VACUUM",
            "cannot VACUUM from within a transaction: SQLITE_ERROR",
        ),
        (
            "VACUUM INTO '/tmp/x'",
            "cannot VACUUM from within a transaction: SQLITE_ERROR",
        ),
        ("", "No SQL statements detected."),
        (" ; -- nothing\n/* at all */", "No SQL statements detected."),
    ] {
        assert_eq!(node.refused(sql), message, "{sql}");
    }
    assert_eq!(node.read("SELECT count(*) FROM t").1.integer(), 1);
}

/// Not the disk is full, but the numbers that rows may have.
#[test]
fn a_table_without_a_row_id_left_fails_the_statement_alone() {
    let mut node = Node::new();
    node.commit(
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b);
         INSERT INTO t VALUES(9223372036854775807, 1);",
    );
    let insert = "INSERT INTO t(b) VALUES(2)";
    let message = "database or disk is full: SQLITE_FULL";
    assert_eq!(node.refused(insert), message);
    node.commit("INSERT INTO t VALUES(2, 2)");
    assert_eq!(node.read("SELECT count(*) FROM t").1.integer(), 2);
}

#[test]
fn what_could_escape_the_transaction_or_the_file_is_refused() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a)");
    for sql in [
        "ATTACH '/tmp/other.db' AS other",
        "DETACH main",
        "CREATE TEMP TABLE x(a)",
        "CREATE TEMP VIEW x AS SELECT 1",
        "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TABLE temp.t(a)",
        "CREATE VIEW temp.x AS SELECT 1",
        "CREATE TRIGGER temp.x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE temp.x USING fts5(a)",
        "PRAGMA foreign_keys=maybe",
        "CREATE VIRTUAL TABLE x USING fts3(a)",
        "CREATE VIRTUAL TABLE x USING dbstat(main)",
        "PRAGMA database_list", // with the file's path
        "PRAGMA journal_mode",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_autocheckpoint=1",
        "PRAGMA synchronous=OFF",
        "PRAGMA writable_schema=1",
        "PRAGMA page_size=512",
        "PRAGMA cache_size=1000000",
        "PRAGMA cache_spill=1",
        "PRAGMA mmap_size=1000000000",
        "PRAGMA auto_vacuum=1",
        "PRAGMA encoding='UTF-16'",
        "PRAGMA user_version=5",
        "PRAGMA schema_version=5",
        "PRAGMA main.journal_mode=DELETE",
        "PRAGMA query_only=0",
        "PRAGMA temp_store=2",
        "PRAGMA incremental_vacuum",
        "PRAGMA trusted_schema=0",
        "PRAGMA soft_heap_limit=1",
        "PRAGMA wal_autocheckpoint",
    ] {
        let message = node.refused(sql);
        assert_eq!(message, "not authorized: SQLITE_AUTH", "{sql}");
    }
    let message = node.refused("SELECT load_extension('x')");
    assert_eq!(
        message,
        "not authorized to use function: load_extension at offset 7: SQLITE_ERROR"
    );
    for sql in [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE s",
        "ROLLBACK TO s",
    ] {
        let message = node.refused(sql);
        assert!(message.starts_with(TRANSACTION), "{sql}: {message}");
        // D1 adds neither code nor place to this one.
        assert!(
            message.ends_with("automatic atomic write coalescing."),
            "{sql}: {message}"
        );
        // Readers say the same.
        match node.try_read(&[statement(sql)]) {
            Err(ReadError::Sql(error)) => assert_eq!(error.message, message),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let journal_mode = std::fs::read(node.path.join("main.db")).unwrap()[18];
    assert_eq!(journal_mode, 2);
}

#[test]
fn what_d1_permits_works() {
    let mut node = Node::new();
    node.commit(
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
         CREATE INDEX i ON t(b);
         CREATE VIEW v AS SELECT a FROM t;
         CREATE VIRTUAL TABLE f USING fts5(body);
         CREATE VIRTUAL TABLE fv USING fts5vocab('f', 'row');
         CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);
         CREATE TRIGGER g AFTER INSERT ON t WHEN CASE WHEN new.a > 1 THEN 1 ELSE 0 end BEGIN\r
           INSERT INTO f VALUES(CASE new.a WHEN 1 THEN 'one' ELSE 'many' END);\r
         END;
         INSERT INTO t VALUES(1, 'x'), (2, 'y');
         INSERT INTO r VALUES(1, 0.0, 1.0);
         ALTER TABLE t ADD COLUMN c;
         ALTER TABLE t RENAME COLUMN c TO d;
         ALTER TABLE t RENAME TO t2;
         REINDEX;
         ANALYZE;",
    );
    assert_eq!(
        node.read("SELECT body FROM f WHERE f MATCH 'many'")
            .1
            .text(),
        "many"
    );
    assert_eq!(
        node.read("SELECT count(*) FROM r WHERE x0 < 0.5")
            .1
            .integer(),
        1
    );
    for sql in [
        "PRAGMA table_list",
        "PRAGMA table_info(t2)",
        "PRAGMA table_xinfo('t2')",
        "SELECT name FROM pragma_table_info('t2')",
        "PRAGMA index_list(t2)",
        "PRAGMA index_info(i)",
        "PRAGMA foreign_key_check",
        "PRAGMA foreign_key_list(t2)",
        "PRAGMA quick_check",
        "PRAGMA integrity_check(5)",
        "PRAGMA data_version",
        "PRAGMA page_size",
        "PRAGMA page_count",
        "PRAGMA user_version",
        "PRAGMA encoding",
        "PRAGMA case_sensitive_like=1",
        "PRAGMA defer_foreign_keys=on",
        "PRAGMA foreign_keys=off",
        "EXPLAIN INSERT INTO t2(a) VALUES(7)",
        "EXPLAIN QUERY PLAN SELECT * FROM t2",
    ] {
        node.read(sql);
    }
    node.execute("PRAGMA optimize");
    assert_eq!(node.read("PRAGMA integrity_check").1.text(), "ok");
}

#[test]
fn parameters_go_with_the_last_statement_and_match_in_number() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a, b, c)");
    let wrong = "Wrong number of parameter bindings for SQL query.";
    let refused = |node: &mut Node, sql: &str, params: Vec<Value>| match node
        .try_execute(&[with(sql, params)])
    {
        Err(ExecuteError::Sql(error)) => error.message,
        other => panic!("{sql}: {other:?}"),
    };
    let one = || vec![Value::Integer(1)];
    assert_eq!(refused(&mut node, "SELECT ?", vec![]), wrong);
    assert_eq!(refused(&mut node, "SELECT 1", one()), wrong);
    assert_eq!(refused(&mut node, "SELECT ?2", one()), wrong);
    assert_eq!(
        refused(&mut node, "SELECT ?; SELECT ?", one()),
        "When executing multiple SQL statements in a single call, only the last statement can have \
         parameters."
    );
    let values = vec![
        Value::Text("a\0b".into()),
        Value::Blob(vec![]),
        Value::Real(1.5),
    ];
    node.try_execute(&[with(
        "DELETE FROM t; INSERT INTO t VALUES(:x, @y, $z) -- end",
        values.clone(),
    )])
    .unwrap();
    let (_, rows) = node.execute("SELECT *, typeof(b) FROM t");
    assert_eq!(rows.statements[0].rows[0][..3], values);
    assert_eq!(rows.statements[0].rows[0][3], Value::Text("blob".into()));
    // The same text again, from the cache, with other values.
    for integer in [1, 2] {
        let (_, rows) = node
            .try_execute(&[with("SELECT ?1 + 1", vec![Value::Integer(integer)])])
            .unwrap();
        assert_eq!(rows.integer(), integer + 1);
    }
}

#[test]
fn switches_do_not_outlive_their_request() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a CHECK(a > 0))");
    assert_eq!(
        node.execute("PRAGMA case_sensitive_like=1; SELECT 'a' LIKE 'A'")
            .1
            .integer(),
        0
    );
    assert_eq!(node.execute("SELECT 'a' LIKE 'A'").1.integer(), 1);
    assert_eq!(
        node.read("PRAGMA case_sensitive_like=1; SELECT 'a' LIKE 'A'")
            .1
            .integer(),
        0
    );
    assert_eq!(node.read("SELECT 'a' LIKE 'A'").1.integer(), 1);
    node.execute("PRAGMA ignore_check_constraints=1; INSERT INTO t VALUES(0)");
    node.refused("INSERT INTO t VALUES(0)");
    // Also when the request fails.
    node.refused("PRAGMA ignore_check_constraints=1; SELECT nope");
    node.refused("INSERT INTO t VALUES(0)");
    node.read("PRAGMA foreign_keys=0");
    assert_eq!(node.read("PRAGMA foreign_keys").1.integer(), 1);
}

#[test]
fn deferred_foreign_keys_are_checked_at_the_end() {
    let mut node = Node::new();
    node.commit("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id))");
    node.commit("PRAGMA defer_foreign_keys=on; INSERT INTO c VALUES(1); INSERT INTO p VALUES(1)");
    let message = node.refused("PRAGMA defer_foreign_keys=on; INSERT INTO c VALUES(2)");
    assert!(
        message.starts_with("FOREIGN KEY constraint failed: SQLITE_CONSTRAINT"),
        "{message}"
    );
    // Switched off, they are checked at the end, too.
    let message = node.refused("PRAGMA foreign_keys=off; INSERT INTO c VALUES(2)");
    assert!(
        message.starts_with("FOREIGN KEY constraint failed"),
        "{message}"
    );
    assert_eq!(node.execute("SELECT count(*) FROM c").1.integer(), 1);
}

#[test]
fn statistics_are_those_of_d1() {
    #[track_caller]
    fn check(node: &mut Node, sql: &str, read: u64, written: u64, changes: i64, changed_db: bool) {
        let (_, rows) = node.execute(sql);
        let statistics = rows.statements.last().unwrap().statistics;
        let got = (
            statistics.rows_read,
            statistics.rows_written,
            statistics.changes,
            statistics.changed_db,
        );
        assert_eq!(got, (read, written, changes, changed_db), "{sql}");
        assert_eq!(statistics.size_after % 4096, 0);
        assert!(statistics.size_after > 0);
    }
    let node = &mut Node::new();
    check(
        node,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
        1,
        2,
        0,
        true,
    );
    check(
        node,
        "CREATE TABLE u(id INTEGER PRIMARY KEY, a UNIQUE)",
        1,
        3,
        0,
        true,
    );
    check(node, "INSERT INTO t(a) VALUES(1), (2)", 0, 2, 2, true);
    assert_eq!(
        node.execute("SELECT 1").1.statements[0]
            .statistics
            .last_row_id,
        2
    );
    check(node, "INSERT INTO t(a) VALUES(3)", 0, 1, 1, true);
    check(node, "SELECT * FROM t", 3, 0, 0, false);
    check(node, "SELECT * FROM t WHERE id = 2", 1, 0, 0, false);
    check(node, "SELECT * FROM t WHERE a IN (1, 2, 3)", 3, 0, 0, false);
    // A known difference: libSQL counts the pages that count(*) visits, D1 the rows.
    check(node, "SELECT count(*) FROM t", 1, 0, 0, false);
    check(node, "UPDATE t SET a = 9 WHERE id = 1", 1, 1, 1, true);
    check(node, "UPDATE t SET a = 9 WHERE id = 99", 1, 0, 0, false);
    check(node, "DELETE FROM t WHERE id = 1", 1, 1, 1, true);
    check(node, "DELETE FROM t", 0, 2, 2, true);
    check(node, "CREATE TABLE IF NOT EXISTS t(a)", 0, 0, 0, false);
    check(node, "DROP TABLE IF EXISTS nope", 0, 0, 0, false);
    // D1's own suite asserts that dropping a table writes no rows; it still changes the database.
    let (_, rows) = node.execute("DROP TABLE t");
    let statistics = rows.statements[0].statistics;
    assert_eq!((statistics.rows_written, statistics.changed_db), (0, true));
    let (_, rows) = node.execute("CREATE VIEW v AS SELECT 1");
    assert!(rows.statements[0].statistics.changed_db);
}

#[test]
fn readers_report_the_size_of_their_snapshot() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(100000))");
    let (_, rows) = node.read("SELECT length(a) FROM t");
    assert_eq!(
        rows.statements[0].statistics.size_after,
        node.database.file_size()
    );
    assert_eq!(node.database.file_size(), node.bytes().len() as u64);
    let node = node.reopen();
    let (_, rows) = node.read("SELECT length(a) FROM t");
    assert_eq!(
        rows.statements[0].statistics.size_after,
        node.database.file_size()
    );
}

/// Of the last statement it is known only by the commit; a batch and a lone one must say the same.
#[test]
fn writes_report_the_size_that_they_lead_to() {
    let sizes = |texts: &[&str]| -> Vec<(u64, bool)> {
        let mut node = Node::new();
        node.commit("CREATE TABLE t(a)");
        let mut all = Vec::new();
        for text in texts {
            let (transaction, rows) = node.execute(text);
            let statistics = rows.statements.iter().map(|of| of.statistics);
            all.extend(statistics.map(|of| (of.size_after, of.changed_db)));
            if let Some(transaction) = transaction {
                let pages = u64::from(transaction.header().pages_after);
                assert_eq!(all.last().map(|last| last.0), Some(pages * 4096), "{text}");
            }
        }
        all
    };
    let statements = [
        "INSERT INTO t VALUES(zeroblob(100000))",
        "UPDATE t SET a = zeroblob(300000)",
        "UPDATE t SET a = 1 WHERE rowid = 99",
        "DROP TABLE t",
    ];
    let one_by_one = sizes(&statements);
    assert_eq!(one_by_one, sizes(&[&statements.join(";")]));
    let (sizes, changed): (Vec<u64>, Vec<bool>) = one_by_one.into_iter().unzip();
    assert!(sizes[0] > 100_000 && sizes[1] > sizes[0] + 190_000 && sizes[2] == sizes[1]);
    assert_eq!(changed, [true, true, false, true]);
}

#[test]
fn a_write_on_a_reader_is_sent_to_the_owner() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a UNIQUE)");
    for sql in [
        "INSERT INTO t VALUES(1)",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "SELECT 1; DELETE FROM t",
        "CREATE TABLE u(a)",
        "PRAGMA optimize; DROP TABLE t",
        "VACUUM",
        "REINDEX",
        "ANALYZE",
    ] {
        is_not_read_only(&node, sql);
    }
    assert_eq!(node.read("SELECT count(*) FROM t").1.integer(), 0);
}

fn is_not_read_only(node: &Node, sql: &str) {
    let mut rows = Rows::default();
    let result = node.database.read(&[statement(sql)], &soon(), &mut rows);
    assert!(
        matches!(result, Err(ReadError::NotReadOnly { .. })),
        "{sql}: {result:?}"
    );
    assert!(rows.statements.is_empty() && rows.resets > 0, "{sql}");
}

/// A copy that is behind would otherwise say that it is done, and nobody would do it.
#[test]
fn ddl_that_finds_nothing_to_do_on_a_reader_is_sent_to_the_owner() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); CREATE INDEX i ON t(a); CREATE VIEW v AS SELECT 1");
    node.commit("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END");
    for sql in [
        "DROP TRIGGER IF EXISTS nope",
        "SELECT 1; DROP TRIGGER IF EXISTS nope",
        "CREATE TRIGGER IF NOT EXISTS g AFTER INSERT ON t BEGIN SELECT 2; END",
        "DROP TABLE IF EXISTS nope",
        "CREATE TABLE IF NOT EXISTS t(a)",
        "DROP INDEX IF EXISTS nope",
        "CREATE INDEX IF NOT EXISTS i ON t(a)",
        "DROP VIEW IF EXISTS nope",
        "CREATE VIEW IF NOT EXISTS v AS SELECT 2",
        "CREATE VIRTUAL TABLE IF NOT EXISTS t USING fts5(a)",
    ] {
        for _ in ["compiled", "from the cache"] {
            is_not_read_only(&node, sql);
        }
        let (done, _) = node.execute(sql);
        assert!(done.is_none(), "{sql}: nothing to commit");
    }
    for sql in [
        "EXPLAIN DROP TRIGGER IF EXISTS nope",
        "EXPLAIN QUERY PLAN DROP TRIGGER IF EXISTS nope",
        "PRAGMA foreign_keys = 0",
        "SELECT a FROM t",
    ] {
        node.read(sql);
    }
}

#[test]
fn statements_survive_changes_of_the_schema() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let columns = |node: &Node| node.read("SELECT * FROM t").1.statements[0].columns.clone();
    assert_eq!(columns(&node), ["a"]);
    node.commit("ALTER TABLE t ADD COLUMN b");
    assert_eq!(columns(&node), ["a", "b"]);
    node.commit("DROP TABLE t");
    node.try_read(&[statement("SELECT * FROM t")]).unwrap_err();
    node.commit("CREATE TABLE t(c)");
    assert_eq!(columns(&node), ["c"]);
}

#[test]
fn an_answer_over_its_bound_stops_the_request() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a)");
    let series = "INSERT INTO t VALUES(1) RETURNING a; WITH RECURSIVE n(i) AS \
                  (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let mut rows = Rows {
        rows_max: Some(10),
        ..Rows::default()
    };
    let result = node
        .owner
        .execute(&[statement(series)], &stamp(), &soon(), &mut rows);
    assert!(matches!(
        result,
        Err(ExecuteError::Answer(AnswerLimit::Rows { max: 10 }))
    ));
    assert!(rows.statements.is_empty());
    assert_eq!(node.execute("SELECT count(*) FROM t").1.integer(), 0);
}

#[test]
fn names_and_statements_without_rows_stop_the_request_too() {
    let node = Node::new();
    let bounds = AnswerBounds {
        bytes_max: 10_000,
        ..AnswerBounds::default()
    };
    let served_by = ServedBy {
        region: "WEUR".to_owned(),
        primary: true,
    };
    let long = format!("SELECT 1 AS \"{}\" WHERE 0", "n".repeat(20_000));
    for sql in [long, "SELECT 1 WHERE 0;".repeat(1000)] {
        let mut sink = Renderer::new(RowShape::Arrays, ValueForm::D1, bounds, &served_by);
        let result = node.database.read(&[statement(&sql)], &soon(), &mut sink);
        assert!(
            matches!(
                result,
                Err(ReadError::Answer(AnswerLimit::Bytes { max: 10_000 }))
            ),
            "{result:?}"
        );
    }
}

#[test]
fn a_text_without_a_statement_is_skipped_among_others_unless_it_has_values() {
    let node = Node::new();
    for blank in ["-- x", " ; ", "/* open", "\u{feff}"] {
        let texts = [statement(blank), statement("SELECT 1"), statement(blank)];
        node.try_read(&texts).expect("one statement is enough");
        let result = node.try_read(&[statement("SELECT 1"), with(blank, vec![Value::Integer(1)])]);
        let Err(ReadError::Sql(error)) = result else {
            panic!("{blank:?}: {result:?}")
        };
        let wrong = "Wrong number of parameter bindings for SQL query.";
        assert_eq!((error.message.as_str(), error.statement), (wrong, 1));
        let nothing = node.try_read(&[statement(blank), statement(blank)]);
        let Err(ReadError::Sql(error)) = nothing else {
            panic!("{blank:?}: {nothing:?}")
        };
        assert_eq!(error.message, "No SQL statements detected.");
    }
}

#[test]
fn each_statement_is_bounded_and_not_the_text_of_many() {
    let node = Node::new();
    let long = |bytes: usize| format!("SELECT '{}'", "x".repeat(bytes));
    let two = format!("{};{}", long(900_000), long(900_000));
    assert_eq!(node.read(&two).1.statements.len(), 2);
    let result = node.try_read(&[statement(&format!("SELECT 1; {}", long(1_000_000)))]);
    let Err(ReadError::Sql(error)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(error.message, "statement too long: SQLITE_TOOBIG");
    assert_eq!(error.statement, 1);
    // In a time that grows with the text, not with its square: the deadline holds here too.
    let many = 400_000;
    let (_, rows) = node.read(&"SELECT 1 WHERE 0;\n".repeat(many));
    assert_eq!(rows.statements.len(), many);
}

#[test]
fn the_strict_profile_has_d1s_limits() {
    let options = Options {
        limits: Limits::strict_d1(),
        ..Options::default()
    };
    let mut node = Node::with(&options);
    let columns: Vec<String> = (0..101).map(|i| format!("c{i}")).collect();
    let columns = columns.join(", ");
    for (sql, message) in [
        (
            format!("CREATE TABLE t({columns})"),
            "too many columns on t: SQLITE_ERROR",
        ),
        (
            "SELECT ?101".to_owned(),
            "variable number must be between ?1 and ?100 at offset 7: SQLITE_ERROR",
        ),
        (
            format!("SELECT '{}'", "x".repeat(100_000)),
            "statement too long: SQLITE_TOOBIG",
        ),
        (
            format!("SELECT '' LIKE '{}'", "x".repeat(51)),
            "LIKE or GLOB pattern too complex: SQLITE_ERROR",
        ),
        (
            format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5)),
            "too many terms in compound SELECT: SQLITE_ERROR",
        ),
        (
            format!("SELECT 1{}", "+1".repeat(100)),
            "Expression tree is too large (maximum depth 100): SQLITE_ERROR",
        ),
        (
            "SELECT zeroblob(5000000)".to_owned(),
            "string or blob too big: SQLITE_TOOBIG",
        ),
    ] {
        assert_eq!(node.refused(&sql), message);
    }
    // The bound on a text's length is one per statement.
    let long = format!("SELECT '{}';", "x".repeat(60_000));
    node.execute(&long.repeat(3));
}
