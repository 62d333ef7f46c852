//! What values look like in a dump. Whole dumps are tested where a database is.

use super::literal::{name, write};
use crate::value::ValueRef;

fn check(value: ValueRef<'_>, want: &str) {
    let mut out = Vec::new();
    write(&mut out, value);
    assert_eq!(String::from_utf8_lossy(&out), want, "{value:?}");
}

#[test]
fn values_are_written_so_that_sqlite_reads_the_same() {
    check(ValueRef::Null, "NULL");
    check(ValueRef::Integer(-7), "-7");
    check(ValueRef::Integer(i64::MIN), "(-9223372036854775807-1)");
    check(ValueRef::Real(1.0), "1.0");
    check(ValueRef::Real(0.1), "0.1");
    check(ValueRef::Real(1e300), "1e300");
    check(ValueRef::Real(f64::NEG_INFINITY), "-9.0e+999");
    check(ValueRef::Blob(&[]), "X''");
    check(ValueRef::Blob(&[0, 171, 255]), "X'00ABFF'");
    check(ValueRef::Text(b"it's"), "'it''s'");
    check(ValueRef::Text(b"a\nb"), "replace('a\\nb','\\n',char(10))");
    check(
        ValueRef::Text(b"a\r\nb"),
        "replace(replace('a\\r\\nb','\\n',char(10)),'\\r',char(13))",
    );
    check(ValueRef::Text(b"\\n"), "'\\n'");
    check(ValueRef::Text(b"\\n\n"), "CAST(X'5C6E0A' AS TEXT)");
    check(ValueRef::Text(b"a\0b"), "CAST(X'610062' AS TEXT)");
    check(ValueRef::Text(b"\xff"), "CAST(X'FF' AS TEXT)");
    assert_eq!(name("a\"b"), "\"a\"\"b\"");
}
