//! wrangler as it is, with nothing set but base URL, token and account: its commands for D1 work at any
//! node of a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tidemark_tests::{Cell, Cluster, Place, wait};

use super::npm;
use super::program::{self, Ran};
use crate::{PROGRAM, sqlite3};

const WRANGLER: &str = "4.164.0";
/// Longest that one command may take, on a busy machine.
const COMMAND_WAIT: Duration = Duration::from_secs(120);

/// wrangler in a directory of its own.
struct Wrangler {
    node: PathBuf,
    program: PathBuf,
    directory: tempfile::TempDir,
    api: String,
    account: Option<&'static str>,
}

impl Wrangler {
    async fn at(node: &tidemark_tests::Node) -> Option<Self> {
        Some(Self {
            node: npm::node().await?,
            program: npm::package("wrangler", WRANGLER)
                .await?
                .join("bin/wrangler.js"),
            directory: tempfile::tempdir().expect("make a temporary directory"),
            api: format!("{}/client/v4", node.url()),
            account: Some("acc"),
        })
    }

    /// The same program before another node, in another directory.
    fn before(&self, node: &tidemark_tests::Node) -> Self {
        Self {
            node: self.node.clone(),
            program: self.program.clone(),
            directory: tempfile::tempdir().expect("make a temporary directory"),
            api: format!("{}/client/v4", node.url()),
            account: self.account,
        }
    }

    fn home(&self) -> &Path {
        self.directory.path()
    }

    /// A file in the directory.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home().join(name), text).expect("write");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.home().join(name)).expect("a file that was written")
    }

    /// `execute --file`: what its one result says.
    async fn import(&self, database: &str, file: &str) -> Value {
        let words = ["d1", "execute", database, "--remote", "-y", "--file", file];
        self.json(&words).await[0].clone()
    }

    /// The text of an `export`.
    async fn export(&self, database: &str, more: &[&str]) -> String {
        let words = [
            "d1", "export", database, "--remote", "-y", "--output", "out.sql",
        ];
        self.ok(&[&words, more].concat()).await;
        self.read("out.sql")
    }

    async fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(&self.node);
        command
            .arg(&self.program)
            .args(words)
            .current_dir(self.home())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TMPDIR", self.home())
            .env("CI", "1")
            .env("NO_COLOR", "1")
            .env("WRANGLER_SEND_METRICS", "false")
            // With the banner goes the search for a newer version: no test waits for the world outside.
            .env("WRANGLER_HIDE_BANNER", "true")
            .env("CLOUDFLARE_API_BASE_URL", &self.api)
            .env("CLOUDFLARE_API_TOKEN", "any");
        if let Some(account) = self.account {
            command.env("CLOUDFLARE_ACCOUNT_ID", account);
        }
        let ran = program::run(&mut command, COMMAND_WAIT).await;
        ran.expect("run wrangler")
    }

    async fn ok(&self, words: &[&str]) -> String {
        let ran = self.run(words).await;
        assert!(ran.success(), "{words:?}: {ran:?}");
        ran.out
    }

    /// What a command that knows `--json` says.
    async fn json(&self, words: &[&str]) -> Value {
        let out = self.ok(&[words, &["--json"]].concat()).await;
        let start = out.find(['[', '{']).unwrap_or(out.len());
        let parsed = serde_json::from_str(&out[start..]);
        parsed.unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_makes_asks_migrates_and_deletes_a_database() {
    let cluster = Cluster::start(PROGRAM, &[Place::at("APAC", Duration::from_millis(20))]).await;
    // The farthest node: what it cannot do itself it hands on.
    let Some(wrangler) = Wrangler::at(&cluster.replicas[0]).await else {
        return;
    };
    let out = wrangler
        .ok(&["d1", "create", "shop", "--location", "weur"])
        .await;
    let list = wrangler.json(&["d1", "list"]).await;
    let uuid = list[0]["uuid"].as_str().expect("a UUID").to_owned();
    assert!(out.contains(&uuid), "{out}");
    assert_eq!(list[0]["name"], "shop");
    let again = wrangler.run(&["d1", "create", "shop"]).await;
    assert!(!again.success());
    assert!(again.err.contains("already exists"), "{again:?}");

    let sql = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y'); \
               SELECT * FROM t";
    let execute = ["d1", "execute", "shop", "--remote", "--command"];
    let ran = wrangler.json(&[&execute[..], &[sql]].concat()).await;
    let rows = json!([{ "a": 1, "b": "x" }, { "a": 2, "b": "y" }]);
    assert_eq!(ran[2]["results"], rows);
    assert_eq!(ran[1]["meta"]["changes"], 2);
    let nope = [&execute[..], &["SELECT * FROM nope"]].concat();
    let bad = wrangler.run(&nope).await;
    assert!(!bad.success());
    let said = format!("{}{}", bad.out, bad.err);
    assert!(said.contains("no such table: nope: SQLITE_ERROR"), "{said}");

    let info = wrangler.json(&["d1", "info", "shop"]).await;
    assert_eq!(info["uuid"], json!(uuid));
    assert_eq!(info["num_tables"], 1);
    wrangler.json(&["d1", "insights", "shop"]).await;
    let present = wrangler.json(&["d1", "time-travel", "info", "shop"]).await;
    let newest = cluster.primary.api().query("shop", "SELECT 1").ok().await;
    assert_eq!(present["bookmark"], json!(newest.bookmark()));

    migrates(&wrangler, &uuid).await;

    wrangler.ok(&["d1", "delete", "shop", "-y"]).await;
    assert_eq!(wrangler.json(&["d1", "list"]).await, json!([]));
    cluster.verified(wait::SOON).await;
}

/// Each file and the note that it was applied are one transaction, and the second time nothing is left.
async fn migrates(wrangler: &Wrangler, uuid: &str) {
    let database = json!({ "binding": "DB", "database_name": "shop", "database_id": uuid });
    let config = json!({ "name": "w", "d1_databases": [database] });
    let folder = wrangler.home().join("migrations");
    std::fs::create_dir(&folder).expect("make a folder");
    let write = |name: &str, text: &str| wrangler.write(&format!("migrations/{name}"), text);
    wrangler.write("wrangler.json", &config.to_string());
    write(
        "0001_init.sql",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);\r\n",
    );
    // What D1's own splitter cuts to pieces.
    write(
        "0002_trigger.sql",
        "CREATE TABLE log (n INT);\r\nCREATE TRIGGER tr AFTER INSERT ON users BEGIN\r\n\
         INSERT INTO log SELECT CASE WHEN new.id > 1 THEN 2 ELSE 1 end;\r\nend;\r\n",
    );
    let apply = ["d1", "migrations", "apply", "shop", "--remote"];
    let listed = wrangler.ok(&["d1", "migrations", "list", "shop", "--remote"]);
    let listed = listed.await;
    assert!(listed.contains("0002_trigger.sql"), "{listed}");
    wrangler.ok(&apply).await;
    let again = wrangler.ok(&apply).await;
    assert!(again.contains("No migrations to apply"), "{again}");
    // Larger than D1 takes in one statement, and in all.
    let rows: Vec<String> = (0..40_000).map(|n| format!("({n}, 'name {n}')")).collect();
    let insert = format!("INSERT INTO large VALUES {};\n", rows.join(","));
    write(
        "0003_large.sql",
        &format!("CREATE TABLE large (id INTEGER PRIMARY KEY, name TEXT);\n{insert}"),
    );
    wrangler.ok(&apply).await;

    write(
        "0004_bad.sql",
        "CREATE TABLE half (a); CREATE TABLE users (a);",
    );
    let failed = wrangler.run(&apply).await;
    assert!(!failed.success(), "{failed:?}");
    let sql = "SELECT (SELECT count(*) FROM sqlite_schema WHERE name = 'half') AS half, \
               (SELECT count(*) FROM d1_migrations) AS applied, (SELECT count(*) FROM large) AS rows";
    let execute = ["d1", "execute", "shop", "--remote", "--command", sql];
    let left = wrangler.json(&execute).await;
    let whole = json!([{ "half": 0, "applied": 3, "rows": 40_000 }]);
    assert_eq!(left[0]["results"], whole);
}

/// As the `.dump` of the sqlite3 program has it: with a transaction of its own, which D1 refuses.
const DUMP: &str = "PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO authors VALUES(1,'Zoë O''Hara');
INSERT INTO authors VALUES(2,replace('two\\nlines','\\n',char(10)));
CREATE TABLE books (id INTEGER PRIMARY KEY AUTOINCREMENT, author INTEGER REFERENCES authors(id), cover BLOB, price REAL);
INSERT INTO books VALUES(7,1,X'00ff',1.5);
INSERT INTO books VALUES(9,2,NULL,-0.0);
CREATE INDEX by_author ON books(author);
CREATE VIEW named AS SELECT b.id, a.name FROM books b JOIN authors a ON a.id = b.author;
CREATE TRIGGER priced AFTER INSERT ON books BEGIN UPDATE books SET price = CASE WHEN price IS NULL THEN 1 ELSE price END; END;
COMMIT;
";

/// Import and export go through the node that leads, whichever was asked: links lead back to the one that the client knows.
#[tokio::test(flavor = "multi_thread")]
async fn wrangler_imports_and_exports_files_at_any_node_of_a_cell() {
    let cell = Cell::start(PROGRAM).await;
    let leader = cell.leader().await;
    let follower = &cell.voters[(leader + 1) % cell.voters.len()];
    let Some(at_follower) = Wrangler::at(follower).await else {
        return;
    };
    let at_replica = at_follower.before(&cell.replicas[0]);
    let at_leader = at_follower.before(&cell.voters[leader]);
    at_follower.ok(&["d1", "create", "shop"]).await;
    at_follower.write("dump.sql", DUMP);
    let imported = at_follower.import("shop", "dump.sql").await;
    let summary = &imported["results"][0];
    assert_eq!(summary["Total queries executed"], 12, "{imported}");
    assert!(summary["Rows written"].as_u64() >= Some(8), "{imported}");
    let info = ["d1", "time-travel", "info", "shop"];
    let present = at_replica.json(&info).await;
    assert_eq!(present["bookmark"], imported["finalBookmark"]);
    assert_eq!(at_follower.json(&info).await, present);

    fails_whole(&at_replica).await;

    let whole = at_replica.export("shop", &[]).await;
    assert!(
        whole.starts_with("PRAGMA defer_foreign_keys=TRUE;\n"),
        "{whole}"
    );
    assert_eq!(at_follower.export("shop", &[]).await, whole);
    let schema = at_follower.export("shop", &["--no-data"]).await;
    assert!(schema.contains("CREATE TRIGGER priced"), "{schema}");
    assert!(!schema.contains("INSERT INTO \"authors\""), "{schema}");
    let data = at_replica.export("shop", &["--no-schema"]).await;
    assert!(data.contains("VALUES(1,'Zoë O''Hara');"), "{data}");
    assert!(!data.contains("CREATE"), "{data}");
    let table = at_leader.export("shop", &["--table", "authors"]).await;
    assert!(table.contains("CREATE TABLE authors"), "{table}");
    assert!(!table.contains("books"), "{table}");

    // Both back: into another database, and into SQLite itself.
    at_leader.ok(&["d1", "create", "copy"]).await;
    at_replica.write("whole.sql", &whole);
    at_replica.import("copy", "whole.sql").await;
    assert_eq!(at_follower.export("copy", &[]).await, whole);
    if sqlite3::available() {
        let [from_dump, from_export] =
            ["dump.db", "export.db"].map(|name| at_leader.home().join(name));
        sqlite3::run(&from_dump, &[], DUMP);
        sqlite3::run(&from_export, &[], &whole);
        let dump = |path: &Path| sqlite3::run(path, &[], ".dump");
        assert_eq!(dump(&from_export), dump(&from_dump));
    }
    let insights = at_leader.json(&["d1", "insights", "shop"]).await;
    assert!(insights.is_array(), "{insights}");
    cell.verified(wait::SOON).await;
}

/// A file with a mistake at its end changes nothing, and SQLite's words come through.
async fn fails_whole(wrangler: &Wrangler) {
    wrangler.write(
        "bad.sql",
        "INSERT INTO authors VALUES(3,'x'); INSERT INTO nope VALUES(1);",
    );
    let words = [
        "d1", "execute", "shop", "--remote", "-y", "--file", "bad.sql",
    ];
    let failed = wrangler.run(&words).await;
    assert!(!failed.success(), "{failed:?}");
    let said = format!("{}{}", failed.out, failed.err);
    assert!(said.contains("no such table: nope: SQLITE_ERROR"), "{said}");
    let count = "SELECT count(*) AS n FROM authors";
    let words = ["d1", "execute", "shop", "--remote", "--command", count];
    let left = wrangler.json(&words).await;
    assert_eq!(left[0]["results"], json!([{ "n": 2 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrangler_finds_its_account_by_itself() {
    let cluster = Cluster::start(PROGRAM, &[]).await;
    let Some(mut wrangler) = Wrangler::at(&cluster.primary).await else {
        return;
    };
    wrangler.account = None;
    let who = wrangler.ok(&["whoami"]).await;
    assert!(who.contains("tidemark"), "{who}");
    wrangler.ok(&["d1", "create", "shop"]).await;
    assert_eq!(wrangler.json(&["d1", "list"]).await[0]["name"], "shop");
}
