//! Statements that nobody wrote: schemas, writes and queries made up from a seed, each asked of SQLite's program and
//! of a node. Both refuse it, or both yield the same rows; in the end both have the same tables.
//!
//! What is made up says the same in every version of SQLite from 3.39 on, and whatever the plan: rows are compared
//! without their order unless the statement gives one, reals are multiples of an eighth, and nothing depends on
//! which of several equal values is seen first.

mod expression;
mod generator;

use std::fmt::Write as _;

use tidemark_client::{SessionStart, Value};
use tidemark_tests::{Cluster, Place, Seed, wait};

use self::generator::{Generator, Statement};
use super::Engine;
use super::engine::{Answer, literal};
use crate::{PROGRAM, sqlite3};

/// How many statements are asked; a few hundred otherwise.
const VARIABLE: &str = "TIDEMARK_STATEMENTS";
const STATEMENTS: usize = 600;
/// Of one schema.
const STATEMENTS_OF_A_WORLD: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn random_statements_are_answered_as_by_sqlite() {
    if !sqlite3::available() {
        return;
    }
    let seed = Seed::of("random_statements_are_answered_as_by_sqlite");
    let wanted = std::env::var(VARIABLE).map_or(STATEMENTS, |text| {
        text.parse().expect("TIDEMARK_STATEMENTS is a number")
    });
    let cluster = Cluster::start(PROGRAM, &[Place::near("APAC")]).await;
    let maker = Cluster::client(&cluster.primary);
    let clients = [
        Cluster::client(&cluster.primary),
        Cluster::client(&cluster.replicas[0]),
    ];
    let mut counts = Counts::default();
    for world in 0..wanted.div_ceil(STATEMENTS_OF_A_WORLD) {
        let name = format!("world-{world}");
        maker
            .create_database(&*name)
            .await
            .expect("make a database");
        // At the primary, and, by bookmark, at a replica that hands writes on.
        let database = clients[world % 2].database(&name);
        let node = Engine::Node(database.session(SessionStart::Primary));
        let sqlite = Engine::program();
        let mut generator = Generator::new(seed.stream(world as u64));
        let mut asked = Vec::new();
        for _ in 0..STATEMENTS_OF_A_WORLD {
            let statement = generator.statement();
            compare(&sqlite, &node, &statement, &mut asked, &mut counts).await;
        }
        for statement in generator.contents() {
            compare(&sqlite, &node, &statement, &mut asked, &mut counts).await;
        }
    }
    cluster.verified(wait::SOON).await;
    eprintln!("{counts:?}");
    assert!(
        counts.rows > counts.statements,
        "most of it says something: {counts:?}"
    );
    assert!(
        counts.refused * 2 < counts.statements,
        "most of it is sound: {counts:?}"
    );
}

#[derive(Default, Debug)]
struct Counts {
    statements: usize,
    refused: usize,
    rows: usize,
}

async fn compare(
    sqlite: &Engine,
    node: &Engine,
    statement: &Statement,
    asked: &mut Vec<String>,
    counts: &mut Counts,
) {
    let theirs = shown(sqlite.ask(&statement.sql).await, statement);
    let ours = shown(node.ask(&statement.sql).await, statement);
    counts.statements += 1;
    let same = match (&theirs, &ours) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    if !same {
        let mut before = String::new();
        for sql in asked.iter() {
            let _ = writeln!(before, "{sql};");
        }
        panic!(
            "{before}-- differs:\n{};\n-- SQLite: {theirs:#?}\n-- the node: {ours:#?}",
            statement.sql
        );
    }
    counts.rows += theirs.as_ref().map_or(0, Vec::len);
    counts.refused += usize::from(theirs.is_err());
    if theirs.is_ok() && !statement.reads {
        asked.push(statement.sql.clone());
    }
}

/// The rows as text, by themselves in order if the statement gives none. Whole numbers of REAL columns are integers to
/// RETURNING in some versions of SQLite (3.40 among them): there the two are not told apart.
fn shown(answer: Answer, statement: &Statement) -> Result<Vec<String>, String> {
    let returns = statement.sql.contains(" RETURNING ");
    let value = |value: &Value| match *value {
        Value::Integer(integer) if returns => literal(&Value::Real(integer as f64)),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) | Value::Blob(_) => {
            literal(value)
        }
    };
    let line = |row: &Vec<Value>| row.iter().map(value).collect::<Vec<_>>().join(", ");
    let mut lines: Vec<String> = answer?.iter().map(line).collect();
    if !statement.ordered {
        lines.sort_unstable();
    }
    Ok(lines)
}
