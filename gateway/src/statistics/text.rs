//! The text of a query: its statements with literals replaced, so that one query with many values is one.
//!
//! What SQLite itself decides only when it knows the columns is decided by place here: a word in double quotes is
//! a name, or a string where no column has that name. It is taken for a string where values stand (after a
//! comparison, within `VALUES` and `IN` lists) and where it does not look like a name; a qualifier on either side
//! and the words that tables follow make it a name.

use sqlparser::dialect::SQLiteDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use tidemark_protocol::Statement;

/// Longest text that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// What is looked at of all texts of a request.
pub(super) const LOOKED_AT_BYTES_MAX: usize = 16 << 10;
/// In place of what is not shown.
const MORE: &str = " …";

/// The statements of a request as one text. Neighbours that differ in literals alone are there once.
pub(crate) fn without_literals(statements: &[Statement]) -> String {
    let mut all = String::new();
    let mut before = None;
    let mut budget = LOOKED_AT_BYTES_MAX;
    for statement in statements {
        let beyond = statement.sql.len() > budget || all.len() > TEXT_BYTES_MAX;
        if !all.is_empty() && beyond {
            all.push_str(MORE);
            break;
        }
        let text = replaced(&statement.sql, &mut budget);
        if before.as_ref() == Some(&text) {
            continue;
        }
        if !all.is_empty() {
            all.push_str("; ");
        }
        all.push_str(&text);
        before = Some(text);
    }
    all.truncate(all.floor_char_boundary(TEXT_BYTES_MAX));
    all
}

/// One blank where there were several, or a comment; `?` for each literal. What is no SQL, or goes beyond
/// the budget, is not kept: it may hold what nobody should read in statistics.
fn replaced(sql: &str, budget: &mut usize) -> String {
    let looked_at = &sql[..sql.floor_char_boundary(*budget)];
    *budget -= looked_at.len().min(*budget);
    if looked_at.len() < sql.len() {
        *budget = 0;
    }
    let mut tokens = Vec::new();
    // On failure, what was read before the first thing that is no SQL.
    let read =
        Tokenizer::new(&SQLiteDialect {}, looked_at).tokenize_with_location_into_buf(&mut tokens);
    // The last of a text that was cut may be a part of something else.
    let whole = read.is_ok() && looked_at.len() == sql.len();
    let count = tokens.len().saturating_sub(usize::from(!whole));
    let mut text = write(&tokens[..count], looked_at.len());
    if !whole {
        text.push_str(MORE);
    }
    let text = text.trim_matches([' ', ';']);
    text.to_owned()
}

fn write(tokens: &[TokenWithSpan], bytes: usize) -> String {
    let mut text = String::with_capacity(bytes);
    let significant: Vec<&Token> = tokens
        .iter()
        .map(|token| &token.token)
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .collect();
    let mut place = 0_usize;
    let mut values = Values::default();
    for token in tokens {
        if let Token::Whitespace(_) = token.token {
            if !text.is_empty() && !text.ends_with(' ') {
                text.push(' ');
            }
            continue;
        }
        let before = place.checked_sub(1).map(|before| significant[before]);
        let after = significant.get(place + 1).copied();
        place += 1;
        values.pass(&token.token, before);
        let string = matches!(&token.token, Token::Word(word) if word.quote_style == Some('"')
            && !is_name(&word.value, before, after, values.inside()));
        if string || is_literal(&token.token) {
            text.push('?');
        } else {
            text.push_str(&token.token.to_string());
        }
    }
    text
}

fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::HexStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::DoubleQuotedString(_)
    )
}

/// Lists of values that are open: how deep in parentheses each began.
#[derive(Default)]
struct Values {
    depth: usize,
    lists: Vec<usize>,
    /// `VALUES` was read, and nothing that ends it.
    rows: bool,
}

impl Values {
    fn pass(&mut self, token: &Token, before: Option<&Token>) {
        const ROWS_END: [Keyword; 3] = [Keyword::ON, Keyword::RETURNING, Keyword::SELECT];
        if *token == Token::LParen {
            self.depth += 1;
            let is_in = before.is_some_and(|before| is_keyword(before, &[Keyword::IN]));
            if is_in || self.rows {
                self.lists.push(self.depth);
            }
        } else if *token == Token::RParen {
            self.lists.pop_if(|began| *began == self.depth);
            self.depth = self.depth.saturating_sub(1);
        } else if *token == Token::SemiColon {
            *self = Self::default();
        } else if is_keyword(token, &[Keyword::VALUES]) {
            self.rows = true;
        } else if is_keyword(token, &ROWS_END) {
            self.rows = false;
        }
    }

    fn inside(&self) -> bool {
        !self.lists.is_empty()
    }
}

fn is_name(word: &str, before: Option<&Token>, after: Option<&Token>, in_values: bool) -> bool {
    const TABLES_FOLLOW: [Keyword; 6] = [
        Keyword::FROM,
        Keyword::INTO,
        Keyword::JOIN,
        Keyword::TABLE,
        Keyword::UPDATE,
        Keyword::EXISTS,
    ];
    let qualified = before == Some(&Token::Period) || after == Some(&Token::Period);
    if qualified || before.is_some_and(|before| is_keyword(before, &TABLES_FOLLOW)) {
        return true;
    }
    let compared = before.is_some_and(|before| {
        matches!(
            before,
            Token::Eq
                | Token::DoubleEq
                | Token::Neq
                | Token::Lt
                | Token::Gt
                | Token::LtEq
                | Token::GtEq
        ) || is_keyword(
            before,
            &[
                Keyword::LIKE,
                Keyword::GLOB,
                Keyword::MATCH,
                Keyword::IS,
                Keyword::BETWEEN,
            ],
        )
    });
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !compared && !in_values && word.len() <= 64 && word.bytes().all(plain)
}

fn is_keyword(token: &Token, keywords: &[Keyword]) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && keywords.contains(&word.keyword))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, want: &str) {
        assert_eq!(
            replaced(sql, &mut LOOKED_AT_BYTES_MAX.clone()),
            want,
            "{sql}"
        );
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
    fn words_in_double_quotes_are_strings_where_values_stand() {
        check(
            "select \"id\", \"t\".\"e mail\" from \"t\" where \"name\" = ? order by \"id\"",
            "select \"id\", \"t\".\"e mail\" from \"t\" where \"name\" = ? order by \"id\"",
        );
        check(
            "INSERT INTO t (\"a\", \"b\") VALUES (\"x\", \"y\"), (\"z\", 1)",
            "INSERT INTO t (\"a\", \"b\") VALUES (?, ?), (?, ?)",
        );
        check(
            "SELECT a FROM t WHERE mail = \"hunter2\" AND b IN (\"c\", \"d\") AND e LIKE \"f\"",
            "SELECT a FROM t WHERE mail = ? AND b IN (?, ?) AND e LIKE ?",
        );
        check("SELECT \"x@y\"", "SELECT ?");
        check(
            "SELECT a FROM t JOIN u ON t.a = \"u\".\"b\"",
            "SELECT a FROM t JOIN u ON t.a = \"u\".\"b\"",
        );
    }

    #[test]
    fn nothing_of_an_open_literal_is_kept() {
        for sql in [
            "SELECT 1, 'secret".to_owned(),
            format!("SELECT '{}'", "secret".repeat(10_000)),
        ] {
            let text = replaced(&sql, &mut LOOKED_AT_BYTES_MAX.clone());
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_batch_is_one_query_and_only_so_much_of_it_is_looked_at() {
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
        let long = vec![of("INSERT INTO t VALUES (1)"); 10_000];
        assert_eq!(without_literals(&long), "INSERT INTO t VALUES (?) …");
    }
}
