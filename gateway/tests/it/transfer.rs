//! Import and export as D1's tools do them, over the wire: an upload is imported once, whatever is asked twice,
//! and links lead back to where the client is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use reqwest::Method;
use serde_json::{Value, json};
use tidemark_gateway::{GatewayConfig, ServeConfig, Spool, SpoolConfig};
use tidemark_protocol::dump::DumpOptions;
use tidemark_protocol::node::Role;
use tidemark_protocol::{Execute, Failure, FailureKind, RequestId, Rules};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::double::{Double, KNOWN, Turn, bookmark};
use crate::server::{DATABASES, Got, Server};

const SQL: &str = "CREATE TABLE t (a); INSERT INTO t VALUES ('ü');";
const NOT_IMPORTING: &str = "Not currently importing anything.";

/// A server with a spool.
struct World {
    server: Server,
    directory: tempfile::TempDir,
}

impl std::ops::Deref for World {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl World {
    async fn leading() -> Self {
        Self::with(Double::leading(), |_| {}, |_| {}).await
    }

    /// A node that passes on what it can, to this one.
    async fn behind(leader: &Server) -> Self {
        let node = Double::following(&leader.base);
        node.hand_on();
        Self::with(node, |_| {}, |_| {}).await
    }

    async fn with(
        node: Double,
        bounds: impl FnOnce(&mut SpoolConfig),
        change: impl FnOnce(&mut GatewayConfig),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = SpoolConfig::new(directory.path().join("spool"));
        bounds(&mut config);
        let spool = Spool::open(config).unwrap();
        let change = |config: &mut GatewayConfig| {
            config.spool = Some(spool);
            change(config);
        };
        let server = Server::start_as(node, Role::Primary, change, ServeConfig::default()).await;
        Self { server, directory }
    }

    async fn import(&self, body: Value) -> Value {
        self.import_got(body).await.result()
    }

    async fn import_got(&self, body: Value) -> Got {
        let path = format!("{DATABASES}/shop/import");
        self.post(&path, body.to_string()).send().await
    }

    async fn init(&self, file: &[u8]) -> Value {
        self.import(json!({ "action": "init", "etag": etag(file) }))
            .await
    }

    async fn ingest(&self, file: &[u8]) -> Value {
        let (etag, filename) = (etag(file), filename(file));
        self.import(json!({ "action": "ingest", "etag": etag, "filename": filename }))
            .await
    }

    async fn poll(&self) -> Value {
        self.poll_at(&bookmark().to_string()).await
    }

    async fn poll_at(&self, at: &str) -> Value {
        self.import(json!({ "action": "poll", "current_bookmark": at }))
            .await
    }

    /// Sends a file to where `init` says.
    async fn upload(&self, file: &[u8]) -> Got {
        let invited = self.init(file).await;
        let url = invited["upload_url"].as_str().expect("a link");
        self.put(url, file.to_vec()).await
    }

    async fn put(&self, url: &str, file: Vec<u8>) -> Got {
        let path = url.strip_prefix(&self.base).expect("it leads back");
        self.ask_with(Method::PUT, path, file).send().await
    }

    async fn export(&self, body: Value) -> Value {
        let path = format!("{DATABASES}/shop/export");
        self.post(&path, body.to_string()).send().await.result()
    }

    fn spooled(&self) -> usize {
        let files = std::fs::read_dir(self.directory.path().join("spool"));
        files.unwrap().count()
    }

    /// Waits until so many files are there.
    async fn has_files(&self, count: usize) {
        let there = async {
            while self.spooled() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(crate::server::PATIENCE, there).await;
        assert!(waited.is_ok(), "{} files, not {count}", self.spooled());
    }

    /// The files that it was told to run.
    fn scripts(&self) -> Vec<Execute> {
        let mut executed = self.node.executed();
        executed.retain(|execute| execute.rules == Rules::Script);
        executed
    }
}

fn etag(file: &[u8]) -> String {
    let hash: [u8; 16] = Md5::digest(file).into();
    format!("{:032x}", u128::from_be_bytes(hash))
}

fn filename(file: &[u8]) -> String {
    format!("{KNOWN}.{}.sql", etag(file))
}

fn ran(num_queries: u64) -> Bytes {
    let meta = json!({ "duration": 1.5, "rows_read": 1, "rows_written": 2, "size_after": 8192 });
    let element =
        json!({ "results": [], "success": true, "meta": meta, "num_queries": num_queries });
    Bytes::from(json!([element]).to_string())
}

#[tokio::test]
async fn uploaded_file_is_imported_once_and_its_end_told_to_whoever_lost_it() {
    let world = World::leading().await;
    world.node.script_files([Turn::Answer(ran(2))]);
    let invited = world.init(SQL.as_bytes()).await;
    assert_eq!(invited["success"], json!(true));
    assert_eq!(invited["type"], json!("import"));
    assert_eq!(invited["filename"], json!(filename(SQL.as_bytes())));
    assert_eq!(invited["messages"], json!([]));
    let url = invited["upload_url"].as_str().unwrap();
    for _ in 0..2 {
        let put = world.put(url, SQL.into()).await;
        assert_eq!(put.status.as_u16(), 200, "{}", put.text());
        let quoted = format!("\"{}\"", etag(SQL.as_bytes()));
        assert_eq!(put.header("etag"), Some(quoted.as_str()));
    }
    world.has_files(1).await;

    let ended = world.ingest(SQL.as_bytes()).await;
    assert_eq!(ended["status"], json!("complete"), "{ended}");
    assert_eq!(ended["success"], json!(true));
    assert_eq!(ended["at_bookmark"], json!(bookmark().to_string()));
    let messages = json!(["Starting import...", "Processed 2 queries."]);
    assert_eq!(ended["messages"], messages);
    let result = &ended["result"];
    assert_eq!(result["num_queries"], json!(2));
    assert_eq!(result["final_bookmark"], json!(bookmark().to_string()));
    assert_eq!(result["meta"]["duration"], json!(1.5));

    let [script] = world.scripts().try_into().unwrap();
    assert_eq!(script.statements[0].sql, SQL);
    assert!(script.request.is_some());
    world.has_files(0).await;
    // An answer may be lost on its way.
    for again in [world.poll().await, world.ingest(SQL.as_bytes()).await] {
        assert_eq!(again, ended);
    }
    let told = world.poll_at("of another").await;
    assert_eq!(told["success"], json!(false));
    assert_eq!(told["error"], json!(NOT_IMPORTING));
    // Begun again, it is another import: with a file of its own.
    assert!(world.init(SQL.as_bytes()).await["upload_url"].is_string());
    let other = b"SELECT 1";
    let refused = world.ingest(other).await;
    let error = refused["error"].as_str().unwrap();
    assert!(error.starts_with("Input file "), "{error}");
    assert!(error.ends_with(".sql missing or invalid"), "{error}");
    assert_eq!(world.scripts().len(), 1);
    world.node.script_files([Turn::Answer(ran(3))]);
    world.put(url, SQL.into()).await;
    let ended = world.ingest(SQL.as_bytes()).await;
    assert_eq!(ended["result"]["num_queries"], json!(3));
    assert_eq!(world.scripts().len(), 2);
}

#[tokio::test]
async fn import_asked_for_with_a_request_id_counts_once_over_a_change_of_leader() {
    let leader = World::leading().await;
    let follower = World::behind(&leader).await;
    let id = "0192f3a4-5b6c-4d8e-9fa0-b1c2d3e4f5aa";
    for world in [&leader, &follower] {
        leader.node.script_files([Turn::Repeat("[]".into())]);
        world.upload(SQL.as_bytes()).await;
        let (etag, filename) = (etag(SQL.as_bytes()), filename(SQL.as_bytes()));
        let ingest = json!({ "action": "ingest", "etag": etag, "filename": filename });
        let path = format!("{DATABASES}/shop/import");
        let ended = world
            .post(&path, ingest.to_string())
            .header("tidemark-request-id", id)
            .send()
            .await
            .result();
        // The node has forgotten its answer, not that it was done.
        assert_eq!(ended["status"], json!("complete"), "{ended}");
        assert_eq!(ended["result"]["num_queries"], json!(0));
        assert!(ended["result"]["meta"].is_object());
        let last = leader.scripts().pop().unwrap();
        assert_eq!(last.request.map(|id| id.to_string()), Some(id.to_owned()));
    }
    // What the gateway reads beside is not done under it.
    let executed = leader.node.executed();
    let reads = executed.iter().filter(|e| e.rules == Rules::Request);
    assert!(reads.clone().count() > 0);
    assert!(reads.into_iter().all(|read| read.request.is_none()));
}

#[tokio::test]
async fn upload_tried_again_through_another_node_keeps_its_request_id() {
    let leader = World::leading().await;
    let follower = World::behind(&leader).await;
    let unknown = Failure::new(FailureKind::Unknown, "whether it took effect is unknown");
    let turns = [Turn::Fail(unknown), Turn::Repeat(ran(2))];
    leader.node.script_files(turns);
    follower.upload(SQL.as_bytes()).await;
    assert_eq!(
        follower.ingest(SQL.as_bytes()).await["status"],
        json!("error")
    );
    let ended = follower.ingest(SQL.as_bytes()).await;
    assert_eq!(ended["status"], json!("complete"), "{ended}");
    let [first, second] = leader.scripts().try_into().unwrap();
    assert_eq!(first.request, second.request);
}

#[tokio::test]
async fn file_that_failed_is_begun_anew_by_whoever_comes_next() {
    let world = World::leading().await;
    let failure = Failure::new(FailureKind::Sql, "no such table: t: SQLITE_ERROR");
    let until = Arc::new(Semaphore::new(0));
    world.node.script_files([Turn::Fail(failure)]);
    world.upload(SQL.as_bytes()).await;
    let ended = world.ingest(SQL.as_bytes()).await;
    assert_eq!(ended["status"], json!("error"));
    // Whoever lost that answer is told again, whoever begins anew is not.
    assert_eq!(world.ingest(SQL.as_bytes()).await, ended);
    let held = Turn::Held(Arc::clone(&until), ran(2));
    world.node.script_files([held]);
    world.upload(SQL.as_bytes()).await;
    let begun = world.ingest(SQL.as_bytes()).await;
    assert_eq!(begun["status"], json!("active"), "{begun}");
    let mine = begun["at_bookmark"].as_str().unwrap();
    let first = ended["at_bookmark"].as_str().unwrap();
    assert_ne!(mine, first);
    assert_eq!(world.poll_at(first).await, ended);
    until.add_permits(1);
    assert_eq!(world.poll_at(mine).await["status"], json!("complete"));
}

#[tokio::test]
async fn upload_that_never_ends_ends_with_its_link() {
    let node = Double::leading();
    let bounds = |config: &mut SpoolConfig| config.age_max = Duration::from_millis(500);
    let world = World::with(node, bounds, |_| {}).await;
    let invited = world.init(SQL.as_bytes()).await;
    let url = invited["upload_url"].as_str().unwrap();
    let (address, path) = url["http://".len()..].split_once('/').unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = format!("PUT /{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let dripping = async {
        let (mut from, mut to) = client.split();
        let drip = async {
            loop {
                // Once it is refused nobody listens any more.
                let _ = to.write_all(b" ").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            read = from.read_exact(&mut answer) => read.map(drop),
            () = drip => unreachable!("it has no end"),
        }
    };
    let waited = tokio::time::timeout(crate::server::PATIENCE, dripping).await;
    waited.expect("in time").expect("an answer");
    assert!(!answer.ends_with(b"200"), "{answer:?}");
    world.has_files(0).await;
}

#[tokio::test]
async fn sender_of_a_file_without_a_place_gets_to_read_why() {
    let world = World::leading().await;
    let path = format!("/tidemark/v1/uploads/{}", "ab".repeat(16));
    let got = world
        .ask_with(Method::PUT, &path, vec![b' '; 20 << 20])
        .send();
    got.await.failure(404, 7400, "bad_request");
}

#[tokio::test]
async fn voter_that_knows_no_leader_does_not_say_that_a_link_is_bad() {
    let world = World::leading().await;
    world.node.not_ready();
    let secret = "ab".repeat(16);
    let path = format!("/tidemark/v1/uploads/{secret}");
    let got = world.ask_with(Method::PUT, &path, "x").send().await;
    got.failure(503, 7905, "unavailable");
    let got = world.get(&format!("/tidemark/v1/downloads/{secret}"));
    got.send().await.failure(503, 7905, "unavailable");
}

#[tokio::test]
async fn small_files_count_as_what_they_take() {
    let node = Double::leading();
    let bounds = |config: &mut SpoolConfig| config.bytes_max = 2 * 4096;
    let world = World::with(node, bounds, |_| {}).await;
    for (file, status) in [(b"1", 200), (b"2", 200), (b"3", 429)] {
        assert_eq!(world.upload(file).await.status.as_u16(), status);
    }
    let bounds = |config: &mut SpoolConfig| config.files_max = 1;
    let world = World::with(Double::leading(), bounds, |_| {}).await;
    assert_eq!(world.upload(b"1").await.status.as_u16(), 200);
    let message = world.upload(b"2").await.failure(429, 7500, "overloaded");
    assert!(message.starts_with("1 files are in transit"), "{message}");
}

#[tokio::test]
async fn file_that_is_there_is_imported_without_an_upload() {
    let world = World::leading().await;
    world.node.script_files([Turn::Answer(ran(2))]);
    world.upload(SQL.as_bytes()).await;
    let ended = world.init(SQL.as_bytes()).await;
    assert_eq!(ended.get("upload_url"), None);
    assert_eq!(ended["status"], json!("complete"), "{ended}");
}

#[tokio::test]
async fn import_goes_on_between_polls_and_is_the_only_one() {
    let world = World::leading().await;
    let until = Arc::new(Semaphore::new(0));
    let held = Turn::Held(Arc::clone(&until), ran(2));
    world.node.script_files([held]);
    world.upload(SQL.as_bytes()).await;
    let other = b"SELECT 1";
    world.upload(other).await;
    let begun = world.ingest(SQL.as_bytes()).await;
    assert_eq!(begun["status"], json!("active"));
    assert_eq!(begun["messages"], json!(["Starting import..."]));
    // What is asked twice is done once.
    let at = begun["at_bookmark"].as_str().unwrap();
    assert_eq!(world.poll_at("x").await["error"], json!(NOT_IMPORTING));
    for again in [
        world.ingest(SQL.as_bytes()).await,
        world.init(SQL.as_bytes()).await,
        world.poll_at(at).await,
    ] {
        assert_eq!(again["status"], json!("active"));
        assert_eq!(again["messages"], json!([]));
    }
    let busy = world.ingest(other).await;
    let words = "Currently processing a long-running import.";
    assert_eq!(
        (&busy["success"], &busy["error"]),
        (&json!(false), &json!(words))
    );
    until.add_permits(1);
    assert_eq!(world.poll().await["status"], json!("complete"));
    assert_eq!(world.scripts().len(), 1);
}

#[tokio::test]
async fn failed_import_says_why_in_sqlites_words() {
    let world = World::leading().await;
    let words = "no such table: nope: SQLITE_ERROR";
    let failure = Failure::new(FailureKind::Sql, words);
    world.node.script_files([Turn::Fail(failure)]);
    world.upload(SQL.as_bytes()).await;
    let ended = world.ingest(SQL.as_bytes()).await;
    assert_eq!(ended["success"], json!(true));
    assert_eq!(ended["status"], json!("error"));
    assert_eq!(ended["error"], json!(words));
    assert_eq!(ended["errors"], json!([words]));
    assert_eq!(world.poll().await, ended);
    world.has_files(0).await;
}

#[tokio::test]
async fn import_of_unknown_outcome_is_tried_again_under_the_same_name() {
    let world = World::leading().await;
    let unknown = Failure::new(FailureKind::Unknown, "whether it took effect is unknown");
    let turns = [Turn::Fail(unknown), Turn::Panic, Turn::Repeat(ran(2))];
    world.node.script_files(turns);
    world.upload(SQL.as_bytes()).await;
    assert_eq!(world.init(SQL.as_bytes()).await["status"], json!("error"));
    assert_eq!(world.init(SQL.as_bytes()).await["status"], json!("error"));
    let ended = world.init(SQL.as_bytes()).await;
    assert_eq!(ended["status"], json!("complete"));
    let requests: Vec<Option<RequestId>> = world.scripts().iter().map(|s| s.request).collect();
    assert_eq!(requests, [requests[0]; 3]);
    assert!(requests[0].is_some());
}

#[tokio::test]
async fn bytes_that_are_no_text_are_not_run() {
    let world = World::leading().await;
    let file = b"SELECT '\xff'";
    world.upload(file).await;
    let ended = world.ingest(file).await;
    assert_eq!(ended["status"], json!("error"));
    let words = "the file is not UTF-8: byte 8 is 0xff";
    assert_eq!(ended["error"], json!(words));
    assert!(world.scripts().is_empty());

    // The mark at the beginning is no part of the text.
    world.node.script_files([Turn::Answer(ran(1))]);
    let marked = "\u{feff}SELECT 1".as_bytes();
    world.upload(marked).await;
    world.ingest(marked).await;
    assert_eq!(world.scripts()[0].statements[0].sql, "SELECT 1");
}

#[tokio::test]
async fn file_of_another_hash_is_dropped() {
    let world = World::leading().await;
    let invited = world.init(SQL.as_bytes()).await;
    let url = invited["upload_url"].as_str().unwrap();
    let put = world.put(url, b"SELECT 2".to_vec()).await;
    let message = put.failure(400, 7400, "bad_request");
    assert!(message.contains(&etag(b"SELECT 2")), "{message}");
    assert!(message.contains(&etag(SQL.as_bytes())), "{message}");
    world.has_files(0).await;
    let refused = world.ingest(SQL.as_bytes()).await;
    assert_eq!(refused["success"], json!(false));
}

#[tokio::test]
async fn file_that_breaks_off_is_dropped_at_whichever_node_it_came_in() {
    let leader = World::leading().await;
    let follower = World::behind(&leader).await;
    for world in [&leader, &follower] {
        let invited = world.init(SQL.as_bytes()).await;
        let url = invited["upload_url"].as_str().unwrap();
        let (address, path) = url["http://".len()..].split_once('/').unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("PUT /{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&[b' '; 5000]).await.unwrap();
        leader.has_files(1).await;
        drop(client);
        leader.has_files(0).await;
        assert!(world.init(SQL.as_bytes()).await["upload_url"].is_string());
    }
}

#[tokio::test]
async fn file_over_a_bound_is_refused_with_both_values() {
    let node = Double::leading();
    let bounds = |config: &mut SpoolConfig| {
        config.import_bytes_max = 12_000;
        config.bytes_max = 10_900 + 4096;
    };
    let world = World::with(node, bounds, |_| {}).await;
    let put = world.upload(&[b' '; 12_001]).await;
    let message = put.failure(413, 7907, "too_large");
    assert!(message.contains("12001 bytes"), "{message}");
    assert!(message.contains("12000 bytes"), "{message}");

    assert_eq!(world.upload(&[b' '; 10_900]).await.status.as_u16(), 200);
    let put = world.upload(&[b' '; 5000]).await;
    let message = put.failure(429, 7500, "overloaded");
    assert!(message.contains("14996 bytes already"), "{message}");
    assert!(message.contains("limit is 14996 bytes"), "{message}");
    assert!(put.header("retry-after").is_some());
    world.has_files(1).await;
    assert_eq!(world.upload(&[b' '; 60]).await.status.as_u16(), 200);
}

#[tokio::test]
async fn last_of_the_disk_is_left_to_the_log() {
    let node = Double::leading();
    let bounds = |config: &mut SpoolConfig| config.free_bytes_min = u64::MAX / 2;
    let world = World::with(node, bounds, |_| {}).await;
    let put = world.upload(SQL.as_bytes()).await;
    let message = put.failure(500, 7500, "internal");
    assert!(message.contains("are kept for its log"), "{message}");
    world.has_files(0).await;
}

#[tokio::test]
async fn what_an_earlier_process_left_is_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let others = ["precious.sql", ".sql", "7.db"];
    for name in ["7.sql", "18.sql"].iter().chain(&others) {
        std::fs::write(directory.path().join(name), "x").unwrap();
    }
    Spool::open(SpoolConfig::new(directory.path().to_owned())).unwrap();
    for name in others {
        assert!(directory.path().join(name).exists(), "{name}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn files_leave_when_their_hour_is_over() {
    let node = Double::leading();
    let bounds = |config: &mut SpoolConfig| config.age_max = Duration::from_millis(300);
    let world = World::with(node, bounds, |_| {}).await;
    let invited = world.init(SQL.as_bytes()).await;
    let url = invited["upload_url"].as_str().unwrap();
    assert_eq!(world.put(url, SQL.into()).await.status.as_u16(), 200);
    world.has_files(0).await;
    assert_eq!(world.put(url, SQL.into()).await.status.as_u16(), 404);
}

#[tokio::test]
async fn links_lead_to_the_host_that_the_client_used() {
    let world = World::leading().await;
    let init = json!({ "action": "init", "etag": etag(SQL.as_bytes()) }).to_string();
    let path = format!("{DATABASES}/shop/import");
    let ask = || world.post(&path, init.clone());
    let proxied = ask()
        .header("x-forwarded-host", "db.example.com:8443, inner")
        .header("x-forwarded-proto", "https")
        .send()
        .await
        .result();
    let url = proxied["upload_url"].as_str().unwrap();
    let (head, secret) = url.rsplit_once('/').unwrap();
    assert_eq!(head, "https://db.example.com:8443/tidemark/v1/uploads");
    assert_eq!(secret.len(), 32);
    for bad in ["a b", "user@host", ""] {
        let got = ask().header("x-forwarded-host", bad).send().await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(message.contains("x-forwarded-host"), "{message}");
    }
}

#[tokio::test]
async fn every_node_imports_and_exports_through_the_one_that_leads() {
    let leader = World::leading().await;
    let follower = World::behind(&leader).await;
    // Larger than any request's body may be.
    let file = vec![b' '; 40 << 20];
    leader.node.script_files([Turn::Answer(ran(1))]);
    let put = follower.upload(&file).await;
    assert_eq!(put.status.as_u16(), 200, "{}", put.text());
    assert_eq!(
        put.header("tidemark-served-by"),
        Some("WEUR/primary/00000000000000a1")
    );
    assert_eq!((leader.spooled(), follower.spooled()), (1, 0));
    let ended = follower.ingest(&file).await;
    assert_eq!(ended["status"], json!("complete"), "{ended}");
    assert_eq!(follower.poll().await, ended);
    assert_eq!(leader.scripts().len(), 1);
    assert!(follower.scripts().is_empty());

    leader
        .node
        .script_exports([Turn::Answer(Bytes::from_static(b"SELECT 1;\n"))]);
    let ended = follower.export(json!({ "output_format": "polling" })).await;
    let url = ended["result"]["signed_url"].as_str().unwrap();
    let path = url.strip_prefix(&follower.base).expect("it leads back");
    let got = follower.get(path).send().await;
    assert_eq!(got.text(), "SELECT 1;\n");
    assert_eq!(got.header("content-length"), Some("10"));
}

#[tokio::test]
async fn unknown_link_leads_nowhere_at_any_node() {
    let leader = World::leading().await;
    let follower = World::behind(&leader).await;
    let unknown = "0123456789abcdef0123456789abcdef";
    for world in [&leader, &follower] {
        for secret in [unknown, "short", "%ff"] {
            let path = format!("/tidemark/v1/uploads/{secret}");
            let got = world.ask_with(Method::PUT, &path, "x").send().await;
            got.failure(404, 7400, "bad_request");
            let got = world
                .get(&format!("/tidemark/v1/downloads/{secret}"))
                .send();
            got.await.failure(404, 7400, "bad_request");
        }
    }
    // A ring of nodes that each believe in another must not spin.
    for method in [Method::PUT, Method::GET] {
        let folder = if method == Method::PUT {
            "uploads"
        } else {
            "downloads"
        };
        let path = format!("/tidemark/v1/{folder}/{unknown}");
        let got = follower
            .ask_with(method, &path, "")
            .passed_on()
            .send()
            .await;
        got.failure(503, 7905, "unavailable");
        assert_eq!(
            got.header("tidemark-served-by"),
            Some("WEUR/primary/00000000000000a1")
        );
    }
}

#[tokio::test]
async fn upload_whose_way_is_cut_may_be_sent_again() {
    let leader = World::leading().await;
    let follower = World::behind(&leader).await;
    let invited = follower.init(SQL.as_bytes()).await;
    let url = invited["upload_url"].as_str().unwrap();
    follower.node.follow(Some("http://127.0.0.1:9".to_owned()));
    let put = follower.put(url, SQL.into()).await;
    put.failure(503, 7905, "unavailable");
    follower.node.follow(Some(leader.base.clone()));
    assert_eq!(follower.put(url, SQL.into()).await.status.as_u16(), 200);
}

#[tokio::test]
async fn links_need_no_token_and_all_else_does() {
    let node = Double::leading();
    let token = |config: &mut GatewayConfig| config.tokens = vec!["secret".to_owned()];
    let world = World::with(node, |_| {}, token).await;
    let got = world.import_got(json!({ "action": "poll" })).await;
    got.failure(401, 10000, "unauthenticated");
    let init = json!({ "action": "init", "etag": etag(SQL.as_bytes()) });
    let path = format!("{DATABASES}/shop/import");
    let invited = world
        .post(&path, init.to_string())
        .header("authorization", "Bearer secret")
        .send()
        .await
        .result();
    let url = invited["upload_url"].as_str().unwrap();
    assert_eq!(world.put(url, SQL.into()).await.status.as_u16(), 200);
}

#[tokio::test]
async fn request_that_makes_no_sense_is_refused() {
    let world = World::leading().await;
    for (body, says) in [
        (json!({}), "action => Required"),
        (json!({ "action": "init" }), "etag => Required"),
        (json!({ "action": "init", "etag": "x" }), "etag => not 32"),
        (json!({ "action": "dance" }), "'dance'"),
        (json!({ "action": "poll" }), "current_bookmark => Required"),
        (
            json!({ "action": "ingest", "etag": etag(b"") }),
            "filename => Required",
        ),
    ] {
        let got = world.import_got(body).await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(message.contains(says), "{message}");
    }
    let path = format!("{DATABASES}/nope/import");
    let got = world
        .post(&path, r#"{"action":"poll","current_bookmark":""}"#)
        .send()
        .await;
    got.failure(404, 7404, "no_database");
    let path = format!("{DATABASES}/shop/export");
    let wish =
        |tables: Value| json!({ "output_format": "polling", "dump_options": { "tables": tables } });
    for tables in [json!(vec!["t"; 1001]), json!(["t".repeat(1025)])] {
        let got = world.post(&path, wish(tables).to_string()).send().await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(message.contains("dump_options.tables"), "{message}");
    }
    for body in ["{}", r#"{"output_format":"file"}"#] {
        let got = world.post(&path, body).send().await;
        let message = got.failure(400, 7400, "bad_request");
        assert!(message.contains("output_format"), "{message}");
    }
    let other = json!({ "action": "ingest", "etag": etag(b""), "filename": "x.sql" });
    let refused = world.import(other).await;
    assert_eq!(
        refused["error"],
        json!("Input file x.sql missing or invalid")
    );
}

#[tokio::test]
async fn node_without_a_spool_says_so() {
    let server = Server::start(Double::leading()).await;
    let init = json!({ "action": "init", "etag": etag(b"") });
    let path = format!("{DATABASES}/shop/import");
    let got = server.post(&path, init.to_string()).send().await;
    let message = got.failure(400, 7400, "bad_request");
    assert!(message.contains("spool"), "{message}");
}

#[tokio::test]
async fn export_is_polled_to_its_end_and_fetched_under_a_link() {
    let world = World::leading().await;
    let until = Arc::new(Semaphore::new(0));
    let text = Bytes::from("CREATE TABLE t (a);\nINSERT INTO t VALUES('ü');\n");
    world
        .node
        .script_exports([Turn::Held(Arc::clone(&until), text.clone())]);
    let wanted =
        json!({ "no_schema": false, "no_data": true, "tables": ["t"], "compatibility": "d1" });
    let begin = json!({ "output_format": "polling", "dump_options": wanted });
    let begun = world.export(begin.clone()).await;
    assert_eq!(begun["success"], json!(true));
    assert_eq!(begun["type"], json!("export"));
    assert_eq!(begun["status"], json!("active"));
    let at = begun["at_bookmark"].as_str().unwrap();
    let busy = world.export(begin).await;
    assert_eq!(busy["success"], json!(false));
    let error = busy["error"].as_str().unwrap();
    assert!(error.starts_with("Currently processing a long-running export."));
    until.add_permits(1);
    let poll = json!({ "output_format": "polling", "current_bookmark": at });
    let ended = world.export(poll.clone()).await;
    assert_eq!(ended["status"], json!("complete"), "{ended}");
    let [options] = world.node.exported().try_into().unwrap();
    let asked = DumpOptions {
        no_schema: false,
        no_data: true,
        tables: vec!["t".to_owned()],
    };
    assert_eq!(options, asked);

    let name = format!("{KNOWN}.{}.sql", bookmark());
    assert_eq!(ended["result"]["filename"], json!(name));
    let url = ended["result"]["signed_url"].as_str().unwrap();
    let path = url.strip_prefix(&world.base).unwrap();
    assert!(path.starts_with("/tidemark/v1/downloads/"), "{path}");
    for _ in 0..2 {
        let got = world.get(path).send().await;
        assert_eq!(got.status.as_u16(), 200);
        assert_eq!(got.body, text);
        let disposition = format!("attachment; filename=\"{name}\"");
        assert_eq!(
            got.header("content-disposition"),
            Some(disposition.as_str())
        );
    }
    // An answer may be lost on its way; nobody is told of another's.
    let again = world.export(poll.clone()).await;
    assert_eq!(again["result"]["filename"], json!(name));
    world
        .node
        .script_exports([Turn::Answer(Bytes::from_static(b"SELECT 1;\n"))]);
    let other = world.export(json!({ "output_format": "polling" })).await;
    assert_ne!(other["at_bookmark"], json!(at));
    let first = world.export(poll).await;
    assert_eq!(first["result"]["signed_url"], json!(url));
    let at = "of another";
    let unknown = json!({ "output_format": "polling", "current_bookmark": at });
    let told = world.export(unknown).await;
    assert_eq!(told["error"], json!("Not currently exporting anything."));
}

#[tokio::test]
async fn failed_export_says_why() {
    let node = Double::leading();
    let bounds = |config: &mut SpoolConfig| config.bytes_max = 5000;
    let world = World::with(node, bounds, |_| {}).await;
    let words = "D1 Export error: table 'x' does not keep its content";
    let long = Bytes::from_static(&[b' '; 6000]);
    world.node.script_exports([
        Turn::Fail(Failure::new(FailureKind::BadRequest, words)),
        Turn::Answer(long),
        Turn::Panic,
    ]);
    let begin = json!({ "output_format": "polling" });
    let ended = world.export(begin.clone()).await;
    assert_eq!(ended["status"], json!("error"));
    assert_eq!(ended["error"], json!(words));
    let full = world.export(begin.clone()).await;
    let error = full["error"].as_str().unwrap();
    assert!(error.contains("the limit is 5000 bytes"), "{error}");
    assert_eq!(world.export(begin).await["status"], json!("error"));
    world.has_files(0).await;
}
