//! The `sqlite3` program, as a second opinion.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Whether it is installed. Says on standard error when it is not.
pub(crate) fn available() -> bool {
    let found = Command::new("sqlite3").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: the sqlite3 program is not installed");
    }
    found
}

/// Runs SQL from standard input against a database file; returns what it prints.
pub(crate) fn run(database: &Path, options: &[&str], sql: &str) -> String {
    let mut process = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .args(options)
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start sqlite3");
    let mut input = process.stdin.take().expect("its input is piped");
    let sql = sql.to_owned();
    let writing = std::thread::spawn(move || input.write_all(sql.as_bytes()));
    let output = process.wait_with_output().expect("sqlite3 ends");
    writing
        .join()
        .expect("no panic")
        .expect("sqlite3 reads its input");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sqlite3: {errors}");
    String::from_utf8(output.stdout).expect("sqlite3 prints UTF-8")
}

/// The rows of one query, as JSON objects.
pub(crate) fn rows(database: &Path, sql: &str) -> Vec<Value> {
    let printed = run(database, &["-json"], sql);
    if printed.trim().is_empty() {
        return Vec::new(); // nothing is printed for no rows
    }
    serde_json::from_str(&printed).expect("sqlite3 -json prints JSON")
}
