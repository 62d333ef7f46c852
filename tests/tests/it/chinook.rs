//! A real data set goes in through the HTTP API, its file as it is, and comes back from a replica as
//! the sqlite3 program has it.

use std::path::PathBuf;

use serde_json::Value;
use tidemark_tests::{Cluster, Place, wait};

use crate::{PROGRAM, sqlite3};

/// Directory of data sets that are not part of the repository.
const DATA_VARIABLE: &str = "TIDEMARK_TEST_DATA";

fn chinook() -> Option<String> {
    let beside_the_repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let directory = std::env::var_os(DATA_VARIABLE).map_or(beside_the_repository, PathBuf::from);
    let path = directory.join("chinook.sql");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            eprintln!(
                "skipped: cannot read {} ({error}); {DATA_VARIABLE} names another directory",
                path.display()
            );
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chinook_read_back_from_a_replica_equals_sqlite3() {
    let Some(text) = chinook() else { return };
    if !sqlite3::available() {
        return;
    }
    let directory = tempfile::tempdir().expect("make a temporary directory");
    let expected = directory.path().join("chinook.db");
    sqlite3::run(&expected, &[], &text);
    let tables: Vec<String> = sqlite3::rows(
        &expected,
        "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
    )
    .iter()
    .map(|row| row["name"].as_str().expect("a name").to_owned())
    .collect();
    assert!(tables.len() > 10, "{tables:?}");

    let cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let weur = cluster.replicas[0].api();
    weur.create("chinook").await;
    let loaded = weur.query("chinook", &text).ok().await;
    cluster.settled(wait::SOON).await;
    let read = async |sql: &str| -> Vec<Value> {
        let reply = weur
            .query("chinook", sql)
            .bookmark(&loaded.bookmark())
            .header("tidemark-values", "exact")
            .ok()
            .await;
        assert_eq!(reply.meta()["served_by_region"], "WEUR");
        reply.rows().clone()
    };
    let mut rows = 0;
    for table in &tables {
        let sql = format!("SELECT rowid, * FROM [{table}] ORDER BY rowid");
        let (got, want) = (read(&sql).await, sqlite3::rows(&expected, &sql));
        assert_eq!(got.len(), want.len(), "rows of {table}");
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got, want, "a row of {table}");
        }
        rows += got.len();
    }
    assert!(rows > 15_000, "{rows} rows were compared");
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    assert_eq!(read(schema).await, sqlite3::rows(&expected, schema));

    cluster.verified(wait::SOON).await;
    let mut verify = std::process::Command::new(PROGRAM);
    verify.arg("verify");
    for node in cluster.nodes() {
        verify.args(["--url", &node.url()]);
    }
    let output = verify.output().expect("run tidemark verify");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(printed.contains("chinook"), "{printed}");
}
