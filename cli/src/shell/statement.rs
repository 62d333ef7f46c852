//! Whether typed text is a complete statement, or more lines belong to it.
//!
//! The rules are those of SQLite's own shell (`sqlite3_complete`): the text ends with a semicolon
//! outside of quotes and comments, and is not the beginning of a CREATE TRIGGER, which ends at
//! `; END ;`. Nothing else about SQL is known here: the server has the real parser.

/// Whether `text` can be sent. Text without any statement is not.
pub(crate) fn is_complete(text: &str) -> bool {
    let mut state = State::Nothing;
    let mut tokens = Tokens { rest: text };
    loop {
        match tokens.next() {
            Next::Token(token) => state = state.after(token),
            Next::End => return state == State::Start,
            Next::Unterminated => return false,
        }
    }
}

/// What is left of `text` after space and comments. A comment that does not close reaches to the end.
pub(crate) fn skip_blank(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            return rest;
        }
        .trim_start();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Semicolon,
    Explain,
    Create,
    Temporary,
    Trigger,
    End,
    Other,
}

/// Where the text stands after the tokens so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing but space and comments yet.
    Nothing,
    /// A statement has just ended.
    Start,
    /// In a statement that ends at the next semicolon.
    Statement,
    /// After EXPLAIN, which may stand before a CREATE TRIGGER too.
    Explain,
    /// After CREATE, perhaps TEMP.
    Create,
    /// In a CREATE TRIGGER.
    Trigger,
    /// In a CREATE TRIGGER, after a semicolon.
    TriggerSemicolon,
    /// In a CREATE TRIGGER, after `; END`.
    TriggerEnd,
}

impl State {
    fn after(self, token: Token) -> Self {
        match (self, token) {
            (Self::Trigger | Self::TriggerSemicolon, Token::Semicolon) => Self::TriggerSemicolon,
            (Self::TriggerSemicolon, Token::End) => Self::TriggerEnd,
            (Self::Trigger | Self::TriggerSemicolon, _) => Self::Trigger,
            // Of an END that ends nothing, as in `; END IF`.
            (Self::TriggerEnd, token) if token != Token::Semicolon => Self::Trigger,
            (_, Token::Semicolon) => Self::Start,
            (Self::Nothing | Self::Start, Token::Explain) => Self::Explain,
            (Self::Nothing | Self::Start | Self::Explain, Token::Create) => Self::Create,
            // EXPLAIN QUERY PLAN.
            (Self::Explain, Token::Other) => Self::Explain,
            (Self::Create, Token::Temporary) => Self::Create,
            (Self::Create, Token::Trigger) => Self::Trigger,
            _ => Self::Statement,
        }
    }
}

enum Next {
    Token(Token),
    End,
    /// In a quote or a comment that does not close.
    Unterminated,
}

struct Tokens<'a> {
    rest: &'a str,
}

impl Tokens<'_> {
    fn next(&mut self) -> Next {
        loop {
            let mut characters = self.rest.chars();
            let Some(first) = characters.next() else {
                return Next::End;
            };
            let after = characters.as_str();
            if first.is_ascii_whitespace() {
                self.rest = after;
            } else if self.rest.starts_with("--") {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let Some((_, rest)) = comment.split_once("*/") else {
                    return Next::Unterminated;
                };
                self.rest = rest;
            } else if let Some(quote) = closing_quote(first) {
                // A doubled quote reads as two quoted texts side by side, which ends at the same place.
                let Some((_, rest)) = after.split_once(quote) else {
                    return Next::Unterminated;
                };
                self.rest = rest;
                return Next::Token(Token::Other);
            } else if in_word(first) {
                let word = self.rest;
                let end = word.find(|c| !in_word(c)).unwrap_or(word.len());
                self.rest = &word[end..];
                return Next::Token(keyword(&word[..end]));
            } else {
                self.rest = after;
                return Next::Token(match first {
                    ';' => Token::Semicolon,
                    _ => Token::Other,
                });
            }
        }
    }
}

fn closing_quote(opening: char) -> Option<char> {
    match opening {
        '\'' | '"' | '`' => Some(opening),
        '[' => Some(']'),
        _ => None,
    }
}

fn in_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

fn keyword(word: &str) -> Token {
    let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
    if is("explain") {
        Token::Explain
    } else if is("create") {
        Token::Create
    } else if is("temp") || is("temporary") {
        Token::Temporary
    } else if is("trigger") {
        Token::Trigger
    } else if is("end") {
        Token::End
    } else {
        Token::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolon_ends_a_statement() {
        for text in [
            "select 1;",
            "select 1; ",
            "select 1; -- that is all",
            "select 1; /* that\nis all */",
            "select 1;\nselect 2;",
            ";",
            "create table trigger_log (a);",
            "select ';' || '''' ;",
            "select \"a;b\", [c;d], `e;f`;",
            "explain query plan select 1;",
            "create temp table t (a);",
        ] {
            assert!(is_complete(text), "{text}");
        }
    }

    #[test]
    fn without_one_more_lines_belong_to_it() {
        for text in [
            "",
            "  \n",
            "-- only a remark;",
            "select 1",
            "select 1; select 2",
            "select ';",
            "select 'it''s;",
            "select \";",
            "select [;",
            "select 1 -- ;",
            "select 1 /* ; ",
            "select 1; /* ",
        ] {
            assert!(!is_complete(text), "{text}");
        }
    }

    #[test]
    fn trigger_ends_at_its_end() {
        let body = "after insert on t begin update t set a = case b when 1 then 2 end";
        for head in [
            "create trigger x",
            "CREATE TEMP TRIGGER x",
            "/* c */ create temporary trigger if not exists x",
            "explain create trigger x",
            "select 1; create trigger x",
        ] {
            assert!(!is_complete(&format!("{head} {body};")), "{head}");
            assert!(!is_complete(&format!("{head} {body}; end")), "{head}");
            assert!(
                !is_complete(&format!("{head} {body}; update t set a = 1; ")),
                "{head}"
            );
            assert!(is_complete(&format!("{head} {body}; END;")), "{head}");
            assert!(
                is_complete(&format!("{head} {body}; end -- done\n ;")),
                "{head}"
            );
        }
    }
}
