//! Files that an operator writes, or a node at its first start: TOML, and lists of tokens.

use tidemark_cli::fuzzing;

use crate::memory::bounded;

/// The bytes are the text of any of them.
pub fn check(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        bounded(bytes.len(), 1024, || {
            fuzzing::configuration(text);
            fuzzing::identity(text);
            fuzzing::secrets(text);
        });
    }
}
