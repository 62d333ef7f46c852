//! A text as SQLite wants it, with a zero at its end, without a second copy of all of it.
//!
//! The text of a request may be a file of 100 MB. SQLite compiles one statement at a time and refuses one that
//! is longer than its limit, so what it is shown need not reach further than that; and most are far shorter, so
//! it is shown more only of those that turn out to need it.

use std::ffi::{CStr, CString, NulError};

use crate::ffi::tail;

/// Bytes of a statement that are shown at first.
const FIRST_BYTES: usize = 1 << 20;
/// Bytes copied beyond the longest statement, so that not every statement needs another copy.
const STRIDE_BYTES: usize = 1 << 20;

/// Parts of a text, with a zero behind each.
#[derive(Debug)]
pub(crate) struct Window<'t> {
    text: &'t str,
    /// Bytes of a statement that are shown.
    reach: usize,
    /// SQLite looks at one byte more before it finds a statement too long.
    reach_max: usize,
    part: CString,
    /// Where in the text the part lies.
    start: usize,
    end: usize,
}

impl<'t> Window<'t> {
    /// Over `text`, whose statements are refused beyond `statement_bytes_max`.
    pub(crate) fn new(text: &'t str, statement_bytes_max: usize) -> Self {
        let reach_max = statement_bytes_max.saturating_add(1);
        Self {
            text,
            reach: reach_max.min(FIRST_BYTES),
            reach_max,
            part: CString::default(),
            start: 0,
            end: 0,
        }
    }

    /// Shows more of each statement. `false`: there is no more, or it would be too long.
    pub(crate) fn grow(&mut self) -> bool {
        let can = self.end < self.text.len() && self.reach < self.reach_max;
        if can {
            self.reach = self.reach.saturating_mul(8).min(self.reach_max);
        }
        can
    }

    /// The text from `start` on: all of a statement that begins there, unless it reaches to the end of what
    /// is shown; then let it [`Window::grow`]. An error: there is a zero in it.
    pub(crate) fn at(&mut self, start: usize) -> Result<&CStr, NulError> {
        let wanted = start.saturating_add(self.reach).min(self.text.len());
        if start < self.start || wanted > self.end {
            let end = wanted.saturating_add(STRIDE_BYTES).min(self.text.len());
            // Perhaps in the middle of a character, which is beyond what SQLite looks at.
            self.part = CString::new(&self.text.as_bytes()[start..end])?;
            (self.start, self.end) = (start, end);
        }
        Ok(tail(&self.part, start - self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_shows_a_whole_statement_or_the_end() {
        let text = "\u{e9}x".repeat(STRIDE_BYTES);
        let reach = 1001;
        let mut window = Window::new(&text, reach - 1);
        for start in (0..=text.len()).step_by(3 * 7919).chain([text.len()]) {
            let shown = window.at(start).expect("no zero").to_bytes();
            let rest = &text.as_bytes()[start..];
            assert!(shown.len() >= rest.len().min(reach), "at {start}");
            assert_eq!(shown, &rest[..shown.len()], "at {start}");
        }
    }

    #[test]
    fn it_grows_to_the_longest_statement_or_the_end() {
        let text = "x".repeat(3 * STRIDE_BYTES);
        let mut window = Window::new(&text, 10);
        assert_eq!(
            window.at(0).expect("no zero").to_bytes().len(),
            11 + STRIDE_BYTES
        );
        assert!(!window.grow(), "a longer one is refused");
        let mut window = Window::new(&text, text.len() * 2);
        assert_eq!(
            window.at(1).expect("no zero").to_bytes().len(),
            FIRST_BYTES + STRIDE_BYTES
        );
        assert!(window.grow());
        assert_eq!(
            window.at(1).expect("no zero").to_bytes().len(),
            text.len() - 1
        );
        assert!(!window.grow(), "there is no more");
    }

    #[test]
    fn a_zero_is_noticed_when_it_comes_into_reach() {
        let text = format!("{}\0", "x".repeat(3 * STRIDE_BYTES));
        let mut window = Window::new(&text, 10);
        assert!(window.at(0).is_ok());
        assert!(window.at(3 * STRIDE_BYTES - 5).is_err());
        let mut empty = Window::new("", 10);
        assert_eq!(empty.at(0).expect("no zero"), c"");
    }
}
