//! Everything, one after the other, as tables, as JSON and as a plot.
//!
//! Each benchmark is a process of its own: none finds the memory of the one before.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::plot::{self, Series};

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

/// Connections of the rows that are drawn.
const DRAWN_CONNECTIONS: u64 = 64;

/// Runs all of them, or those whose name contains `only`. The plot has the rates over HTTP beside what bounds them.
pub(crate) fn run(only: &str, file: Option<&Path>, plot: Option<&Path>) -> anyhow::Result<()> {
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
        if let (["http"], Some(plot)) = (words, plot) {
            draw(tables.done.first().map_or(&[], Vec::as_slice), plot)?;
        }
        results.push(json!({ "command": command, "tables": tables.done }));
    }
    if let Some(file) = file {
        std::fs::write(file, serde_json::to_string_pretty(&results)?)?;
    }
    Ok(())
}

/// Draws requests per second of each workload, and of what it is compared with in the same rounds.
fn draw(rows: &[Value], file: &Path) -> anyhow::Result<()> {
    let drawn = rows
        .iter()
        .filter(|row| row["connections"] == DRAWN_CONNECTIONS as f64);
    let drawn: Vec<_> = drawn.collect();
    let rate = |name: &str| {
        let row = drawn.iter().find(|row| row["workload"] == name);
        row.and_then(|row| row["requests/s"].as_f64())
    };
    let compared = drawn.iter().filter_map(|row| {
        let (name, beside) = (row["workload"].as_str()?, row["beside"].as_str()?);
        Some((name, rate(name)?, rate(beside)?))
    });
    let compared: Vec<_> = compared.collect();
    let series = [
        ("a node", compared.iter().map(|one| one.1).collect()),
        (
            "what bounds it: a handler that does nothing, or the disk",
            compared.iter().map(|one| one.2).collect(),
        ),
    ];
    let mut bar = 0..;
    plot::bars(
        file,
        &format!("Requests over HTTP, {DRAWN_CONNECTIONS} connections"),
        "requests/s",
        &compared.iter().map(|one| one.0).collect::<Vec<_>>(),
        &series.map(|(name, values)| Series {
            name,
            bar: bar.next().expect("without end"),
            values,
        }),
    )
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
