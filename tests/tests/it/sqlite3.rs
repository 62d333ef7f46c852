//! The `sqlite3` program, as a second opinion.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tidemark_client::Value as Sql;

/// Whether it is installed. Says on standard error when it is not.
pub(crate) fn available() -> bool {
    let found = Command::new("sqlite3").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: the sqlite3 program is not installed");
    }
    found
}

/// The program on a database file, which ends at the first failure.
fn start(database: &Path, options: &[&str]) -> Child {
    Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .args(options)
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start sqlite3")
}

/// Runs SQL from standard input against a database file; returns what it prints.
pub(crate) fn run(database: &Path, options: &[&str], sql: &str) -> String {
    let mut process = start(database, options);
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

/// What comes between values and behind rows: nothing that a text here has.
const VALUE_END: char = '\u{1f}';
const ROW_END: char = '\u{1e}';

/// Runs a text as one transaction with foreign keys enforced: the rows it yields, or what it fails with.
pub(crate) fn values(database: &Path, sql: &str) -> Result<Vec<Vec<Sql>>, String> {
    let mut process = start(
        database,
        &[
            "-cmd",
            ".mode quote",
            "-cmd",
            r#".separator "\037" "\036""#,
            "-cmd",
            "PRAGMA foreign_keys=ON",
            "-cmd",
            "PRAGMA synchronous=OFF",
        ],
    );
    let mut input = process.stdin.take().expect("its input is piped");
    // It ends at the first failure, and reads no further.
    // The text of a schema ends where its statement does: a line end only where a comment might need one.
    let end = if sql.contains("--") { "\n;" } else { ";" };
    let _ = input.write_all(format!("BEGIN;\n{sql}{end}COMMIT;\n").as_bytes());
    drop(input);
    let output = process.wait_with_output().expect("sqlite3 ends");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let rows = printed.split_terminator(ROW_END);
    Ok(rows
        .map(|row| row.split(VALUE_END).map(value).collect())
        .collect())
}

/// A value as the program quotes it.
fn value(text: &str) -> Sql {
    let inside = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix('\'');
    if text == "NULL" {
        Sql::Null
    } else if let Some(hex) = inside("X'").or_else(|| inside("x'")) {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
        Sql::Blob((0..hex.len()).step_by(2).map(byte).collect())
    } else if let Some(text) = inside("'") {
        Sql::Text(text.replace("''", "'"))
    } else if let Ok(integer) = text.parse() {
        Sql::Integer(integer)
    } else {
        Sql::Real(
            text.parse()
                .unwrap_or_else(|_| panic!("sqlite3 prints '{text}'")),
        )
    }
}
