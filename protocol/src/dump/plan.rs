//! From the schema to what is to be read and written.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::DumpOptions;
use super::literal::name as quoted;
use crate::render::{AnswerLimit, ResultSink, StatementStatistics};
use crate::value::{Statement, Value, ValueRef};

const READ_SCHEMA: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid";
/// Columns that an INSERT may name: neither generated ones nor the hidden ones of virtual tables.
const READ_COLUMNS: &str = "SELECT s.name, x.name FROM sqlite_schema s, pragma_table_xinfo(s.name) x \
                            WHERE s.type = 'table' AND x.hidden = 0 ORDER BY s.rowid, x.cid";
const READ_KINDS: &str = "SELECT name, type FROM pragma_table_list WHERE schema = 'main'";

/// Where SQLite keeps the counters of AUTOINCREMENT.
const COUNTERS: &str = "sqlite_sequence";

const FIRST_LINE: &str = "PRAGMA defer_foreign_keys=TRUE;\n";

/// A schema that cannot be written as text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A full-text index that does not hold what it indexes.
    #[error("D1 Export error: table '{table}' does not keep its content, so it cannot be exported")]
    Contentless {
        /// Its name.
        table: String,
    },
    /// A table was asked for that is not there.
    #[error("no such table: {table}: SQLITE_ERROR")]
    NoTable {
        /// Its name.
        table: String,
    },
}

/// What to read and what to write around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub(super) tables: Vec<Table>,
    /// What follows the last row.
    pub(super) tail: String,
}

/// A table whose rows are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    /// What precedes its rows, tables without rows among it.
    pub(super) before: String,
    pub(super) select: String,
    /// What precedes the first row, if there is one.
    pub(super) first: String,
    /// What begins the line of each row.
    pub(super) insert: String,
}

/// The sink for [`SchemaReader::statements`].
#[derive(Debug, Default)]
pub struct SchemaReader {
    statement: usize,
    row: Vec<Value>,
    rows: [Vec<Vec<Value>>; 3],
}

/// One line of `sqlite_schema`.
struct Object<'s> {
    kind: &'s str,
    name: &'s str,
    table: &'s str,
    sql: &'s str,
}

impl SchemaReader {
    /// What to run.
    pub fn statements() -> [Statement; 3] {
        [READ_SCHEMA, READ_COLUMNS, READ_KINDS].map(|sql| Statement {
            sql: sql.to_owned(),
            params: Vec::new(),
        })
    }

    /// The plan for what was read.
    pub fn finish(self, options: &DumpOptions) -> Result<Plan, PlanError> {
        let [schema, columns, kinds] = self.rows;
        let objects: Vec<Object<'_>> = schema.iter().filter_map(|row| object(row)).collect();
        let mut columns_of: HashMap<&str, Vec<&str>> = HashMap::new();
        for row in &columns {
            if let [Value::Text(table), Value::Text(column)] = row.as_slice() {
                columns_of.entry(table).or_default().push(column);
            }
        }
        let shadows: HashSet<&str> = kinds
            .iter()
            .filter_map(|row| match row.as_slice() {
                [Value::Text(name), Value::Text(kind)] if kind == "shadow" => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let wanted = |name: &str| {
            options.tables.is_empty() || options.tables.iter().any(|table| table == name)
        };
        if let Some(missing) = options.tables.iter().find(|table| {
            !objects
                .iter()
                .any(|object| object.kind == "table" && object.name == **table)
        }) {
            let table = missing.clone();
            return Err(PlanError::NoTable { table });
        }

        let mut tables = Vec::new();
        let mut text = FIRST_LINE.to_owned();
        let mut rebuilds = String::new();
        let is_own = |name: &str| {
            name.starts_with("sqlite_") || name.starts_with("_cf_") || shadows.contains(name)
        };
        let dumped = |object: &&Object<'_>| {
            object.kind == "table" && !is_own(object.name) && wanted(object.name)
        };
        // All of them before the first row, unlike D1: a row may refer to a table that was made later.
        for object in objects.iter().filter(dumped).filter(|_| !options.no_schema) {
            let _ = writeln!(text, "{}{}", creation(object.sql), ending(object.sql));
        }
        for object in objects.iter().filter(dumped) {
            let columns = columns_of.get(object.name).map_or(&[][..], Vec::as_slice);
            let content = Content::of(object);
            match content {
                _ if options.no_data => {}
                Content::Derived => {}
                Content::Foreign => {
                    let name = quoted(object.name);
                    let _ = writeln!(rebuilds, "INSERT INTO {name}({name}) VALUES('rebuild');");
                }
                Content::Missing => {
                    let table = object.name.to_owned();
                    return Err(PlanError::Contentless { table });
                }
                Content::Own | Content::Virtual | Content::ByRowid => {
                    let before = std::mem::take(&mut text);
                    tables.push(Table::new(before, object.name, columns, content));
                }
            }
        }
        // A database has counters from the first table on that counts, also when that is gone; a row of them
        // says that its table counts. Where there is none, whoever reads the text may have no such table.
        let counts = objects.iter().any(|object| object.name == COUNTERS);
        if counts && !options.no_data {
            let mut push = |only: &str, first: String| {
                let before = std::mem::take(&mut text);
                let mut counters = Table::new(before, COUNTERS, &["name", "seq"], Content::Own);
                counters.select.push_str(only);
                counters.first = first;
                tables.push(counters);
            };
            if options.tables.is_empty() {
                let only = " WHERE name IN (SELECT name FROM sqlite_schema WHERE type = 'table')";
                push(only, format!("DELETE FROM {COUNTERS};\n"));
            } else {
                for object in objects.iter().filter(dumped) {
                    let is_it = format!(" WHERE name = '{}'", object.name.replace('\'', "''"));
                    let first = format!("DELETE FROM {COUNTERS}{is_it};\n");
                    push(&is_it, first);
                }
            }
        }
        if !options.no_schema {
            // A view may have triggers.
            for kind in ["index", "view", "trigger"] {
                for object in objects.iter().filter(|object| object.kind == kind) {
                    // A view belongs to no table.
                    let belongs = wanted(object.table) && (kind != "view" || wanted(object.name));
                    if belongs && !is_own(object.name) && !is_own(object.table) {
                        let _ = writeln!(text, "{}{}", object.sql, ending(object.sql));
                    }
                }
            }
        }
        // What they are filled from may be a view.
        text.push_str(&rebuilds);
        let analyzed = |object: &Object<'_>| object.name.starts_with("sqlite_stat");
        let whole = !options.no_schema && options.tables.is_empty();
        if whole && objects.iter().any(analyzed) {
            text.push_str("ANALYZE;\n");
        }
        Ok(Plan { tables, tail: text })
    }
}

impl Table {
    fn new(before: String, table: &str, columns: &[&str], content: Content) -> Self {
        let rowid = (content == Content::ByRowid).then(|| "rowid".to_owned());
        let columns = rowid
            .into_iter()
            .chain(columns.iter().map(|column| quoted(column)));
        let columns = columns.collect::<Vec<_>>().join(",");
        let table = quoted(table);
        // In the order of the rows themselves, not of an index that happens to have all columns.
        let order = if content == Content::Own {
            " NOT INDEXED"
        } else {
            ""
        };
        Self {
            before,
            first: String::new(),
            select: format!("SELECT {columns} FROM {table}{order}"),
            insert: format!("INSERT INTO {table} ({columns}) VALUES("),
        }
    }
}

/// Where the rows of a table come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Own,
    /// An R-tree, whose first column is its key.
    Virtual,
    /// Full-text: its rows are known to others by their rowid.
    ByRowid,
    /// It shows what other tables hold.
    Derived,
    /// It indexes another table, and is filled from it.
    Foreign,
    Missing,
}

impl Content {
    fn of(object: &Object<'_>) -> Self {
        let folded: String = object
            .sql
            .chars()
            .filter(|c| !c.is_whitespace())
            .collect::<String>()
            .to_ascii_lowercase();
        if !folded.starts_with("createvirtualtable") {
            return Self::Own;
        }
        if folded.contains("usingfts5vocab(") {
            return Self::Derived;
        }
        if !folded.contains("usingfts5(") {
            return Self::Virtual;
        }
        // After a comma or the bracket: an option, not a column of that name.
        let option = |text: &str| {
            [",", "("]
                .iter()
                .any(|before| folded.contains(&format!("{before}{text}")))
        };
        if option("content=''") || option("content=\"\"") {
            Self::Missing
        } else if option("content=") {
            Self::Foreign
        } else {
            Self::ByRowid
        }
    }
}

/// `IF NOT EXISTS` where D1's exports have it: with a name in quotes.
fn creation(sql: &str) -> String {
    match sql.strip_prefix("CREATE TABLE ") {
        Some(rest) if rest.starts_with(['"', '\'']) => format!("CREATE TABLE IF NOT EXISTS {rest}"),
        _ => sql.to_owned(),
    }
}

/// What ends a statement of the schema: its text may end in a comment, closed or not.
pub(super) fn ending(sql: &str) -> &'static str {
    let mut rest = sql;
    while let Some(at) = rest.find(['\'', '"', '`', '[', '-', '/']) {
        let (found, after) = rest[at..].split_at(1);
        let close = match found {
            "[" => "]",
            "-" if after.starts_with('-') => "\n",
            "/" if after.starts_with('*') => "*/",
            "-" | "/" => {
                rest = after;
                continue;
            }
            quote => quote,
        };
        // Behind the star that opens a comment: it does not close it as well.
        let inside = after.strip_prefix('*').filter(|_| close == "*/");
        match inside.unwrap_or(after).split_once(close) {
            // A doubled quote is one literal after another.
            Some((_, outside)) => rest = outside,
            None if close == "\n" => return "\n;",
            None if close == "*/" => return "*/;",
            None => return ";",
        }
    }
    ";"
}

fn object(row: &[Value]) -> Option<Object<'_>> {
    match row {
        [
            Value::Text(kind),
            Value::Text(name),
            Value::Text(table),
            Value::Text(sql),
        ] => Some(Object {
            kind,
            name,
            table,
            sql,
        }),
        // An index that a constraint brought about has no text.
        _ => None,
    }
}

impl ResultSink for SchemaReader {
    fn begin_statement(&mut self) {
        self.statement += 1;
    }

    fn columns(&mut self, _: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn begin_row(&mut self) {
        self.row.clear();
    }

    fn cell(&mut self, _: usize, value: ValueRef<'_>) {
        self.row.push(value.to_owned());
    }

    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        let row = std::mem::take(&mut self.row);
        self.rows[self.statement - 1].push(row);
        Ok(())
    }

    fn end_statement(&mut self, _: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn recorded(&self) -> &[u8] {
        &[]
    }
}
