//! How answers look: tables for people, one JSON document per result for programs.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tidemark_client::{Answers, Error, ExactJson, Meta, RawResult, Value};
use tidemark_protocol::Bookmark;

/// Bytes of a blob that a table shows. `hex(column)` shows all.
const BLOB_BYTES_SHOWN: usize = 32;

/// Columns of the narrowest terminal that tables are fitted to. Some pretend to have none.
const TERMINAL_WIDTH_MIN: u16 = 20;

/// An empty table in the shell's looks.
pub(crate) fn blank_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if table
        .width()
        .is_some_and(|width| width >= TERMINAL_WIDTH_MIN)
    {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// The rows of a result as a table; `None` if the statement has no columns.
pub(crate) fn table(result: &RawResult) -> Option<Table> {
    if result.columns.is_empty() {
        return None;
    }
    let mut table = blank_table();
    table.set_header(result.columns.iter().map(|name| harmless(name)));
    for row in &result.rows {
        table.add_row(row.iter().map(cell));
    }
    Some(table)
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::new("NULL").add_attribute(Attribute::Dim),
        Value::Integer(_) | Value::Real(_) => {
            Cell::new(literal(value)).set_alignment(CellAlignment::Right)
        }
        Value::Text(_) | Value::Blob(_) => Cell::new(literal(value)),
    }
}

/// A value as it is shown. Text is bare unless that would make it look like NULL.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(value) => value.to_string(),
        // As SQLite writes it.
        Value::Real(value) if value.is_infinite() => {
            if *value > 0.0 { "Inf" } else { "-Inf" }.to_owned()
        }
        Value::Real(value) => format!("{value:?}"),
        Value::Text(text) if text == "NULL" => "'NULL'".to_owned(),
        Value::Text(text) => harmless(text),
        Value::Blob(bytes) => {
            let mut text = String::from("x'");
            for byte in bytes.iter().take(BLOB_BYTES_SHOWN) {
                let _ = write!(text, "{byte:02x}"); // A String takes everything.
            }
            if bytes.len() > BLOB_BYTES_SHOWN {
                let _ = write!(text, "…' ({} bytes)", bytes.len());
            } else {
                text.push('\'');
            }
            text
        }
    }
}

/// `text` with its control characters spelt out, so that what is stored cannot steer the terminal.
/// Line breaks stay.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// One line under an answer: how much, how long, who, and which state.
pub(crate) fn summary(answers: &Answers, took: Duration) -> String {
    let meta = answers.results.last().map(|result| &result.meta);
    let served_by = match (&answers.served_by, meta) {
        (Some(served_by), _) => Some((served_by.region.clone(), served_by.role.clone())),
        (None, Some(meta)) => meta
            .served_by_region
            .clone()
            .map(|region| (region, role(meta).to_owned())),
        (None, None) => None,
    };
    let mut parts = vec![counts(&answers.results), milliseconds(took)];
    parts.extend(served_by.map(|(region, role)| harmless(&format!("{region} {role}"))));
    parts.extend(answers.bookmark.as_deref().map(short_bookmark));
    if answers.repeated {
        parts.push("repeated from an earlier try".to_owned());
    }
    parts.join(" · ")
}

fn role(meta: &Meta) -> &'static str {
    if meta.served_by_primary {
        "primary"
    } else {
        "replica"
    }
}

/// Rows if there are any to show, changes if there were any.
fn counts(results: &[RawResult]) -> String {
    let rows: usize = results.iter().map(|result| result.rows.len()).sum();
    // What a statement changed is also in `changes` of a SELECT after it: count writers alone.
    let writers = results.iter().filter(|result| result.meta.changed_db);
    let changes: i64 = writers.clone().map(|result| result.meta.changes).sum();
    let has_rows = results.iter().any(|result| !result.columns.is_empty());
    let mut parts = Vec::new();
    if results.len() > 1 {
        parts.push(format!("{} statements", results.len()));
    }
    if has_rows {
        parts.push(counted(rows as u64, "row"));
    }
    if changes > 0 {
        parts.push(format!("{changes} changed"));
    } else if !has_rows {
        parts.push("done".to_owned());
    }
    parts.join(", ")
}

/// What the last answer cost, for `.timing`.
pub(crate) fn costs(answers: &Answers, took: Duration) -> String {
    let sum = |of: fn(&Meta) -> u64| answers.results.iter().map(|r| of(&r.meta)).sum::<u64>();
    let in_sqlite: Duration = answers.results.iter().map(|r| r.meta.duration).sum();
    format!(
        "{} in all, {} of it in SQLite; {} read, {} written; {}; request {}",
        milliseconds(took),
        milliseconds(in_sqlite),
        counted(sum(|meta| meta.rows_read), "row"),
        sum(|meta| meta.rows_written),
        match answers.attempts {
            1 => "1 try".to_owned(),
            tries => format!("{tries} tries"),
        },
        answers.request
    )
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(count: u64, of: &str) -> String {
    match count {
        1 => format!("1 {of}"),
        count => format!("{count} {of}s"),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Epoch and sequence number of a bookmark: enough to see whether a state is newer than another.
pub(crate) fn short_bookmark(text: &str) -> String {
    match text.parse::<Bookmark>() {
        Ok(bookmark) => {
            let position = bookmark.claimed();
            format!("at {}.{}", position.epoch, position.seq)
        }
        Err(_) => harmless(text),
    }
}

/// One result as a JSON document: rows as objects in the order of the columns, values exact.
pub(crate) fn json(result: &RawResult) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        success: bool,
        results: Vec<Row<'a>>,
        meta: &'a Meta,
        bookmark: Option<&'a str>,
    }

    let columns = &result.columns;
    serde_json::to_string(&Document {
        success: true,
        results: result
            .rows
            .iter()
            .map(|values| Row { columns, values })
            .collect(),
        meta: &result.meta,
        bookmark: result.bookmark.as_deref(),
    })
}

struct Row<'a> {
    columns: &'a [String],
    values: &'a [Value],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, value)) in self.columns.iter().zip(self.values).enumerate() {
            // Of equal names the last, as D1 has it.
            if !self.columns[index + 1..].contains(name) {
                map.serialize_entry(name, &ExactJson(value))?;
            }
        }
        map.end()
    }
}

/// A failure as a JSON document.
pub(crate) fn json_failure(error: &Error) -> String {
    let (code, request) = match error {
        Error::Failed { code, .. } => (Some(*code), None),
        Error::Unknown { request, .. } => (None, Some(request.to_string())),
        Error::Decode { .. } | Error::Config { .. } | _ => (None, None),
    };
    serde_json::json!({
        "success": false,
        "error": {
            "kind": error.kind(),
            "code": code,
            "message": error.to_string(),
            "may_have_happened": error.may_have_happened(),
            "request": request,
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn result(columns: &[&str], rows: Vec<Vec<Value>>) -> RawResult {
        RawResult {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows,
            ..RawResult::default()
        }
    }

    /// At stake: the reader can tell values of different classes apart.
    #[test]
    fn values_of_different_classes_look_different() {
        assert_eq!(literal(&Value::Null), "NULL");
        assert_eq!(literal(&Value::from("NULL")), "'NULL'");
        assert_eq!(literal(&Value::Integer(1)), "1");
        assert_eq!(literal(&Value::Real(1.0)), "1.0");
        assert_eq!(literal(&Value::Real(f64::NEG_INFINITY)), "-Inf");
        assert_eq!(literal(&Value::Blob(vec![0, 255])), "x'00ff'");
        assert_eq!(literal(&Value::Blob(Vec::new())), "x''");
        let long = literal(&Value::Blob(vec![7; 33]));
        assert!(long.ends_with("07…' (33 bytes)"), "{long}");
    }

    /// At stake: a row that somebody else wrote must not move the cursor or recolour the screen.
    #[test]
    fn control_characters_are_spelt_out() {
        assert_eq!(
            literal(&Value::from("a\u{1b}[2Jb\tc\nd")),
            "a\\u{1b}[2Jb\\tc\nd"
        );
    }

    #[test]
    fn table_has_a_line_per_row_and_none_without_columns() {
        let rows = vec![
            vec![Value::Integer(1), Value::Null],
            vec![Value::from("x"), Value::Null],
        ];
        let text = table(&result(&["a", "b"], rows)).unwrap().to_string();
        assert_eq!(
            text.lines().filter(|line| line.contains("NULL")).count(),
            2,
            "{text}"
        );
        assert!(table(&result(&[], Vec::new())).is_none());
    }

    #[test]
    fn json_keeps_column_order_and_every_bit() {
        let row = vec![
            Value::Integer(i64::MAX),
            Value::Real(2.0),
            Value::Blob(vec![1]),
            Value::Null,
            Value::from("last"),
        ];
        let text = json(&result(&["z", "a", "b", "n", "a"], vec![row])).unwrap();
        let expected = r#"{"success":true,"results":[{"z":9223372036854775807,"b":{"base64":"AQ=="},"n":null,"a":"last"}],"#;
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn bookmark_is_shown_by_epoch_and_sequence_number() {
        let text = format!("00000002-00000001-00000003-{:032x}", 5);
        assert_eq!(short_bookmark(&text), format!("at 2.{}", (1_u64 << 32) + 3));
        assert_eq!(short_bookmark("odd\u{7}"), "odd\\u{7}");
    }
}
