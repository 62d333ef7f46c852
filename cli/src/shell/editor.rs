//! Typing at a terminal: line editing, history, statements over several lines.

use std::path::PathBuf;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};

use super::directive::HELP;
use super::statement::is_complete;

/// Name of the history file in the home directory.
const HISTORY_FILE: &str = ".tidemark_history";
/// Entries the history keeps.
const HISTORY_LENGTH: usize = 2000;

/// What came from the keyboard.
pub(crate) enum Typed {
    /// An order or complete SQL.
    Text(String),
    /// Ctrl-C: what was typed is dropped.
    Dropped,
    /// Ctrl-D.
    End,
}

/// The keyboard.
pub(crate) struct Keyboard {
    editor: Editor<Rules, FileHistory>,
    /// `None` without a home directory.
    history: Option<PathBuf>,
}

impl Keyboard {
    /// Opens it, with the history of earlier shells.
    pub(crate) fn open() -> rustyline::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY_LENGTH)?
            // A statement with a secret in it can be kept out by a space before it.
            .history_ignore_space(true)
            .auto_add_history(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Rules));
        let history = std::env::home_dir().map(|home| home.join(HISTORY_FILE));
        if let Some(path) = &history {
            // The first shell of a user finds none.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    /// Waits for the next order or statement. Blocks the thread.
    pub(crate) fn read(&mut self, prompt: &str) -> rustyline::Result<Typed> {
        match self.editor.readline(prompt) {
            Ok(text) => {
                if let Some(path) = &self.history {
                    // At once, so that a killed shell loses nothing. Not worth an error.
                    let _ = self.editor.append_history(path);
                }
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Dropped),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(error),
        }
    }
}

/// When Enter ends the input, and what Tab knows.
struct Rules;

impl Validator for Rules {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let done = text.is_empty() || text.starts_with('.') || is_complete(text);
        Ok(if done {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Completer for Rules {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..at];
        let orders = HELP
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| typed.starts_with('.') && word.starts_with(typed));
        let pairs = orders.map(|order| Pair {
            display: order.to_owned(),
            replacement: order.to_owned(),
        });
        Ok((0, pairs.collect()))
    }
}

impl Hinter for Rules {
    type Hint = String;
}

impl Highlighter for Rules {}

impl Helper for Rules {}
