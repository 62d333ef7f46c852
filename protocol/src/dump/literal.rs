//! Values as SQL text that gives back the same value, byte for byte.

use crate::value::ValueRef;

/// `reads` says which double SQLite makes of a literal: it is not always the nearest.
pub(super) fn write(
    out: &mut Vec<u8>,
    value: ValueRef<'_>,
    reads: impl FnMut(&str) -> Option<f64>,
) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"NULL"),
        ValueRef::Integer(i64::MIN) => out.extend_from_slice(b"(-9223372036854775807-1)"),
        ValueRef::Integer(integer) => {
            out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
        }
        ValueRef::Real(real) => self::real(out, real, reads),
        ValueRef::Text(bytes) => text(out, bytes),
        ValueRef::Blob(bytes) => hex(out, bytes),
    }
}

fn real(out: &mut Vec<u8>, real: f64, mut reads: impl FnMut(&str) -> Option<f64>) {
    if real.is_infinite() {
        out.extend_from_slice(if real > 0.0 {
            b"9.0e+999"
        } else {
            b"-9.0e+999"
        });
        return;
    }
    // The shortest digits whose nearest double it is, with a point or an exponent.
    let digits = format!("{real:?}");
    let back = reads(&digits).map(f64::to_bits);
    // SQLite stores no negative zero.
    if back == Some(real.to_bits()) || real == 0.0 {
        out.extend_from_slice(digits.as_bytes());
    } else {
        out.extend_from_slice(exact(real).as_bytes());
    }
}

/// An odd integer times or by powers of two: all of them, and all on the way, are doubles.
fn exact(real: f64) -> String {
    const FRACTION_BITS: u32 = 52;
    let bits = real.to_bits();
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let exponent = i32::try_from(bits >> FRACTION_BITS & 0x7ff).expect("eleven bits");
    let (integer, power) = match exponent {
        0 => (fraction, -1074),
        _ => (fraction | 1 << FRACTION_BITS, exponent - 1075),
    };
    let odd = integer >> integer.trailing_zeros().min(FRACTION_BITS);
    let power = power + i32::try_from(integer.trailing_zeros().min(FRACTION_BITS)).expect("small");
    let sign = if real.is_sign_negative() { "-" } else { "" };
    let (operator, mut left) = match power < 0 {
        true => ('/', power.unsigned_abs()),
        false => ('*', power.unsigned_abs()),
    };
    let mut text = format!("({sign}{odd}.0");
    while left > 0 {
        let step = left.min(FRACTION_BITS);
        text.push_str(&format!("{operator}{}.0", 1_u64 << step));
        left -= step;
    }
    text.push(')');
    text
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
