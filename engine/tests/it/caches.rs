//! What is told of caches: other tests of this process add to it, and nobody takes away.

use tidemark_engine::{CacheFigures, cache_figures};

use crate::support::{Node, Rows, soon, statement};

/// More than a connection keeps to itself.
const READS: u64 = 200;

#[test]
fn statements_that_are_read_again_and_pages_that_stay_are_hits() {
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let read = |sql: &str| {
        let read = node
            .database
            .read(&[statement(sql)], &soon(), &mut Rows::default());
        read.unwrap();
    };
    let before = cache_figures();
    for _ in 0..READS {
        read("SELECT a FROM t");
    }
    for number in 0..READS {
        read(&format!("SELECT {number} FROM t"));
    }
    drop(node);
    let CacheFigures {
        statement_hits,
        statement_misses,
        page_hits,
        page_misses,
    } = cache_figures();
    assert!(statement_hits - before.statement_hits >= READS - 1);
    assert!(statement_misses - before.statement_misses > READS);
    // Root of the schema or of the table, each time.
    assert!(page_hits - before.page_hits >= READS);
    assert!(page_misses > before.page_misses);
}
