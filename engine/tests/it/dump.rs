//! Exports: what a database holds as text, and the same again out of that text.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemark_engine::{Database, ExportError, ReadError};
use tidemark_protocol::dump::DumpOptions;
use tidemark_protocol::{Position, Rules, Value};

use crate::support::{Node, Random, Rows, soon, stamp, statement, with};

fn until() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn export_with(database: &Database, options: &DumpOptions) -> (Position, String) {
    let text = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&text);
    let output = move |piece: Bytes| {
        written.lock().unwrap().extend_from_slice(&piece);
        true
    };
    let position = database.export(options, until(), Box::new(output)).unwrap();
    let text = std::mem::take(&mut *text.lock().unwrap());
    (position, String::from_utf8(text).expect("text"))
}

fn export(node: &Node) -> String {
    let (position, text) = export_with(&node.database, &DumpOptions::default());
    assert_eq!(Some(position), node.database.position());
    text
}

fn import(node: &mut Node, text: &str) {
    let mut rows = Rows::default();
    let made = node
        .owner
        .execute_under(
            Rules::Script,
            &[statement(text)],
            &stamp(),
            &soon(),
            &mut rows,
        )
        .unwrap_or_else(|error| panic!("{error} in\n{text}"));
    let made = made.expect("an import writes").header().next;
    node.owner.acknowledge(made.seq).unwrap();
}

/// One of every kind, and names and values that need care.
fn with_everything() -> Node {
    let mut node = Node::new();
    // Refers to a table that comes later.
    node.commit(
        r#"CREATE TABLE "child ""of"" 'all'"(id INTEGER PRIMARY KEY AUTOINCREMENT, "select" TEXT
               REFERENCES later(name) ON DELETE CASCADE, [a b] DEFAULT 'x;y' -- it's; a comment
           );
           CREATE TABLE later(name TEXT PRIMARY KEY, doubled AS (name || name), kept AS (length(name)) STORED) WITHOUT ROWID;
           CREATE TABLE strict(i INTEGER, r REAL, t TEXT, b BLOB, a ANY, n INT) STRICT;
           CREATE TABLE gone(id INTEGER PRIMARY KEY AUTOINCREMENT);
           CREATE TABLE "values"(v);
           CREATE TABLE empty(a, b);
           CREATE INDEX by_length ON later(length(name) DESC) WHERE name <> '';
           CREATE UNIQUE INDEX "by ""two""" ON "child ""of"" 'all'"("select", [a b] COLLATE NOCASE);
           CREATE VIEW shown AS SELECT name, 'a''--b' AS quoted FROM later -- and no more;
           ;
           CREATE VIEW unclosed AS SELECT * FROM shown /* ; ' ";
        "#,
    );
    node.commit(
        "CREATE TABLE log(what);
         CREATE TRIGGER noted AFTER INSERT ON later BEGIN INSERT INTO log VALUES('; END'); END;
         CREATE TRIGGER through INSTEAD OF INSERT ON shown BEGIN INSERT INTO later(name) VALUES(new.name); END;",
    );
    node.commit(
        "CREATE VIRTUAL TABLE own USING fts5(title, body, tokenize = 'porter');
         CREATE TABLE articles(id INTEGER PRIMARY KEY, title, body);
         CREATE VIRTUAL TABLE foreign_ USING fts5(title, body, content = 'articles', content_rowid = 'id');
         CREATE VIEW both AS SELECT id AS rowid, title || ' ' || body AS all_of_it FROM articles;
         CREATE VIRTUAL TABLE of_view USING fts5(all_of_it, content='both');
         CREATE VIRTUAL TABLE words USING fts5vocab(own, row);
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1, +label TEXT);
         CREATE VIRTUAL TABLE cells USING rtree_i32(id, x0, x1);
         INSERT INTO own(rowid, title, body) VALUES(7, 'running', 'it''s dogs'), (-3, 'cats', 'sleeping');
         INSERT INTO articles VALUES(5, 'tides', 'leave marks'), (9, 'moons', 'pull');
         INSERT INTO foreign_(foreign_) VALUES('rebuild');
         INSERT INTO of_view(of_view) VALUES('rebuild');
         INSERT INTO boxes VALUES(1, 0.1, 0.7, -3.25, 1e20, 'l''x'), (2, 1, 2, 3, 4, NULL);
         INSERT INTO cells VALUES(4, -2147483648, 2147483647);",
    );
    node.commit(
        "PRAGMA foreign_keys=off;
         INSERT INTO later(name) VALUES('b'), ('a'), ('ü');
         INSERT INTO \"child \"\"of\"\" 'all'\" VALUES(3, 'a', 'x'), (9, NULL, 'a\\nb');
         DELETE FROM \"child \"\"of\"\" 'all'\" WHERE id = 9;
         INSERT INTO \"child \"\"of\"\" 'all'\"(id, \"select\", [a b]) VALUES(4, 'b', 'it''s');
         INSERT INTO gone VALUES(41); DELETE FROM gone;
         INSERT INTO strict VALUES(1, 2, '3', x'04', '5', 6), (NULL, NULL, NULL, NULL, 7.0, NULL);
         ANALYZE;",
    );
    let texts = [
        "",
        "plain",
        "'",
        "''",
        "\\",
        "\\n",
        "a\nb",
        "\r\n",
        "\\n\n\\",
        "\0",
        "a\0b",
        "--",
        "/*",
        "%s",
        "ünï😀",
    ];
    let integers = [
        0,
        1,
        -1,
        i64::MAX,
        i64::MIN,
        i64::MIN + 1,
        1 << 53,
        (1 << 53) + 1,
    ];
    let reals = [
        0.0,
        -0.0,
        0.1,
        -1.0 / 3.0,
        1e15,
        1e16,
        123456789012345680.0,
        9007199254740993.0,
        5e-324,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        f64::NEG_INFINITY,
        9.223372036854776e18,
    ];
    let blobs: [&[u8]; 4] = [b"", b"\0", b"'\n\xff", &[0; 1000]];
    let values = texts
        .iter()
        .map(|text| Value::Text((*text).to_owned()))
        .chain(integers.map(Value::Integer))
        .chain(reals.map(Value::Real))
        .chain(blobs.map(|blob| Value::Blob(blob.to_vec())))
        .chain([Value::Null]);
    let inserts: Vec<_> = values
        .map(|value| with("INSERT INTO \"values\" VALUES(?)", vec![value]))
        .chain([
            statement("INSERT INTO \"values\" VALUES(CAST(x'ff00fe' AS TEXT))"),
            statement("INSERT INTO \"values\" VALUES(CAST(x'c3280a27' AS TEXT))"),
        ])
        .collect();
    let (made, _) = node.try_execute(&inserts).unwrap();
    let made = made.expect("rows").header().next;
    node.owner.acknowledge(made.seq).unwrap();
    node
}

/// Queries that together show all of a database, each of one column of text without line ends.
fn questions(node: &Node) -> Vec<String> {
    let mut questions = vec![
        // As SQLite writes it down, `IF NOT EXISTS` is gone. White space at the end of a text may differ.
        "SELECT hex(type || '|' || name || '|' || tbl_name || '|' || rtrim(sql, char(10) || ' */'))
         FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY type, name"
            .to_owned(),
        "SELECT name || ' ' || seq FROM sqlite_sequence ORDER BY name".to_owned(),
        "SELECT rowid FROM own('run')".to_owned(),
        "SELECT rowid FROM foreign_('marks')".to_owned(),
        "SELECT rowid FROM of_view('moons')".to_owned(),
        "SELECT id FROM boxes WHERE x0 < 0.5".to_owned(),
        "PRAGMA integrity_check".to_owned(),
        "PRAGMA foreign_key_check".to_owned(),
    ];
    let columns = "SELECT s.name, group_concat('typeof(' || q || ') || CASE typeof(' || q ||
             ') WHEN ''real'' THEN printf(''%!.17g'', ' || q || ') WHEN ''null'' THEN '''' ELSE hex(' || q || ') END',
             ' || ''|'' || ')
         FROM sqlite_schema s, (SELECT s2.name AS t, '\"' || replace(x.name, '\"', '\"\"') || '\"' AS q
             FROM sqlite_schema s2, pragma_table_xinfo(s2.name) x WHERE x.hidden <> 1) ON t = s.name
         WHERE s.type IN ('table', 'view') AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             AND s.name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow')
         GROUP BY s.name";
    for row in &node.read(columns).1.statements[0].rows {
        let [Value::Text(table), Value::Text(shown)] = row.as_slice() else {
            panic!("{row:?}")
        };
        let table = table.replace('"', "\"\"");
        questions.push(format!("SELECT {shown} FROM \"{table}\" ORDER BY 1"));
    }
    questions
}

fn answers(node: &Node, questions: &[String]) -> Vec<String> {
    let of = |question: &String| {
        let mut lines = Vec::new();
        for row in &node.read(question).1.statements[0].rows {
            lines.push(match &row[0] {
                Value::Text(text) => text.clone(),
                Value::Integer(integer) => integer.to_string(),
                other @ (Value::Null | Value::Real(_) | Value::Blob(_)) => {
                    panic!("{other:?} to {question}")
                }
            });
        }
        lines.join("\n")
    };
    questions.iter().map(of).collect()
}

/// Runs SQL in the `sqlite3` program, which must like all of it.
fn shell(file: &Path, sql: &str) -> String {
    let mut process = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    let sql = sql.to_owned();
    let writing = std::thread::spawn(move || drop(input.write_all(sql.as_bytes())));
    let output = process.wait_with_output().unwrap();
    writing.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn assert_same(questions: &[String], got: &[String], want: &[String]) {
    for ((question, got), want) in questions.iter().zip(got).zip(want) {
        assert_eq!(got, want, "{question}");
    }
}

#[test]
fn an_export_makes_the_same_database_again() {
    let node = with_everything();
    let questions = questions(&node);
    let want = answers(&node, &questions);
    assert!(want.iter().all(|answer| answer.len() < 100_000));
    let text = export(&node);
    let mut copy = Node::new();
    import(&mut copy, &text);
    assert_same(&questions, &answers(&copy, &questions), &want);
    assert_eq!(
        export(&copy),
        text,
        "and that one's export is the same text"
    );
    // What is in it works: triggers, views, counters.
    copy.commit("INSERT INTO shown(name) VALUES('new')");
    assert_eq!(
        copy.read("SELECT count(*) FROM log WHERE what = '; END'")
            .1
            .integer(),
        4
    );
    copy.commit("INSERT INTO gone DEFAULT VALUES");
    assert_eq!(copy.read("SELECT id FROM gone").1.integer(), 42);
}

#[test]
fn every_double_comes_back_bit_by_bit() {
    let mut random = Random(11);
    let some = std::iter::repeat_with(|| f64::from_bits(random.next()));
    let doubles = some.filter(|double| !double.is_nan()).take(5000);
    let doubles: Vec<_> = doubles.chain([f64::MAX, f64::MIN, 5e-324]).collect();
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a)");
    let inserts: Vec<_> = doubles
        .iter()
        .map(|double| with("INSERT INTO t VALUES(?)", vec![Value::Real(*double)]))
        .collect();
    let (made, _) = node.try_execute(&inserts).unwrap();
    let made = made.expect("rows").header().next;
    node.owner.acknowledge(made.seq).unwrap();
    let mut copy = Node::new();
    import(&mut copy, &export(&node));
    let back = copy.read("SELECT a FROM t").1;
    assert_eq!(back.statements[0].rows.len(), doubles.len());
    let differ: Vec<_> = back.statements[0]
        .rows
        .iter()
        .zip(&doubles)
        .filter(|(row, double)| !matches!(row[0], Value::Real(real) if real.to_bits() == double.to_bits()))
        .collect();
    assert!(differ.is_empty(), "{}: {differ:?}", differ.len());
}

#[test]
fn an_export_makes_the_same_database_in_the_shell() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        eprintln!("skipped: the sqlite3 program is not installed");
        return;
    }
    let node = with_everything();
    let questions = questions(&node);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy.db");
    shell(&file, &export(&node));
    let got: Vec<_> = questions
        .iter()
        .map(|question| {
            let printed = shell(&file, &format!("{question};"));
            printed.strip_suffix('\n').unwrap_or(&printed).to_owned()
        })
        .collect();
    assert_same(&questions, &got, &answers(&node, &questions));
}

#[test]
fn parts_of_a_database_are_exported_as_asked() {
    let node = with_everything();
    let only = |tables: &[&str], no_schema, no_data| {
        let options = DumpOptions {
            no_schema,
            no_data,
            tables: tables.iter().map(|&table| table.to_owned()).collect(),
        };
        export_with(&node.database, &options).1
    };
    let mut schema = Node::new();
    import(&mut schema, &only(&[], false, true));
    assert_eq!(schema.read("SELECT count(*) FROM later").1.integer(), 0);
    import(&mut schema, &only(&["later", "values"], true, false));
    assert_eq!(schema.read("SELECT count(*) FROM later").1.integer(), 3);

    let mut one = Node::new();
    import(&mut one, &only(&["later"], false, false));
    let names = "SELECT group_concat(name, ' ') FROM
                 (SELECT name FROM sqlite_schema WHERE sql NOT NULL ORDER BY name)";
    assert_eq!(one.read(names).1.text(), "by_length later noted");

    let nothing = DumpOptions {
        tables: vec!["nope".to_owned()],
        ..DumpOptions::default()
    };
    let refused = node.database.export(&nothing, until(), Box::new(|_| true));
    let refused = refused.expect_err("no such table").to_string();
    assert_eq!(refused, "no such table: nope: SQLITE_ERROR");

    let empty = Node::new();
    assert_eq!(export(&empty), "PRAGMA defer_foreign_keys=TRUE;\n");
}

#[test]
fn counters_are_exported_with_their_tables_and_only_with_them() {
    // The word alone makes no counter.
    let mut node = Node::new();
    node.commit("CREATE TABLE t(a DEFAULT 'autoincrement'); INSERT INTO t VALUES(1)");
    import(&mut Node::new(), &export(&node));
    // Counters outlive the last table that had one, and are not there where the text is read.
    node.commit(
        "CREATE TABLE gone(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO gone VALUES(7)",
    );
    node.commit("DROP TABLE gone");
    import(&mut Node::new(), &export(&node));

    node.commit(
        "CREATE TABLE one(id INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE TABLE \"t'wo\"(id INTEGER PRIMARY KEY AUTOINCREMENT);
         INSERT INTO one VALUES(41); INSERT INTO \"t'wo\" VALUES(61); DELETE FROM \"t'wo\"",
    );
    let options = DumpOptions {
        tables: vec!["t'wo".to_owned()],
        ..DumpOptions::default()
    };
    let mut copy = Node::new();
    copy.commit(
        "CREATE TABLE one(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO one VALUES(5)",
    );
    import(&mut copy, &export_with(&node.database, &options).1);
    let counters = "SELECT group_concat(name || seq, ' ') FROM
                    (SELECT * FROM sqlite_sequence ORDER BY name)";
    assert_eq!(copy.read(counters).1.text(), "one5 t'wo61");
}

/// Rows of a kibibyte.
fn with_rows(count: u32) -> Node {
    let mut node = Node::new();
    node.commit(&format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO t SELECT i, zeroblob(1024) FROM n"
    ));
    node
}

#[test]
fn an_export_shows_one_state_while_writes_and_reads_go_on() {
    let mut node = with_rows(1000);
    let before = node.database.position();
    let (pieces, taken) = mpsc::sync_channel::<Bytes>(0);
    let database = Arc::clone(&node.database);
    let exporting = std::thread::spawn(move || {
        let output = move |piece| pieces.send(piece).is_ok();
        database.export(&DumpOptions::default(), until(), Box::new(output))
    });
    let mut text = taken.recv().expect("a first piece").to_vec();
    node.commit("DELETE FROM t; ALTER TABLE t RENAME TO u; INSERT INTO u VALUES(7, 'new')");
    assert_eq!(node.read("SELECT count(*) FROM u").1.integer(), 1);
    for piece in taken {
        text.extend_from_slice(&piece);
    }
    let position = exporting.join().unwrap().unwrap();
    assert_eq!(Some(position), before);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("INSERT INTO \"t\"").count(), 1000);
    let mut copy = Node::new();
    import(&mut copy, &text);
    assert_eq!(copy.read("SELECT count(*) FROM t").1.integer(), 1000);
}

#[test]
fn an_export_ends_when_nobody_wants_it_and_at_its_deadline() {
    let node = with_rows(1000);
    let mut pieces = 0;
    let output = move |_| {
        pieces += 1;
        assert!(pieces <= 2, "asked again after a refusal");
        pieces < 2
    };
    let options = DumpOptions::default();
    let ended = node.database.export(&options, until(), Box::new(output));
    assert!(matches!(ended, Err(ExportError::Unwanted)), "{ended:?}");

    let deadline = Instant::now() + Duration::from_millis(50);
    // Who reads it never gets on.
    let (_reader, gets_on) = mpsc::channel::<()>();
    let slow = move |_| {
        let left = deadline.saturating_duration_since(Instant::now());
        let _late = gets_on.recv_timeout(left);
        true
    };
    let ended = node.database.export(&options, deadline, Box::new(slow));
    let late = matches!(ended, Err(ExportError::Read(ReadError::Deadline)));
    assert!(late, "{ended:?}");
}
