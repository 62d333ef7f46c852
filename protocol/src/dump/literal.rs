//! Values as SQL text that gives back the same value, byte for byte.

use std::io::Write as _;

use crate::value::ValueRef;

pub(super) fn write(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"NULL"),
        ValueRef::Integer(i64::MIN) => out.extend_from_slice(b"(-9223372036854775807-1)"),
        ValueRef::Integer(integer) => {
            out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
        }
        ValueRef::Real(real) => self::real(out, real),
        ValueRef::Text(bytes) => text(out, bytes),
        ValueRef::Blob(bytes) => hex(out, bytes),
    }
}

fn real(out: &mut Vec<u8>, real: f64) {
    if real.is_infinite() {
        out.extend_from_slice(if real > 0.0 {
            b"9.0e+999"
        } else {
            b"-9.0e+999"
        });
    } else {
        // The shortest digits that give back the same double, with a point or an exponent.
        write!(out, "{real:?}").expect("a Vec takes every write");
    }
}

/// Line ends go through `replace`, as in D1's exports: tools that handle the file change raw ones.
fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let has = |byte: u8| bytes.contains(&byte);
    let (feed, carriage) = (has(b'\n'), has(b'\r'));
    let plain = std::str::from_utf8(bytes).is_ok() && !has(0);
    // With a backslash of its own the text might contain what would be replaced.
    if !plain || ((feed || carriage) && has(b'\\')) {
        out.extend_from_slice(b"CAST(");
        hex(out, bytes);
        out.extend_from_slice(b" AS TEXT)");
        return;
    }
    let wraps = [
        (feed, &b"'\\n',char(10))"[..]),
        (carriage, b"'\\r',char(13))"),
    ];
    for _ in wraps.iter().filter(|(wrapped, _)| *wrapped) {
        out.extend_from_slice(b"replace(");
    }
    out.push(b'\'');
    for byte in bytes {
        match byte {
            b'\'' => out.extend_from_slice(b"''"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    for (_, wrap) in wraps.iter().filter(|(wrapped, _)| *wrapped) {
        out.push(b',');
        out.extend_from_slice(wrap);
    }
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(b"X'");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'\'');
}

/// A name in double quotes.
pub(super) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
