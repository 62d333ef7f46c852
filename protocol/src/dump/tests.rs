//! What values look like in a dump. Whole dumps are tested where a database is.

use super::literal::{name, write};
use super::plan::ending;
use crate::value::ValueRef;

fn check(value: ValueRef<'_>, want: &str) {
    let mut out = Vec::new();
    write(&mut out, value, |literal| literal.parse().ok());
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

#[test]
fn a_comment_at_the_end_of_a_text_does_not_swallow_the_semicolon() {
    for (sql, want) in [
        ("CREATE TABLE t(a)", ";"),
        ("CREATE TABLE t(a -- it's\n)", ";"),
        ("CREATE VIEW v AS SELECT 1 -- one", "\n;"),
        ("CREATE VIEW v AS SELECT 1 /* one", "*/;"),
        ("CREATE VIEW v AS SELECT 1 /* one */", ";"),
        ("CREATE VIEW v AS SELECT 1 /*/ one", "*/;"),
        (
            "CREATE VIEW v AS SELECT '--', 2 - -1, 'it''s /*', \"a--b\", `/*`, [--], 4 / 2",
            ";",
        ),
    ] {
        assert_eq!(ending(sql), want, "{sql}");
    }
}

#[test]
fn a_double_that_its_digits_miss_is_written_as_integers() {
    for (real, want) in [
        (0.1, "(3602879701896397.0/4503599627370496.0/8.0)"),
        (-3.0, "(-3.0)"),
        (2f64.powi(60), "(1.0*4503599627370496.0*256.0)"),
    ] {
        let mut out = Vec::new();
        write(&mut out, ValueRef::Real(real), |_| None);
        assert_eq!(String::from_utf8_lossy(&out), want);
    }
    // Whatever the double, calculating gives it back.
    let mut bits = 1_u64;
    for _ in 0..10_000 {
        bits = bits
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        for real in [f64::from_bits(bits), f64::from_bits(bits & !(0x7ff << 52))] {
            if !real.is_finite() || real == 0.0 {
                continue;
            }
            let mut out = Vec::new();
            write(&mut out, ValueRef::Real(real), |_| None);
            let text = String::from_utf8(out).expect("digits");
            assert_eq!(
                calculated(&text).to_bits(),
                real.to_bits(),
                "{real:e}: {text}"
            );
        }
    }
}

fn calculated(text: &str) -> f64 {
    let number = |digits: &str| -> f64 { digits.parse().expect("a number") };
    let inside = text.trim_matches(['(', ')']);
    let by = if inside.contains('/') { '/' } else { '*' };
    let mut numbers = inside.split(by).map(number);
    let first = numbers.next().expect("one at least");
    numbers.fold(first, |value, next| {
        if by == '/' {
            value / next
        } else {
            value * next
        }
    })
}
