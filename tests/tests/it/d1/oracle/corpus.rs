//! The requests, as the files in `corpus/` have them.
//!
//! ```text
//! # a comment
//! == heading                      from here on in a new database
//! SELECT 1                        a text of SQL, sent to `query`
//! SELECT ? <- [1]                 with parameters
//! "SELECT 1\n"                    the same as a JSON string
//! run: DELETE FROM t              what `run()` sends, to `execute`
//! objects: SELECT 1               with rows as objects
//! + INSERT INTO t VALUES (?) <- [1]
//! + SELECT * FROM t               lines that follow each other are one batch
//! > DROP TABLE t                  lines that follow each other are one `exec()`
//! json: {"sql": 1}                any body
//!   ~ reason                      the answers to the request before differ for this reason
//!   ~ reason [0].meta             they differ here, and here alone for this reason
//! ```
//!
//! `${3|c#|, }` stands for `c1, c2, c3` in any of them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// All requests.
pub(super) struct Corpus {
    pub(super) groups: Vec<Group>,
}

/// Requests to one database, one after another.
pub(super) struct Group {
    /// Subject and heading.
    pub(super) name: String,
    pub(super) file: String,
    pub(super) database: String,
    pub(super) requests: Vec<Request>,
}

/// What is sent once to both.
pub(super) struct Request {
    pub(super) line: usize,
    /// As the file has it.
    pub(super) text: String,
    pub(super) endpoint: Endpoint,
    pub(super) body: String,
    differs: Vec<Differs>,
}

/// A reason why answers differ, and where.
struct Differs {
    reason: String,
    /// The beginning of the place; empty for anywhere.
    place: String,
}

/// Where a request is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Rows,
    Objects,
    Execute,
}

/// What a line is a part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Batch,
    Exec,
}

impl Corpus {
    pub(super) fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/d1/oracle/corpus");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .expect("list the corpus")
            .map(|entry| entry.expect("list the corpus").path())
            .collect();
        files.sort();
        let mut groups = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("read a file of the corpus");
            let subject = file.file_stem().and_then(|stem| stem.to_str());
            parse(subject.expect("a name in UTF-8"), &text, &mut groups);
        }
        Self { groups }
    }

    /// Of requests.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.requests.len()).sum()
    }
}

impl Request {
    /// Why the answers may differ at `place`. The narrowest that is said counts.
    pub(super) fn reason(&self, place: &str) -> Option<&str> {
        let fits = self.differs.iter().filter(|d| place.starts_with(&d.place));
        let narrowest = fits.max_by_key(|differs| differs.place.len());
        narrowest.map(|differs| &*differs.reason)
    }

    pub(super) fn reasons(&self) -> impl Iterator<Item = &str> {
        self.differs.iter().map(|differs| &*differs.reason)
    }
}

impl Endpoint {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Rows => "/query?resultsFormat=ROWS_AND_COLUMNS",
            Self::Objects => "/query?resultsFormat=ARRAY_OF_OBJECTS",
            Self::Execute => "/execute?resultsFormat=NONE",
        }
    }
}

fn parse(subject: &str, text: &str, groups: &mut Vec<Group>) {
    let mut before = Part::Whole;
    let mut elements: Vec<Value> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{subject}:{number}");
        if let Some(heading) = line.strip_prefix("== ") {
            groups.push(Group {
                name: format!("{subject}: {heading}"),
                file: format!("{subject}.txt"),
                database: format!("{subject}-{number}"),
                requests: Vec::new(),
            });
            before = Part::Whole;
            continue;
        }
        if line.trim().is_empty() || line.starts_with("# ") {
            before = Part::Whole;
            continue;
        }
        let group = groups
            .last_mut()
            .unwrap_or_else(|| panic!("{place}: no heading"));
        if let Some(differs) = line.strip_prefix("  ~ ") {
            let (reason, at) = differs.split_once(' ').unwrap_or((differs, ""));
            let request = group.requests.last_mut();
            let request = request.unwrap_or_else(|| panic!("{place}: no request"));
            request.differs.push(Differs {
                reason: reason.to_owned(),
                place: at.to_owned(),
            });
            before = Part::Whole;
            continue;
        }
        let whole = expanded(line);
        let (part, rest) = if let Some(rest) = whole.strip_prefix("+ ") {
            (Part::Batch, rest)
        } else if whole == "+" {
            (Part::Batch, "")
        } else if let Some(rest) = whole.strip_prefix("> ") {
            (Part::Exec, rest)
        } else if whole == ">" {
            (Part::Exec, "")
        } else {
            (Part::Whole, &*whole)
        };
        if part != Part::Whole {
            if part != before {
                elements.clear();
            }
            elements.push(match part {
                Part::Exec => json!({ "sql": rest }),
                Part::Batch | Part::Whole => statement(rest, &place),
            });
            let body = Value::Array(elements.clone()).to_string();
            match group.requests.last_mut() {
                Some(request) if part == before => {
                    request.body = body;
                    request.text.push('\n');
                    request.text.push_str(line);
                }
                _ => group.requests.push(Request {
                    line: number,
                    text: line.to_owned(),
                    endpoint: match part {
                        Part::Exec => Endpoint::Execute,
                        Part::Batch | Part::Whole => Endpoint::Rows,
                    },
                    body,
                    differs: Vec::new(),
                }),
            }
            before = part;
            continue;
        }
        let (endpoint, body) = if let Some(body) = whole.strip_prefix("json: ") {
            (Endpoint::Rows, body.to_owned())
        } else if let Some(sql) = whole.strip_prefix("run: ") {
            (Endpoint::Execute, statement(sql, &place).to_string())
        } else if let Some(sql) = whole.strip_prefix("objects: ") {
            (Endpoint::Objects, statement(sql, &place).to_string())
        } else {
            (Endpoint::Rows, statement(&whole, &place).to_string())
        };
        group.requests.push(Request {
            line: number,
            text: line.to_owned(),
            endpoint,
            body,
            differs: Vec::new(),
        });
        before = Part::Whole;
    }
}

/// `SQL`, `SQL <- [values]`, or with the SQL as a JSON string.
fn statement(line: &str, place: &str) -> Value {
    let json = |text: &str| -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}: {text}"))
    };
    let (sql, params) = match line.rsplit_once(" <- ") {
        Some((sql, params)) => (sql, Some(json(params))),
        None => (line, None),
    };
    let sql = match sql.starts_with('"') {
        true => json(sql),
        false => Value::from(sql),
    };
    let mut statement = Map::from_iter([("sql".to_owned(), sql)]);
    statement.insert("params".to_owned(), params.unwrap_or_else(|| json!([])));
    Value::Object(statement)
}

/// With every `${count|text|separator}` replaced by as many.
fn expanded(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) = after.split_once('}').expect("a closing brace");
        let mut parts = inside.splitn(3, '|');
        let mut part = || parts.next().unwrap_or_default();
        let count: usize = part().parse().expect("a count");
        let (text, separator) = (part(), part());
        out.push_str(before);
        for n in 1..=count {
            if n > 1 {
                out.push_str(separator);
            }
            out.push_str(&text.replace('#', &n.to_string()));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
