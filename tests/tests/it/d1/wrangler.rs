//! wrangler as it is, with nothing set but base URL, token and account: its commands for D1 work at any
//! node of a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tidemark_tests::{Cluster, Place, wait};

use super::npm;
use super::program::{self, Ran};
use crate::PROGRAM;

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

    fn home(&self) -> &Path {
        self.directory.path()
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
    assert_eq!(wrangler.json(&["d1", "insights", "shop"]).await, json!([]));
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
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("write");
    std::fs::write(wrangler.home().join("wrangler.json"), config.to_string()).expect("write");
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

    write(
        "0003_bad.sql",
        "CREATE TABLE half (a); CREATE TABLE users (a);",
    );
    let failed = wrangler.run(&apply).await;
    assert!(!failed.success(), "{failed:?}");
    let sql = "SELECT (SELECT count(*) FROM sqlite_schema WHERE name = 'half') AS half, \
               (SELECT count(*) FROM d1_migrations) AS applied";
    let execute = ["d1", "execute", "shop", "--remote", "--command", sql];
    let left = wrangler.json(&execute).await;
    assert_eq!(left[0]["results"], json!([{ "half": 0, "applied": 2 }]));
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
