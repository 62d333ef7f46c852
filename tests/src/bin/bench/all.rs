//! Everything, one after the other, as tables and as JSON.
//!
//! Each benchmark is a process of its own: none finds the memory of the one before.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

/// What is run, as words of this program's command line.
const RUNS: [&[&str]; 12] = [
    &["http"],
    &["cell", "--voters", "1,3"],
    &["workloads"],
    &["sessions"],
    &["failover"],
    &["lag"],
    &["paced"],
    &["own-writes"],
    &["catch-up"],
    &["interference"],
    &["density", "--replica"],
    &["footprint"],
];

/// Runs all of them, or those whose name contains `only`.
pub(crate) fn run(only: &str, file: Option<&Path>) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for words in RUNS.into_iter().filter(|words| words[0].contains(only)) {
        let command = format!("tidemark-bench {}", words.join(" "));
        println!("\n{command}\n");
        let mut process = Command::new(std::env::current_exe()?)
            .args(words)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut tables = Tables::default();
        for line in output.lines() {
            let line = line?;
            println!("{line}");
            tables.take(&line);
        }
        let status = process.wait()?;
        anyhow::ensure!(status.success(), "{command} ended with {status}");
        results.push(json!({ "command": command, "tables": tables.done }));
    }
    if let Some(file) = file {
        std::fs::write(file, serde_json::to_string_pretty(&results)?)?;
    }
    Ok(())
}

/// The tables among the lines of an output: a row of names, a row of dashes, then rows of values.
#[derive(Default)]
struct Tables {
    done: Vec<Vec<Value>>,
    columns: Vec<String>,
}

impl Tables {
    fn take(&mut self, line: &str) {
        let inner = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'));
        let Some(inner) = inner else {
            self.columns.clear();
            return;
        };
        let cells: Vec<_> = inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect();
        if cells.iter().all(|cell| cell == "---") {
            self.done.push(Vec::new());
        } else if self.columns.is_empty() {
            self.columns = cells;
        } else if let Some(rows) = self.done.last_mut() {
            let row = self
                .columns
                .iter()
                .cloned()
                .zip(cells.iter().map(|cell| value(cell)));
            rows.push(Value::Object(row.collect::<Map<_, _>>()));
        }
    }
}

/// A number where it is one.
fn value(cell: &str) -> Value {
    cell.parse::<f64>()
        .map_or_else(|_| Value::from(cell), Value::from)
}
