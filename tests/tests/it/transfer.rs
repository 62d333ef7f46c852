//! A file of SQL goes in and a dump comes out while 16 readers and a writer work: no read fails or waits long, and
//! the dump is the database, in Tidemark and in SQLite itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use md5::{Digest, Md5};
use reqwest::Method;
use serde_json::{Value, json};
use tidemark_protocol::Position;
use tidemark_tests::{Api, Cell, Node, Seed, wait};
use tokio::task::JoinSet;

use crate::{PROGRAM, sqlite3};

/// Megabytes of the file.
const SIZE_VARIABLE: &str = "TIDEMARK_TRANSFER_MB";
/// To suit a gate.
const SIZE_DEFAULT_MB: usize = 8;

const READERS: usize = 16;
/// Longest that a read may take meanwhile.
const READ_MAX: Duration = Duration::from_secs(1);
/// Between two reads of a reader, and two writes: what is asked is whether they wait, not how many there can be.
const READ_EVERY: Duration = Duration::from_millis(20);
/// Rows that readers read.
const SMALL_ROWS: u64 = 1000;
/// A write waits until the import before it is through.
const WRITE_DEADLINE: &str = "120s";

/// A node, as D1's tools speak to it.
struct Tool {
    api: Api,
    base: String,
}

impl Tool {
    fn at(node: &Node) -> Self {
        Self {
            api: node.api(),
            base: node.url(),
        }
    }

    async fn ask(&self, database: &str, operation: &str, body: Value) -> Value {
        let path = Api::path(&format!("{database}/{operation}"));
        let headers = [("content-type", "application/json")];
        let sent = self
            .api
            .send(Method::POST, &path, &headers, body.to_string());
        let reply = sent.await.expect("the node answers");
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        reply.json["result"].clone()
    }

    /// Asks until it is over.
    async fn complete(&self, database: &str, operation: &str, first: Value) -> Value {
        let mut told = first;
        loop {
            assert_eq!(told["success"], true, "{operation}: {told}");
            match told["status"].as_str() {
                Some("complete") => return told["result"].clone(),
                Some("active") => {}
                _ => panic!("{operation}: {told}"),
            }
            let at = &told["at_bookmark"];
            let body =
                json!({ "action": "poll", "output_format": "polling", "current_bookmark": at });
            told = self.ask(database, operation, body).await;
        }
    }

    fn path<'u>(&self, url: &'u Value) -> &'u str {
        let url = url.as_str().expect("a link");
        url.strip_prefix(&self.base).expect("it leads back")
    }

    async fn import(&self, database: &str, text: &str) -> Value {
        let first = self.begin_import(database, text).await;
        self.complete(database, "import", first).await
    }

    /// What is told of an import within its first second.
    async fn begin_import(&self, database: &str, text: &str) -> Value {
        let hash: [u8; 16] = Md5::digest(text).into();
        let etag = format!("{:032x}", u128::from_be_bytes(hash));
        let init = json!({ "action": "init", "etag": etag });
        let invited = self.ask(database, "import", init).await;
        let path = self.path(&invited["upload_url"]);
        let put = self.api.send(Method::PUT, path, &[], text.to_owned());
        let put = put.await.expect("the node answers");
        assert_eq!(put.status, 200, "{}", put.text);
        let filename = &invited["filename"];
        let ingest = json!({ "action": "ingest", "etag": etag, "filename": filename });
        self.ask(database, "import", ingest).await
    }

    async fn export(&self, database: &str) -> String {
        let begin = json!({ "output_format": "polling", "dump_options": {} });
        let first = self.ask(database, "export", begin).await;
        let result = self.complete(database, "export", first).await;
        let got = self.api.get(self.path(&result["signed_url"])).await;
        let got = got.expect("the node answers");
        assert_eq!(got.status, 200, "{}", got.text);
        got.text
    }
}

/// A file as the sqlite3 program dumps it.
fn script(bytes: usize, mut choice: fastrand::Rng) -> String {
    let mut text = String::with_capacity(bytes + 1024);
    text.push_str("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
    text.push_str(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, kind TEXT, body TEXT, data BLOB, price REAL);\n",
    );
    let mut id = 0;
    while text.len() < bytes {
        id += 1;
        let kind = choice.u32(..1000);
        let _ = write!(text, "INSERT INTO big VALUES({id},'kind {kind}','");
        for _ in 0..choice.u32(..40) {
            text.push_str(["lorem ", "ipsüm ", "it''s ", "\"x\" ", "東京 "][choice.usize(..5)]);
        }
        let (data, price) = (choice.u64(..), choice.u32(..100_000));
        let _ = writeln!(text, "',X'{data:016x}',{price}.25);");
    }
    text.push_str("CREATE INDEX by_kind ON big (kind);\nCOMMIT;\n");
    text
}

/// What a reader or the writer found.
struct Found {
    latencies: Histogram<u64>,
    failures: Vec<String>,
}

impl Found {
    fn none() -> Self {
        Self {
            latencies: Histogram::new(3).expect("three digits are few enough"),
            failures: Vec::new(),
        }
    }

    fn note(&mut self, began: Instant, outcome: Result<(), String>) {
        let took = u64::try_from(began.elapsed().as_micros()).expect("less than an age");
        self.latencies.record(took).expect("it grows as needed");
        self.failures.extend(outcome.err());
    }

    fn max(&self) -> Duration {
        Duration::from_micros(self.latencies.max())
    }

    fn told(&self) -> String {
        let at = |quantile| self.latencies.value_at_quantile(quantile) / 1000;
        let (count, max) = (self.latencies.len(), self.latencies.max() / 1000);
        format!(
            "{count}, p50 {} ms, p99 {} ms, max {max} ms",
            at(0.5),
            at(0.99)
        )
    }
}

/// What readers and the writer share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Load {
    /// Waits until each has done something more.
    async fn is_at_work(&self) {
        let done = || [&self.reads, &self.writes].map(|count| count.load(Ordering::Relaxed));
        let before = done();
        wait::soon("readers and the writer go on", async || {
            let [reads, writes] = done();
            let all = reads >= before[0] + 10 * READERS as u64 && writes >= before[1] + 10;
            all.then_some(())
        })
        .await;
    }
}

/// Reads a row at a node, over and over: as a plain client, or in sessions that take what the node has.
async fn read(api: Api, session: bool, mut choice: fastrand::Rng, load: Arc<Load>) -> Found {
    let mut found = Found::none();
    let mut pace = tokio::time::interval(READ_EVERY);
    while !load.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let id = choice.u64(1..=SMALL_ROWS);
        let sql = format!("SELECT t FROM small WHERE id = {id}");
        let mut query = api.query("shop", &sql);
        if session {
            query = query.bookmark("first-unconstrained");
        }
        let began = Instant::now();
        let outcome = match query.send().await {
            Ok(reply) if reply.status == 200 && reply.rows().len() == 1 => Ok(()),
            Ok(reply) => Err(reply.text),
            Err(error) => Err(error.to_string()),
        };
        found.note(began, outcome);
        load.reads.fetch_add(1, Ordering::Relaxed);
    }
    found
}

async fn write(api: Api, load: Arc<Load>) -> Found {
    let mut found = Found::none();
    let mut pace = tokio::time::interval(READ_EVERY);
    while !load.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let query = api.query("shop", "INSERT INTO small (t) VALUES ('more')");
        let began = Instant::now();
        let outcome = match query
            .header("tidemark-deadline", WRITE_DEADLINE)
            .send()
            .await
        {
            Ok(reply) if reply.status == 200 => Ok(()),
            Ok(reply) => Err(reply.text),
            Err(error) => Err(error.to_string()),
        };
        found.note(began, outcome);
        load.writes.fetch_add(1, Ordering::Relaxed);
    }
    found
}

/// Where a database stands at a node.
async fn position(node: &Node, database: &str) -> Position {
    let status = node.api().status().await.expect("the node answers");
    let mut databases = status.databases.iter();
    let found = databases.find(|status| status.name == database);
    found.expect("the database is there").position
}

#[tokio::test(flavor = "multi_thread")]
async fn file_goes_in_and_dump_comes_out_while_readers_read_and_a_writer_writes() {
    let megabytes = std::env::var(SIZE_VARIABLE).map_or(SIZE_DEFAULT_MB, |text| {
        text.parse().expect("a number of megabytes")
    });
    let seed = Seed::of("transfer");
    let text = script(megabytes * 1_000_000, seed.stream(0));
    let cell = Cell::start(PROGRAM).await;
    let leader = cell.leader().await;
    let follower = Tool::at(&cell.voters[(leader + 1) % cell.voters.len()]);
    let replica = Tool::at(&cell.replicas[0]);
    follower.api.create("shop").await;
    let fill = format!(
        "CREATE TABLE small (id INTEGER PRIMARY KEY, t TEXT); \
         WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {SMALL_ROWS}) \
         INSERT INTO small SELECT id, 'row ' || id FROM n"
    );
    let filled = follower.api.query("shop", &fill).ok().await;
    for node in cell.nodes() {
        let read = node.api().query("shop", "SELECT 1");
        read.bookmark(&filled.bookmark()).ok().await;
    }

    let load = Arc::new(Load::default());
    let nodes: Vec<&Node> = cell.nodes().collect();
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        let choice = seed.stream(number as u64 + 1);
        let api = nodes[number % nodes.len()].api();
        let session = (number / nodes.len()) % 2 == 1;
        readers.spawn(read(api, session, choice, Arc::clone(&load)));
    }
    let writer = tokio::spawn(write(follower.api.clone(), Arc::clone(&load)));
    load.is_at_work().await;
    let began = Instant::now();
    let imported = follower.import("shop", &text).await;
    let import_took = began.elapsed();
    let began = Instant::now();
    let dump = replica.export("shop").await;
    let export_took = began.elapsed();
    load.is_at_work().await;
    load.stop.store(true, Ordering::Relaxed);
    let mut reads = Found::none();
    while let Some(found) = readers.join_next().await {
        let found = found.expect("a reader does not panic");
        reads.failures.extend(found.failures);
        reads.latencies += found.latencies;
    }
    let writes = writer.await.expect("the writer does not panic");
    eprintln!(
        "{megabytes} MB: import {:.1} s, export of {} MB {:.1} s; reads {}; writes {}",
        import_took.as_secs_f64(),
        dump.len() / 1_000_000,
        export_took.as_secs_f64(),
        reads.told(),
        writes.told(),
    );
    assert_eq!(reads.failures, Vec::<String>::new());
    assert_eq!(writes.failures, Vec::<String>::new());
    assert!(reads.max() < READ_MAX, "{}", reads.told());
    assert_eq!(imported["num_queries"], text.lines().count());

    // The same text gives the same bytes.
    let tools = [&follower, &replica];
    for (tool, name) in tools.into_iter().zip(["one", "two"]) {
        tool.api.create(name).await;
        tool.import(name, &dump).await;
    }
    // Every node has both by then, whichever leads.
    cell.verified(wait::SOON * 4).await;
    let one = position(&cell.replicas[0], "one").await;
    let two = position(&cell.replicas[0], "two").await;
    assert_eq!(one.checksum, two.checksum, "{one:?}, {two:?}");
    assert!(follower.export("one").await == dump, "the dump of a dump");
    if sqlite3::available() {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let [from_file, from_dump] = ["file.db", "dump.db"].map(|name| directory.path().join(name));
        sqlite3::run(&from_file, &[], &text);
        // Without a transaction around them each row would be made durable by itself.
        sqlite3::run(&from_dump, &[], &format!("BEGIN;\n{dump}COMMIT;\n"));
        let [want, got] = [&from_file, &from_dump].map(|db| sqlite3::run(db, &[], ".dump big"));
        assert!(got == want, "sqlite3 has another table from the dump");
    }
}

/// Statements that take longer than the test does, the second of them.
const ENDLESS: &str = "CREATE TABLE half (a); INSERT INTO half \
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e12) SELECT max(i) FROM n;";

/// An import is in the memory of the node that leads: its successor knows nothing of it, and has nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn import_whose_leader_dies_leaves_nothing_and_may_be_done_again() {
    let mut cell = Cell::start(PROGRAM).await;
    let leader = cell.leader().await;
    let tool = Tool::at(&cell.voters[(leader + 1) % cell.voters.len()]);
    tool.api.create("shop").await;
    let begun = tool.begin_import("shop", ENDLESS).await;
    assert_eq!(begun["status"], "active", "{begun}");
    cell.voters[leader].kill();
    cell.successor(leader).await;
    let poll = json!({ "action": "poll", "current_bookmark": begun["at_bookmark"] });
    let told = tool.ask("shop", "import", poll).await;
    assert_eq!(told["success"], false, "{told}");
    assert_eq!(told["error"], "Not currently importing anything.");
    let left = "SELECT count(*) AS n FROM sqlite_schema WHERE name = 'half'";
    let left = tool.api.query("shop", left).ok().await;
    assert_eq!(left.rows(), &[json!({ "n": 0 })]);
    let again = "CREATE TABLE half (a); INSERT INTO half VALUES (1);";
    let done = tool.import("shop", again).await;
    assert_eq!(done["num_queries"], 2);
}
