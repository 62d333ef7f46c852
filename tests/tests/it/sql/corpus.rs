//! Files of statements with what they answer, in the form of sqllogictest: at the primary, and at a replica that
//! hands writes on and reads by bookmark. The answers are SQLite's: the same files run against its program.
//!
//! In the files of `corpus/` every value is a literal of SQL and the type of a column is the class of its values.
//! With `TIDEMARK_BLESS=1` the run against the program writes the answers anew.
//!
//! `TIDEMARK_SLT` names a file, or a folder of files, of the classic form in addition: there the type of a column
//! says how values are written (`R` with three digits), each on a line of its own, and many of them as a hash.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqllogictest::{DB, DBOutput, DefaultColumnType, QueryExpect, Record, Runner, parse_file};
use tidemark_client::{Client, SessionStart, Value};
use tidemark_tests::{Cluster, Place, wait};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::Engine;
use super::engine::literal;
use crate::{PROGRAM, sqlite3};

/// Names files of others.
const VARIABLE: &str = "TIDEMARK_SLT";

/// How values are written.
#[derive(Clone, PartialEq, Debug)]
enum Form {
    /// As literals.
    Literal,
    /// By the types that the file declares for the query in hand.
    Declared(Vec<DefaultColumnType>),
}

fn lock(form: &Mutex<Form>) -> MutexGuard<'_, Form> {
    form.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A database under test.
struct Tested {
    engine: Engine,
    form: Arc<Mutex<Form>>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl DB for Tested {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    #[expect(
        clippy::disallowed_methods,
        reason = "the runner's trait is not asynchronous, and what is asked is"
    )]
    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refused> {
        let asked = self.engine.ask(sql);
        let rows = block_in_place(|| Handle::current().block_on(asked)).map_err(Refused)?;
        let form = lock(&self.form);
        let (types, rows) = match &*form {
            Form::Literal => {
                let types = classes(&rows);
                let row = |row: &Vec<Value>| row.iter().map(literal).collect();
                (types, rows.iter().map(row).collect())
            }
            Form::Declared(types) => {
                let row = |row: &Vec<Value>| row.iter().zip(types).map(declared).collect();
                (types.clone(), rows.iter().map(row).collect())
            }
        };
        Ok(DBOutput::Rows { types, rows })
    }

    fn engine_name(&self) -> &str {
        "sqlite"
    }
}

/// The class of the values of each column; any, if there are several or none.
fn classes(rows: &[Vec<Value>]) -> Vec<DefaultColumnType> {
    let columns = rows.first().map_or(0, Vec::len);
    let class = |column: usize| {
        let mut classes = rows.iter().filter_map(|row| match row[column] {
            Value::Null => None,
            Value::Integer(_) => Some(DefaultColumnType::Integer),
            Value::Real(_) => Some(DefaultColumnType::FloatingPoint),
            Value::Text(_) => Some(DefaultColumnType::Text),
            Value::Blob(_) => Some(DefaultColumnType::Any),
        });
        let first = classes.next().unwrap_or(DefaultColumnType::Any);
        if classes.all(|other| other == first) {
            first
        } else {
            DefaultColumnType::Any
        }
    };
    (0..columns).map(class).collect()
}

/// A value as the classic form has it.
fn declared((value, kind): (&Value, &DefaultColumnType)) -> String {
    let number = |text: &str| text.trim().parse::<f64>().unwrap_or(0.0);
    match (kind, value) {
        (_, Value::Null) => "NULL".to_owned(),
        (DefaultColumnType::Integer, Value::Integer(integer)) => integer.to_string(),
        (DefaultColumnType::Integer, Value::Real(real)) => format!("{}", real.trunc()),
        (DefaultColumnType::Integer, Value::Text(text)) => format!("{}", number(text).trunc()),
        (DefaultColumnType::FloatingPoint, Value::Integer(integer)) => format!("{integer}.000"),
        (DefaultColumnType::FloatingPoint, Value::Real(real)) => format!("{real:.3}"),
        (DefaultColumnType::FloatingPoint, Value::Text(text)) => format!("{:.3}", number(text)),
        (_, Value::Integer(integer)) => integer.to_string(),
        (_, Value::Real(real)) => format!("{real:?}"),
        (_, Value::Text(text)) if text.is_empty() => "(empty)".to_owned(),
        (_, Value::Text(text)) => {
            let shown = |c: char| if (' '..='~').contains(&c) { c } else { '@' };
            text.chars().map(shown).collect()
        }
        (_, Value::Blob(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A line has the values of a row, or one of them.
fn same(_: sqllogictest::Normalizer, rows: &[Vec<String>], lines: &[String]) -> bool {
    let whole = rows.iter().map(|row| row.join(" "));
    let single = rows.iter().flatten();
    whole.eq(lines.iter().map(String::as_str)) || single.eq(lines)
}

/// No rows are of no class.
fn same_types(found: &Vec<DefaultColumnType>, wanted: &Vec<DefaultColumnType>) -> bool {
    found.is_empty() || found == wanted
}

#[expect(clippy::ptr_arg, reason = "the runner's type")]
fn unchanged(text: &String) -> String {
    text.clone()
}

/// Runs a file; says how many statements and queries it has.
async fn run(file: &Path, engine: Engine, form: Form) -> usize {
    let form = Arc::new(Mutex::new(form));
    let mut engine = Some(engine);
    let given = Arc::clone(&form);
    let mut runner = Runner::new(move || {
        let engine = engine.take().expect("one connection for a file");
        let form = Arc::clone(&given);
        async move { Ok(Tested { engine, form }) }
    });
    runner.with_validator(same);
    runner.with_normalizer(unchanged);
    runner.with_column_validator(same_types);
    let records = parse_file(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut count = 0;
    let mut differs = Vec::new();
    for record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        if let Record::Query { expected, .. } = &record
            && let QueryExpect::Results { types, .. } = expected
            && let Form::Declared(declared) = &mut *lock(&form)
        {
            declared.clone_from(types);
        }
        count += usize::from(matches!(
            record,
            Record::Query { .. } | Record::Statement { .. }
        ));
        if let Err(error) = runner.run_async(record).await {
            differs.push(error.to_string());
        }
    }
    assert!(differs.is_empty(), "{}", differs.join("\n"));
    count
}

fn own_files() -> Vec<PathBuf> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sql/corpus"))
}

/// A file, or the files of a folder and the folders in it.
fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = std::fs::read_dir(place);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("list a folder").path())
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("slt" | "test"))
        })
        .collect();
    found.sort();
    found
}

/// All files and the form of each.
fn all_files() -> Vec<(PathBuf, Form)> {
    let own = own_files();
    assert!(own.len() > 10, "the corpus is there");
    let classic = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sql/classic.test");
    let given = std::env::var_os(VARIABLE).map(PathBuf::from);
    let given = given.map_or_else(Vec::new, |place| files(&place));
    let own = own.into_iter().map(|file| (file, Form::Literal));
    let classic = std::iter::once(classic).chain(given);
    own.chain(classic.map(|file| (file, Form::Declared(Vec::new()))))
        .collect()
}

/// The corpus says what SQLite says.
#[tokio::test(flavor = "multi_thread")]
async fn corpus_is_answered_by_sqlite_as_written() {
    if !sqlite3::available() {
        return;
    }
    if std::env::var_os("TIDEMARK_BLESS").is_some() {
        for file in own_files() {
            bless(&file).await;
        }
    }
    let mut count = 0;
    for (file, form) in all_files() {
        count += run(&file, Engine::program(), form).await;
    }
    eprintln!("{count} statements and queries");
}

/// Writes the answers of the program into a file.
async fn bless(file: &Path) {
    let form = Arc::new(Mutex::new(Form::Literal));
    let mut runner = Runner::new(move || {
        let (engine, form) = (Engine::program(), Arc::clone(&form));
        async move { Ok(Tested { engine, form }) }
    });
    let validate = |_: &Vec<DefaultColumnType>, _: &Vec<DefaultColumnType>| false;
    let written = runner.update_test_file(file, " ", same, unchanged, validate);
    written.await.expect("run and write a file of the corpus");
}

/// Runs each file in a session of its own on a database of its own.
async fn run_all(maker: &Client, client: &Client, start: &SessionStart) {
    let mut count = 0;
    for (number, (file, form)) in all_files().into_iter().enumerate() {
        let name = format!("corpus-{number}");
        maker
            .create_database(&*name)
            .await
            .expect("make a database");
        let session = client.database(&name).session(start.clone());
        count += run(&file, Engine::Node(session), form).await;
    }
    eprintln!("{count} statements and queries");
}

#[tokio::test(flavor = "multi_thread")]
async fn corpus_is_answered_by_a_primary_as_by_sqlite() {
    let cluster = Cluster::start(PROGRAM, &[]).await;
    let client = Cluster::client(&cluster.primary);
    run_all(&client, &client, &SessionStart::Primary).await;
}

/// Each reads by the bookmark of the one before it.
#[tokio::test(flavor = "multi_thread")]
async fn corpus_is_answered_by_a_replica_as_by_sqlite() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("APAC")]).await;
    let maker = Cluster::client(&cluster.primary);
    let client = Cluster::client(&cluster.replicas[0]);
    run_all(&maker, &client, &SessionStart::Unconstrained).await;
    cluster.verified(wait::SOON).await;
}
