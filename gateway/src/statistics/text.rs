//! The text of a query: its statements with literals replaced, so that one query with many values is one.

use sqlparser::dialect::SQLiteDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};
use tidemark_protocol::Statement;

/// Longest text that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// What is looked at of a longer one.
const LOOKED_AT_BYTES_MAX: usize = 16 << 10;

/// The statements of a request as one text. Neighbours that differ in literals alone are there once.
pub(super) fn without_literals(statements: &[Statement]) -> String {
    let mut all = String::new();
    let mut before = None;
    for statement in statements {
        let text = replaced(&statement.sql);
        if before.as_ref() == Some(&text) {
            continue;
        }
        if !all.is_empty() {
            all.push_str("; ");
        }
        all.push_str(&text);
        before = Some(text);
        if all.len() > TEXT_BYTES_MAX {
            break;
        }
    }
    all.truncate(all.floor_char_boundary(TEXT_BYTES_MAX));
    all
}

/// One blank where there were several, or a comment; `?` for each literal. What is no SQL, or goes beyond
/// what is looked at, is not kept: it may hold what nobody should read in statistics.
fn replaced(sql: &str) -> String {
    let looked_at = &sql[..sql.floor_char_boundary(LOOKED_AT_BYTES_MAX)];
    let mut tokens = Vec::new();
    // What was read before the first thing that is no SQL.
    let read =
        Tokenizer::new(&SQLiteDialect {}, looked_at).tokenize_with_location_into_buf(&mut tokens);
    let mut text = String::with_capacity(looked_at.len());
    // The last of a text that was cut may be a part of something else.
    let whole = read.is_ok() && looked_at.len() == sql.len();
    let count = tokens.len().saturating_sub(usize::from(!whole));
    for token in tokens.iter().take(count) {
        match &token.token {
            Token::Whitespace(space) => {
                let comment = matches!(
                    space,
                    Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)
                );
                if (!text.is_empty() || comment) && !text.ends_with(' ') {
                    text.push(' ');
                }
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::HexStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_) => text.push('?'),
            other => text.push_str(&other.to_string()),
        }
    }
    if !whole {
        text.push_str(" …");
    }
    let text = text.trim_matches([' ', ';']);
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, want: &str) {
        assert_eq!(replaced(sql), want, "{sql}");
    }

    #[test]
    fn literals_are_replaced_and_nothing_else() {
        check("SELECT * FROM t WHERE a = 1", "SELECT * FROM t WHERE a = ?");
        check(
            "INSERT INTO \"t 1\" VALUES (-1.5e3, 'it''s', x'00ff', NULL, ?1, :name);",
            "INSERT INTO \"t 1\" VALUES (-?, ?, ?, NULL, ?1, :name)",
        );
        check(
            "SELECT  a -- the answer 42\n, b /* 'x' */ FROM [t]\n",
            "SELECT a , b FROM [t]",
        );
        check(
            "SELECT json_extract(a, '$.b') FROM t LIMIT 5",
            "SELECT json_extract(a, ?) FROM t LIMIT ?",
        );
    }

    #[test]
    fn nothing_of_an_open_literal_is_kept() {
        let text = replaced("SELECT 1, 'secret");
        assert!(!text.contains("secret"), "{text}");
        let long = format!("SELECT '{}'", "secret".repeat(10_000));
        let text = replaced(&long);
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn a_batch_is_one_query() {
        let of = |sql: &str| Statement {
            sql: sql.to_owned(),
            params: Vec::new(),
        };
        let batch = [
            of("INSERT INTO t VALUES (1)"),
            of("INSERT INTO t VALUES (2)"),
            of("SELECT 3"),
        ];
        assert_eq!(
            without_literals(&batch),
            "INSERT INTO t VALUES (?); SELECT ?"
        );
    }
}
