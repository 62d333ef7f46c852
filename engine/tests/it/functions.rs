//! Which functions there are, and which of them clients may call.

use tidemark_engine::ReadError;
use tidemark_protocol::Value;

use crate::support::{Node, Rows, soon, statement, with};

#[test]
fn math_functions_are_there_on_readers_and_in_what_is_stored() {
    let mut node = Node::new();
    node.commit(
        "CREATE TABLE t(a REAL CHECK(sqrt(a) < 100), b AS (pow(a, 2)) STORED);
         CREATE INDEX i ON t(floor(a));
         INSERT INTO t(a) VALUES(2.5);",
    );
    let sql = "SELECT b, floor(a), ceil(3), trunc(-2.5), mod(7, 3), log(100), log(2, 8), ln(1), pi() > 3.14 \
               FROM t WHERE floor(a) = 2.0";
    let rows = node.read(sql).1.statements.remove(0).rows;
    let expected = vec![
        Value::Real(6.25),
        Value::Real(2.0),
        Value::Integer(3), // an integer needs no rounding
        Value::Real(-2.0),
        Value::Real(1.0),
        Value::Real(2.0),
        Value::Real(3.0),
        Value::Real(0.0),
        Value::Integer(1),
    ];
    assert_eq!(rows, [expected]);
    assert!(
        node.refused("INSERT INTO t(a) VALUES(1e6)")
            .starts_with("CHECK")
    );
}

#[test]
fn math_outside_of_a_domain_or_of_no_number_is_null() {
    let node = Node::new();
    for call in [
        "sqrt(-1)",
        "ln(0)",
        "log(-1)",
        "log(1, 5)",
        "log(0, 5)",
        "acos(2)",
        "mod(1, 0)",
        "sin('x')",
        "pow(2, NULL)",
        "ceil('x')",
        "floor(x'00')",
    ] {
        let rows = node
            .read(&format!("SELECT {call}"))
            .1
            .statements
            .remove(0)
            .rows;
        assert_eq!(rows, [[Value::Null]], "{call}");
    }
    // Text that looks like a number is one.
    let rows = node.read("SELECT sqrt('9')").1.statements.remove(0).rows;
    assert_eq!(rows, [[Value::Real(3.0)]]);
}

/// Its value is the address of a table of functions, and with two arguments it sets one.
#[test]
fn fts3_tokenizer_is_refused_in_every_form() {
    let mut node = Node::new();
    for sql in ["SELECT fts3_tokenizer(?)", "SELECT FTS3_Tokenizer(?)"] {
        let asked = with(sql, vec![Value::Text("simple".into())]);
        let result = node.try_read(&[asked]);
        let Err(ReadError::Sql(error)) = result else {
            panic!("{sql}: {result:?}")
        };
        let refused = "not authorized to use function: fts3_tokenizer at offset 7: SQLITE_ERROR";
        assert_eq!(error.message.to_lowercase(), refused.to_lowercase());
    }
    let message = node.refused("CREATE VIEW v AS SELECT 1; SELECT fts3_tokenizer('simple', x'00')");
    assert!(
        message.starts_with("not authorized to use function"),
        "{message}"
    );
}

/// SQLite looks whether its schema is the newest only for some messages.
#[test]
fn a_reader_that_has_not_seen_a_change_of_schema_does_not_refuse_what_it_allows() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t;");
    let reads_only = |node: &Node, sql: &str| {
        let mut rows = Rows::default();
        let result = node.database.read(&[statement(sql)], &soon(), &mut rows);
        assert!(
            matches!(result, Err(ReadError::NotReadOnly { .. })),
            "{sql}: {result:?}"
        );
    };
    reads_only(&node, "INSERT INTO t VALUES(1)");
    node.commit("CREATE TRIGGER g INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES(new.a); END");
    reads_only(&node, "INSERT INTO v VALUES(1)");
    node.commit("ALTER TABLE t ADD COLUMN b");
    reads_only(&node, "INSERT INTO t VALUES(1, 2)");
}

#[test]
fn a_column_that_is_gone_is_missed_at_its_place_also_where_it_was_known() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a, b)");
    let sql = "SELECT 1; SELECT b FROM t";
    node.read(sql);
    node.commit("ALTER TABLE t DROP COLUMN b");
    let result = node.try_read(&[statement(sql)]);
    let Err(ReadError::Sql(error)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(
        error.message,
        "no such column: b at offset 17: SQLITE_ERROR"
    );
}
