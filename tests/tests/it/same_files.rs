//! Replicas hold the primary's bytes: after a graceful stop the database files are equal, page by page,
//! whatever the pages went through.

use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tidemark_tests::{Api, Cluster, Place, Seed, wait};

use crate::{PROGRAM, sqlite3};

const PAGE_SIZE: usize = 4096;
const DATABASE: &str = "mixed";

#[tokio::test(flavor = "multi_thread")]
async fn files_are_equal_after_ddl_growth_shrinkage_blobs_and_spills() {
    let seed = Seed::of("files_are_equal_after_ddl_growth_shrinkage_blobs_and_spills");
    let mut cluster = Cluster::start(PROGRAM, &[Place::near("WEUR"), Place::near("APAC")]).await;
    let uuid = cluster.primary.api().create(DATABASE).await;
    work(&cluster.primary.api(), &mut seed.stream(0)).await;
    cluster.verified(wait::SOON).await;
    // Again with one replica away, so that it gets the changes merged.
    cluster.replicas[1].kill();
    work(&cluster.primary.api(), &mut seed.stream(1)).await;
    cluster.replicas[1].start();
    cluster.verified(wait::SOON).await;
    cluster.stop().await;

    let expected = pages(&cluster.primary.database_file(&uuid));
    assert!(expected.len() > 100, "{} pages", expected.len());
    for replica in &cluster.replicas {
        let got = pages(&replica.database_file(&uuid));
        assert_eq!(got.len(), expected.len(), "pages on {}", replica.name());
        for (number, (got, expected)) in (1..).zip(got.iter().zip(&expected)) {
            assert_eq!(got, expected, "page {number} on {}", replica.name());
        }
    }
    if sqlite3::available() {
        let copy = tempfile::tempdir().expect("make a temporary directory");
        let file = copy.path().join("main.db");
        std::fs::copy(cluster.replicas[0].database_file(&uuid), &file).expect("copy the file");
        assert_eq!(
            sqlite3::run(&file, &[], "PRAGMA integrity_check;").trim(),
            "ok"
        );
    }
}

/// SHA-256 of each page. Everything must have been moved from the WAL into the file.
fn pages(file: &Path) -> Vec<[u8; 32]> {
    let bytes = std::fs::read(file).expect("read a database file");
    let in_header = u32::from_be_bytes(bytes[28..32].try_into().expect("four bytes")) as usize;
    assert_eq!(
        bytes.len(),
        in_header * PAGE_SIZE,
        "bytes of {}",
        file.display()
    );
    bytes
        .chunks(PAGE_SIZE)
        .map(|page| Sha256::digest(page).into())
        .collect()
}

/// A workload that makes pages of every kind, frees many and uses some again.
async fn work(api: &Api, random: &mut fastrand::Rng) {
    let run = async |sql: &str| {
        api.query(DATABASE, sql).ok().await;
    };
    let table = format!("t{}", random.u32(..));
    run(&format!(
        "CREATE TABLE {table} (id INTEGER PRIMARY KEY, k TEXT NOT NULL, b BLOB);
         CREATE INDEX {table}_k ON {table} (k);
         CREATE TABLE {table}_gone (a, b); CREATE VIRTUAL TABLE {table}_words USING fts5(text);"
    ))
    .await;
    // One transaction larger than the page cache: SQLite spills pages to the WAL before it commits.
    run(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
         INSERT INTO {table} SELECT i, hex(randomblob(20)), randomblob(2500) FROM n;
         UPDATE {table} SET b = zeroblob(3000) WHERE id % 3 = 0;
         UPDATE {table} SET k = 'spilled twice ' || id WHERE id % 5 = 0;"
    ))
    .await;
    // A large one that fails at its end leaves nothing.
    let failing = format!(
        "UPDATE {table} SET k = hex(randomblob(100)), b = randomblob(3000); \
         INSERT INTO {table} VALUES (1, 'taken', NULL);"
    );
    let failed = api
        .query(DATABASE, &failing)
        .send()
        .await
        .expect("the node answers");
    assert_eq!(failed.status, 400, "{}", failed.text);
    for _ in 0..200 {
        let id = random.u16(1..6000);
        let bytes = random.u16(..);
        let word = random.u32(..);
        let sql = match random.u8(0..8) {
            0 => format!(
                "INSERT OR REPLACE INTO {table} VALUES ({id}, 'r{word}', randomblob({bytes}))"
            ),
            1 => format!("DELETE FROM {table} WHERE id BETWEEN {id} AND {id} + 40"),
            2 => format!("UPDATE {table} SET b = randomblob({bytes}) WHERE id = {id}"),
            3 => format!("UPDATE {table} SET k = 'u{word}' WHERE id BETWEEN {id} AND {id} + 20"),
            4 => format!("INSERT INTO {table}_words VALUES ('word{word} and word{id}')"),
            5 => format!("INSERT INTO {table}_gone VALUES ({id}, randomblob({bytes} % 9000))"),
            6 => format!(
                "ALTER TABLE {table}_gone RENAME TO {table}_x; \
                          ALTER TABLE {table}_x RENAME TO {table}_gone"
            ),
            _ => format!("INSERT INTO {table}_gone SELECT id, b FROM {table} LIMIT 5"),
        };
        run(&sql).await;
    }
    let exact = json!({
        "sql": format!("INSERT INTO {table} (k, b) VALUES (?, ?)"),
        "params": ["bound", [0, 1, 254, 255]],
    });
    api.query_body(DATABASE, exact).ok().await;
    run(&format!(
        "DROP TABLE {table}_gone; DELETE FROM {table} WHERE id % 2 = 1;
         CREATE UNIQUE INDEX {table}_unique ON {table} (id, k);"
    ))
    .await;
}
