//! Where a statement's text ends and only blank space is left, as SQLite's tokenizer sees it.

/// The rest of `sql` from its first token on: past blank space, comments and semicolons.
pub(crate) fn skip_blank(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        let before = rest;
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c', ';']);
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            // An unfinished comment reaches to the end, says SQLite.
            rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else if let Some(text) = rest.strip_prefix('\u{feff}') {
            rest = text; // a byte order mark is blank space
        }
        if rest.len() == before.len() {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, rest: &str) {
        assert_eq!(skip_blank(sql), rest, "{sql:?}");
    }

    #[test]
    fn blank_space_comments_and_semicolons_are_skipped() {
        check("", "");
        check("  ;;\n\t", "");
        check("-- nothing", "");
        check("-- one\r\nSELECT 1", "SELECT 1");
        check("/* a ; b */ ; -- c\n /* d", "");
        check("/* a */SELECT '--'", "SELECT '--'");
        check("\u{feff}SELECT 1", "SELECT 1");
    }

    #[test]
    fn an_operator_that_looks_like_a_comment_is_kept() {
        check("-1", "-1");
        check("/ 2", "/ 2");
    }
}
