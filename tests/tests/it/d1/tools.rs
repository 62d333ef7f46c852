//! Tools that a machine may lack.

/// A test cannot run. On a gate that is a failure: what nobody sees would never run again.
pub(crate) fn skipped(why: &str) {
    let gate = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!gate, "a test cannot run: {why}");
    eprintln!("skipped: {why}");
}
