//! Secrets: values that never show up in a log or an error, given directly or in a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

/// Shortest secret accepted, in characters: a shorter one can be guessed.
pub(crate) const SECRET_LENGTH_MIN: usize = 8;

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Secret(String);

/// What is wrong with a secret. Its text is not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("a secret of {got} characters is too short, expected at least {min}", min = SECRET_LENGTH_MIN)]
    Short { got: usize },
    #[error("a secret holds a character at offset {offset} that an HTTP header cannot carry")]
    Character { offset: usize },
}

/// A file of secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    #[error("cannot read the secrets in '{path}'")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("line {line} of '{path}': {source}")]
    Line {
        path: PathBuf,
        line: usize,
        source: SecretError,
    },
    #[error("'{path}' holds no secret")]
    Empty { path: PathBuf },
}

impl Secret {
    /// The text, for the place that sends or compares it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The secrets of a file: one a line, lines that are empty or start with `#` apart.
    pub(crate) fn read_file(path: &Path) -> Result<Vec<Self>, SecretFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| SecretFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::read(path, &text)
    }

    /// The secrets of a file that has this text.
    pub(crate) fn read(path: &Path, text: &str) -> Result<Vec<Self>, SecretFileError> {
        let secrets = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, text)| {
                text.parse().map_err(|source| SecretFileError::Line {
                    path: path.to_owned(),
                    line,
                    source,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() {
            return Err(SecretFileError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(secrets)
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let got = text.chars().count();
        if got < SECRET_LENGTH_MIN {
            return Err(SecretError::Short { got });
        }
        match text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            Some(offset) => Err(SecretError::Character { offset }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Secret {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(content: &str) -> Result<Vec<Secret>, SecretFileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, content).unwrap();
        Secret::read_file(&path)
    }

    #[test]
    fn file_holds_one_secret_a_line() {
        let secrets = read("# for the shop\nshop-token-1\n\n  other-token  \n").unwrap();
        let texts: Vec<_> = secrets.iter().map(Secret::reveal).collect();
        assert_eq!(texts, ["shop-token-1", "other-token"]);
    }

    #[test]
    fn bad_secret_is_named_by_its_line_and_not_shown() {
        let error = read("good-enough\nshort\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2 of "), "{error}");
        assert!(!error.contains("'short'"), "{error}");
        assert!(matches!(
            read("# nothing\n"),
            Err(SecretFileError::Empty { .. })
        ));
        let error = "two words".parse::<Secret>().unwrap_err();
        assert_eq!(error, SecretError::Character { offset: 3 });
    }

    #[test]
    fn debug_hides_the_text() {
        let secret: Secret = "correct-horse".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
