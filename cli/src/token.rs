//! The token that a command of this program presents, given directly or in a file.

use std::path::PathBuf;

use crate::config::{Secret, SecretFileError};

/// Which token to present.
#[derive(clap::Args, Debug)]
pub(crate) struct TokenArgs {
    /// Token to present
    #[arg(
        long,
        env = "TIDEMARK_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<Secret>,

    /// File whose first token to present: one a line, as nodes have it. Wins over a token given directly
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// The token; none where none is asked for.
    pub(crate) fn read(&self) -> Result<Option<Secret>, SecretFileError> {
        match &self.token_file {
            Some(path) => Ok(Secret::read_file(path)?.into_iter().next()),
            None => Ok(self.token.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    fn parse(line: &[&str]) -> TokenArgs {
        let line = std::iter::once("x").chain(line.iter().copied());
        Line::try_parse_from(line).unwrap().token
    }

    #[test]
    fn first_token_of_the_file_is_presented() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, "# for the shop\nshop-token-1\nother-token\n").unwrap();
        let file = ["--token-file", path.to_str().unwrap()];
        // The second may as well come from the environment.
        for line in [&file[..], &[&file[..], &["--token", "some-token"]].concat()] {
            let token = parse(line).read().unwrap().unwrap();
            assert_eq!(token.reveal(), "shop-token-1");
        }
        let missing = parse(&["--token-file", "/nowhere/at/all"]);
        assert!(matches!(missing.read(), Err(SecretFileError::Read { .. })));
    }
}
