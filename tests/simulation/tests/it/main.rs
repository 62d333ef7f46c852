//! The program of simulated clusters, as it runs in the gate.

use std::process::Command;

/// Runs the program; returns whether it succeeded, and what it printed.
fn sim(args: &[&str]) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_tidemark-sim");
    let done = Command::new(program).args(args).output().expect("it runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    print_all(&text);
    (done.status.success(), text)
}

#[allow(clippy::print_stdout, reason = "a test tells which seeds it took")]
fn print_all(text: &str) {
    println!("{text}");
}

/// The same seed on every machine.
#[test]
fn clusters_of_fixed_seeds_keep_what_they_promise() {
    let (succeeded, text) = sim(&["--seed", "1", "--minutes", "8"]);
    assert!(succeeded, "{text}");
}

/// Another seed each time, printed, unless `TIDEMARK_SEED` says which.
#[test]
fn clusters_of_random_seeds_keep_what_they_promise() {
    let seed = std::env::var("TIDEMARK_SEED").ok();
    let mut args = vec!["--minutes", "8"];
    if let Some(seed) = &seed {
        args.extend(["--seed", seed]);
    }
    let (succeeded, text) = sim(&args);
    assert!(succeeded, "{text}");
}

/// Whatever a violation is found by can be looked at again.
#[test]
fn a_seed_replays() {
    for seed in ["3", "4"] {
        let once = || sim(&["--once", "--seed", seed, "--work", "30"]);
        assert_eq!(once(), once());
    }
}

/// A simulation that finds nothing proves nothing.
#[test]
fn clusters_that_answer_before_they_commit_are_found() {
    let args = [
        "--seed",
        "1",
        "--minutes",
        "60",
        "--break",
        "sabotage::gate",
    ];
    let (succeeded, text) = sim(&args);
    assert!(!succeeded, "{text}");
    assert!(
        text.contains("lost") || text.contains("is not there"),
        "{text}"
    );
}
