//! JSON tokens, appended to a buffer.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Up to here, both ways, a double holds every integer.
const DOUBLE_EXACT_MAX: u64 = 1 << 53;

/// A quoted, escaped string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every write and a str is valid JSON text");
}

/// A string from bytes that ought to be UTF-8; what is not becomes U+FFFD.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(valid) => string(out, valid),
        Err(_) => string(out, &String::from_utf8_lossy(bytes)),
    }
}

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// All digits of an integer.
pub(super) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// An integer as JavaScript prints it after it passed through a double.
pub(super) fn integer_as_double(out: &mut Vec<u8>, value: i64) {
    if value.unsigned_abs() <= DOUBLE_EXACT_MAX {
        integer(out, value);
    } else {
        double(out, value as f64);
    }
}

/// A double as JavaScript prints it: `1`, `0.5`, `1e+21`; `null` if it is not finite.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        // Adding zero turns -0.0 into 0.0.
        out.extend_from_slice(ryu_js::Buffer::new().format_finite(value + 0.0).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// A double that reads back as the same double and never as an integer.
pub(super) fn real_exact(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"null"); // SQLite stores none
    } else if value == f64::INFINITY {
        out.extend_from_slice(br#"{"real":"Infinity"}"#);
    } else if value == f64::NEG_INFINITY {
        out.extend_from_slice(br#"{"real":"-Infinity"}"#);
    } else if value == 0.0 && value.is_sign_negative() {
        out.extend_from_slice(b"-0.0"); // JavaScript would print 0
    } else {
        let start = out.len();
        out.extend_from_slice(ryu_js::Buffer::new().format_finite(value).as_bytes());
        if !out[start..].iter().any(|byte| matches!(byte, b'.' | b'e')) {
            out.extend_from_slice(b".0");
        }
    }
}

/// `[1,255]`.
pub(super) fn byte_array(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'[');
    for (index, &byte) in bytes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if byte >= 100 {
            out.push(b'0' + byte / 100);
        }
        if byte >= 10 {
            out.push(b'0' + byte / 10 % 10);
        }
        out.push(b'0' + byte % 10);
    }
    out.push(b']');
}

/// `{"base64":"AQ=="}`.
pub(super) fn base64_object(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(br#"{"base64":""#);
    let start = out.len();
    let room = bytes.len().div_ceil(3) * 4;
    out.resize(start + room, 0);
    let written = STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("four characters per three bytes");
    out.truncate(start + written);
    out.extend_from_slice(br#""}"#);
}

/// Milliseconds with four decimals at most, as D1 has them.
#[expect(clippy::cast_possible_truncation, reason = "below 10^15, and digits")]
pub(super) fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    /// Up to here a double has all digits, so that these are what JavaScript prints.
    const EXACT_MAX: u128 = 999_999_999_999_999;
    let tenths_of_us = duration.as_nanos() / 100;
    if tenths_of_us > EXACT_MAX {
        return double(out, tenths_of_us as f64 / 10_000.0);
    }
    let tenths_of_us = tenths_of_us as u64;
    integer(out, tenths_of_us / 10_000);
    let mut rest = tenths_of_us % 10_000;
    if rest > 0 {
        out.push(b'.');
    }
    let mut digit = 1000;
    while rest > 0 {
        out.push(b'0' + (rest / digit) as u8);
        rest %= digit;
        digit /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Written without a float, and yet as JavaScript would write that.
        #[test]
        fn milliseconds_are_written_as_javascript_writes_the_double(
            ns in prop_oneof![0..100_000_u64, 0..10_000_000_000_000_u64, any::<u64>()]
        ) {
            let (mut written, mut double_written) = (Vec::new(), Vec::new());
            milliseconds(&mut written, Duration::from_nanos(ns));
            double(&mut double_written, (ns / 100) as f64 / 10_000.0);
            prop_assert_eq!(
                String::from_utf8_lossy(&written),
                String::from_utf8_lossy(&double_written)
            );
        }
    }
}
