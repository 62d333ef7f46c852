//! Which settings a command takes from the environment: what its help says.

use std::collections::BTreeSet;
use std::process::Command;

use crate::PROGRAM;

/// What every variable of ours begins with.
pub(crate) const PREFIX: &str = "TIDEMARK_";

/// The variables of `tidemark COMMAND`.
pub(crate) fn of(command: &str) -> BTreeSet<String> {
    let help = Command::new(PROGRAM).args([command, "--help"]).output();
    let help = help.expect("the program runs").stdout;
    let known = words(&String::from_utf8_lossy(&help));
    assert!(
        known.contains("TIDEMARK_LISTEN"),
        "{command} knows {known:?}"
    );
    known
}

/// Every variable of ours that a text names.
pub(crate) fn words(text: &str) -> BTreeSet<String> {
    let part = |c: char| !(c.is_ascii_uppercase() || c == '_');
    let words = text.split(part).filter(|word| word.starts_with(PREFIX));
    words.map(str::to_owned).collect()
}
