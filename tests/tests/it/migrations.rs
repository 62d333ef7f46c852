//! Migrations that make a table anew, as SQLite's manual has it: with foreign keys off, or dropping the old table
//! deletes what refers to it.

use tidemark_tests::{Cluster, Place, wait};

use crate::PROGRAM;

const SCHEMA: &str = "CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT);
     CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT,
         author INTEGER NOT NULL REFERENCES authors (id) ON DELETE CASCADE);
     CREATE INDEX by_name ON authors (name);
     CREATE VIEW written AS SELECT title, name FROM books JOIN authors ON authors.id = author;
     CREATE TRIGGER renamed AFTER UPDATE OF name ON authors BEGIN
         UPDATE books SET title = title || ' (' || new.name || ')' WHERE author = new.id; END;
     INSERT INTO authors VALUES (1, 'Ada'), (2, 'Grace');
     INSERT INTO books VALUES (10, 'Notes', 1), (20, 'Compilers', 2), (21, 'Bugs', 2);";

const MIGRATION: &str = "-- Names become unique.
     PRAGMA foreign_keys = OFF;
     CREATE TABLE authors_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
     INSERT INTO authors_new SELECT id, name FROM authors;
     DROP VIEW written;
     DROP TABLE authors;
     ALTER TABLE authors_new RENAME TO authors;
     CREATE INDEX by_name ON authors (name);
     CREATE VIEW written AS SELECT title, name FROM books JOIN authors ON authors.id = author;
     PRAGMA foreign_key_check;
     PRAGMA foreign_keys = ON;";

const VIOLATED: &str =
    "FOREIGN KEY constraint failed: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_FOREIGNKEY)";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_anew_through_a_replica_and_nothing_that_refers_to_it_is_lost() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("APAC")]).await;
    let (primary, apac) = (cluster.primary.api(), cluster.replicas[0].api());
    primary.create("library").await;
    primary.query("library", SCHEMA).ok().await;
    // As everybody who does not know better: the books go with their authors.
    primary.create("lost").await;
    primary.query("lost", SCHEMA).ok().await;
    let careless = MIGRATION.replace("PRAGMA foreign_keys = OFF;", "");
    primary.query("lost", &careless).ok().await;
    let left = primary.query("lost", "SELECT id FROM books").ok().await;
    assert_eq!(left.rows().len(), 0);
    wait::soon("the replica knows both", async || {
        (apac.status().await.ok()?.databases.len() >= 3).then_some(())
    })
    .await;

    let migrated = apac.query("library", MIGRATION).ok().await;
    for node in [&primary, &apac] {
        let read = node.query("library", "SELECT title, name FROM written ORDER BY title");
        let read = read.bookmark(&migrated.bookmark()).ok().await;
        let titles: Vec<_> = read.rows().iter().map(|row| row["title"].clone()).collect();
        assert_eq!(titles, ["Bugs", "Compilers", "Notes"]);
    }

    // Enforced again: by the next request, and at the end of one that turns them off.
    let insert = "INSERT INTO books VALUES (30, 'Nobody''s', 7)";
    let refused = apac
        .query("library", insert)
        .send()
        .await
        .expect("an answer");
    assert_eq!((refused.status, refused.error().1), (400, VIOLATED));
    let off = format!("PRAGMA foreign_keys = OFF; {insert}");
    let refused = apac.query("library", &off).send().await.expect("an answer");
    let row = "row 30 of table \"books\" refers to no row of \"authors\"";
    assert_eq!(refused.status, 400);
    assert_eq!(refused.error().1, format!("{VIOLATED}: {row}"));
    let count = "SELECT count(*) AS n FROM books";
    let count = primary.query("library", count).ok().await;
    assert_eq!(count.rows()[0]["n"], 3);
    let delete = "DELETE FROM authors WHERE id = 2";
    primary.query("library", delete).ok().await;
    let left = primary.query("library", "SELECT id FROM books").ok().await;
    assert_eq!(left.rows().len(), 1);
    cluster.verified(wait::SOON).await;
}
