//! Terminated text and its tails.

use std::ffi::CStr;

/// `text` from byte `start` on. Unlike `CStr::from_bytes_with_nul` it does not look for the zero again, which
/// would take quadratic time over a text of many statements.
pub(crate) fn tail(text: &CStr, start: usize) -> &CStr {
    let tail = &text.to_bytes_with_nul()[start..];
    assert!(!tail.is_empty(), "a tail holds the zero at least");
    // SAFETY: `tail` is a suffix of a text whose only zero is its last byte, and has that byte.
    unsafe { CStr::from_bytes_with_nul_unchecked(tail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_ends_where_the_text_does() {
        assert_eq!(tail(c"abc", 0), c"abc");
        assert_eq!(tail(c"abc", 1), c"bc");
        assert_eq!(tail(c"abc", 3), c"");
    }
}
