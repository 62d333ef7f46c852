//! What begins with a dot: orders to the shell itself.

use std::path::PathBuf;
use std::str::FromStr;

use tidemark_protocol::Bookmark;

/// What `.help` prints.
pub(crate) const HELP: &str = "\
.bookmark             The newest state this session has seen, as text
.create NAME          Make a database and open it
.databases            All databases
.help                 This text
.open NAME            Go on with another database, by name or UUID
.quit                 Leave; so does Ctrl-D
.read FILE            Run the SQL of a file as one transaction
.schema [TABLE]       The statements that made the tables, or one of them
.session HOW          Begin a new session: unconstrained (the nearest copy, then never back in time),
                      primary (everything committed so far), a bookmark (not before that state),
                      or none (no session: the primary answers everything)
.status               What the node that answers says of itself
.tables               Tables and views
.timing [on|off]      Show what each request cost

SQL ends with a semicolon and may span lines. What is sent at once is one transaction.";

/// An order to the shell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Directive {
    Bookmark,
    Create(String),
    Databases,
    Help,
    Open(String),
    Quit,
    Read(PathBuf),
    Schema(Option<String>),
    Session(Scope),
    Status,
    Tables,
    /// `None` turns it over.
    Timing(Option<bool>),
}

/// How fresh reads are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// A session that starts with whatever the node has.
    Unconstrained,
    /// A session that starts with everything committed.
    Primary,
    /// A session that starts from a known state.
    From(Bookmark),
    /// No session: the primary answers.
    None,
}

/// Why a text is no order.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DirectiveError {
    #[error("'{name}' is no order of this shell: see .help")]
    Unknown { name: String },
    #[error("{name} takes {wants}, got '{got}'")]
    Argument {
        name: &'static str,
        wants: &'static str,
        got: String,
    },
}

/// The text names no scope.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is none of unconstrained, primary, none, or a bookmark")]
pub(crate) struct ScopeError {
    text: String,
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "unconstrained" => Ok(Self::Unconstrained),
            "primary" => Ok(Self::Primary),
            "none" => Ok(Self::None),
            bookmark => bookmark.parse().map(Self::From).map_err(|_| ScopeError {
                text: text.to_owned(),
            }),
        }
    }
}

impl FromStr for Directive {
    type Err = DirectiveError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, argument) = match text.trim().split_once(char::is_whitespace) {
            Some((name, argument)) => (name, argument.trim()),
            None => (text.trim(), ""),
        };
        // People end everything with a semicolon sooner or later.
        let argument = argument.trim_end_matches(';').trim_end();
        let name = name.trim_end_matches(';');
        let wrong = |name, wants| DirectiveError::Argument {
            name,
            wants,
            got: argument.to_owned(),
        };
        let nothing = |name, directive| match argument {
            "" => Ok(directive),
            _ => Err(wrong(name, "nothing")),
        };
        let word = |name| match argument {
            "" => Err(wrong(name, "a name")),
            word if word.contains(char::is_whitespace) => Err(wrong(name, "one name")),
            word => Ok(word.to_owned()),
        };
        match name {
            ".bookmark" => nothing(".bookmark", Self::Bookmark),
            ".create" => word(".create").map(Self::Create),
            ".databases" => nothing(".databases", Self::Databases),
            ".help" => nothing(".help", Self::Help),
            ".open" => word(".open").map(Self::Open),
            ".quit" | ".exit" => nothing(".quit", Self::Quit),
            ".read" if argument.is_empty() => Err(wrong(".read", "a file")),
            ".read" => Ok(Self::Read(PathBuf::from(argument))),
            ".schema" if argument.is_empty() => Ok(Self::Schema(None)),
            ".schema" => Ok(Self::Schema(Some(argument.to_owned()))),
            ".session" => argument
                .parse()
                .map(Self::Session)
                .map_err(|_| wrong(".session", "unconstrained, primary, none or a bookmark")),
            ".status" => nothing(".status", Self::Status),
            ".tables" => nothing(".tables", Self::Tables),
            ".timing" => match argument {
                "" => Ok(Self::Timing(None)),
                "on" => Ok(Self::Timing(Some(true))),
                "off" => Ok(Self::Timing(Some(false))),
                _ => Err(wrong(".timing", "on or off")),
            },
            name => Err(DirectiveError::Unknown {
                name: name.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn orders_are_read_with_their_arguments() {
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<Directive>().unwrap(), expected, "{text}");
        };
        check(".tables", Directive::Tables);
        check("  .open  shop ; ", Directive::Open("shop".to_owned()));
        check(".schema", Directive::Schema(None));
        check(
            ".schema my table",
            Directive::Schema(Some("my table".to_owned())),
        );
        check(".read a b.sql", Directive::Read(PathBuf::from("a b.sql")));
        check(".session none", Directive::Session(Scope::None));
        check(".timing", Directive::Timing(None));
        check(".timing off", Directive::Timing(Some(false)));
        check(".quit;", Directive::Quit);
    }

    #[test]
    fn every_order_of_the_help_is_known() {
        for line in HELP.lines().filter(|line| line.starts_with('.')) {
            let name = line.split_whitespace().next().unwrap();
            let unknown = DirectiveError::Unknown {
                name: name.to_owned(),
            };
            assert_ne!(name.parse::<Directive>(), Err(unknown));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = |text: &str| text.parse::<Directive>().unwrap_err().to_string();
        assert_eq!(
            text(".frobnicate x"),
            "'.frobnicate' is no order of this shell: see .help"
        );
        assert_eq!(
            text(".timing maybe"),
            ".timing takes on or off, got 'maybe'"
        );
        assert_eq!(text(".open"), ".open takes a name, got ''");
        assert_eq!(text(".open a b"), ".open takes one name, got 'a b'");
        assert_eq!(
            text(".session garbage"),
            ".session takes unconstrained, primary, none or a bookmark, got 'garbage'"
        );
    }
}
