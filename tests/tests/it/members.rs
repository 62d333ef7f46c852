//! Who is in a cell: beginning, joining, leaving, handing over, and a disk that was lost.
//!
//! What is at stake: a voter that forgot what it promised must not vote again; a change of the voters, or a
//! graceful stop, must neither lose an acknowledged write nor fail one.
#![allow(clippy::unwrap_used)]

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidemark_client::Client;
use tidemark_tests::{Growing, wait};
use tokio::task::JoinHandle;

use crate::PROGRAM;

const WRITERS: usize = 4;

/// Clients that write as long as they are let, with default settings: none of their requests may fail.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
    tasks: Vec<JoinHandle<i64>>,
}

impl Writers {
    async fn start(client: &Client) -> Self {
        client.create_database("chains").await.unwrap();
        let table = "CREATE TABLE chain (writer INTEGER, n INTEGER, PRIMARY KEY (writer, n))";
        client
            .database("chains")
            .prepare(table)
            .run()
            .await
            .unwrap();
        let mut writers = Self {
            stop: Arc::default(),
            acknowledged: Arc::default(),
            tasks: Vec::new(),
        };
        for number in 0..WRITERS {
            let (stop, acknowledged) = (writers.stop.clone(), writers.acknowledged.clone());
            let database = client.database("chains");
            writers.tasks.push(tokio::spawn(async move {
                let number = i64::try_from(number).unwrap();
                for n in 1_i64.. {
                    if stop.load(Ordering::Relaxed) {
                        return n - 1;
                    }
                    let insert = database.prepare("INSERT INTO chain VALUES (?, ?)");
                    let written = insert.bind(number).bind(n).run().await;
                    written.unwrap_or_else(|error| panic!("writer {number}, row {n}: {error}"));
                    lock(&acknowledged).push(Instant::now());
                }
                unreachable!("it counts for ever")
            }));
        }
        writers
    }

    /// Waits until `more` writes are acknowledged. Panics if a writer has ended meanwhile.
    async fn progress(&self, more: usize) {
        let goal = lock(&self.acknowledged).len() + more;
        wait::soon("writes are acknowledged", async || {
            let ended = self.tasks.iter().any(JoinHandle::is_finished);
            assert!(!ended, "a writer ended early");
            (lock(&self.acknowledged).len() >= goal).then_some(())
        })
        .await;
    }

    /// The longest time without an acknowledgement since `from`.
    fn pause_since(&self, from: Instant) -> Duration {
        let mut moments = lock(&self.acknowledged).clone();
        moments.sort_unstable();
        let pairs = moments.windows(2).filter(|pair| pair[1] >= from);
        pairs
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }

    /// Stops them, and checks at `client` that every acknowledged row is there, once.
    async fn stop(self, client: &Client) {
        self.stop.store(true, Ordering::Relaxed);
        let mut expected = Vec::new();
        for (number, task) in self.tasks.into_iter().enumerate() {
            let last = task.await.expect("none of its requests fails");
            expected.push((i64::try_from(number).unwrap(), last, last));
        }
        let sql = "SELECT writer, max(n), count(*) FROM chain GROUP BY writer ORDER BY writer";
        let database = client.database("chains");
        let found = database
            .prepare(sql)
            .all::<(i64, i64, i64)>()
            .await
            .unwrap();
        assert_eq!(found.rows, expected);
    }
}

fn lock(moments: &Mutex<Vec<Instant>>) -> std::sync::MutexGuard<'_, Vec<Instant>> {
    moments.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cell of three voters, a client of all of them, and its writers.
async fn three_at_work() -> (Growing, Client, Writers) {
    let mut cell = Growing::new(PROGRAM);
    cell.begin_with_three().await;
    let client = cell.client(&[1, 2, 3]);
    let writers = Writers::start(&client).await;
    writers.progress(20).await;
    (cell, client, writers)
}

/// What a command printed, either way.
fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_whose_disk_was_lost_is_refused_and_the_cell_goes_on() {
    let (mut cell, client, writers) = three_at_work().await;
    let leader = cell.leader().await;
    // The lowest id is the one that would begin a new cell.
    let victim = if leader == 1 { 2 } else { 1 };
    cell.node(victim).kill();
    cell.lose_disk(victim);
    cell.node(victim).start();
    let (ended, log) = cell.end(victim).await;
    assert!(!ended.success());
    assert!(log.contains("of this cell had another disk"), "{log}");
    writers.progress(20).await;
    writers.stop(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn different_lists_of_voters_are_refused_by_name() {
    let mut cell = Growing::new(PROGRAM);
    for id in 1..=4 {
        cell.add(id);
    }
    let (one, other) = (cell.list(&[1, 2, 3]), cell.list(&[1, 2, 4]));
    cell.tell(1, &["--voter", &one]);
    cell.tell(2, &["--voter", &other]);
    cell.node(1).start();
    cell.node(2).start();
    // Whichever asks first; the other may find nobody to ask any more.
    let ended = wait::soon("one of them ends", async || {
        [1, 2]
            .into_iter()
            .find(|id| cell.node(*id).ended().is_some())
    });
    let first = ended.await;
    let (ended, log) = cell.end(first).await;
    assert!(!ended.success());
    assert!(log.contains(&one) && log.contains(&other), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_voter_grows_to_three_under_writes_and_survives_its_loss() {
    let mut cell = Growing::new(PROGRAM);
    cell.add(1).start();
    cell.node(1).ready().await;
    let alone = cell.client(&[1]);
    let writers = Writers::start(&alone).await;
    writers.progress(50).await;
    // Both at once: one change at a time, the other waits its turn.
    cell.join(2, 1, None);
    cell.join(3, 1, None);
    cell.has_voters(&[1, 2, 3]).await;
    writers.progress(50).await;
    writers.stop(&alone).await;
    cell.verified(&[1, 2, 3]).await;

    // What it was told at first counts no more: it votes already.
    cell.node(2).kill_and_restart().await;
    cell.node(1).kill();
    let left = cell.client(&[2, 3]);
    let count = left.database("chains");
    let count = count
        .prepare("SELECT count(*) FROM chain")
        .first::<(i64,)>();
    assert!(count.await.unwrap().unwrap().0 >= 100);
    let status = cell.command(&["status"], &[2, 3]).await;
    assert_done(&status);
    assert!(text(&status).contains("leader"), "{}", text(&status));
}

/// Its state comes by pages: the log that led there is gone.
#[tokio::test(flavor = "multi_thread")]
async fn empty_voter_joins_under_writes_though_the_log_no_longer_reaches_back() {
    let mut cell = Growing::new(PROGRAM);
    cell.add(1).start();
    cell.node(1).ready().await;
    let alone = cell.client(&[1]);
    alone.create_database("large").await.unwrap();
    let large = alone.database("large");
    let table = "CREATE TABLE fill (n INTEGER PRIMARY KEY, content BLOB)";
    large.prepare(table).run().await.unwrap();
    // Each makes the log 16 MB longer; it is cut every 256 MiB.
    let fill = "INSERT OR REPLACE INTO fill VALUES (1, randomblob(16000000))";
    let api = cell.node(1).api();
    let purged = async || api.metric("tidemark_log_purged_index").await.unwrap();
    while purged().await.unwrap_or(0.0) == 0.0 {
        large.prepare(fill).run().await.unwrap();
    }
    let writers = Writers::start(&alone).await;
    writers.progress(50).await;
    cell.join(2, 1, None);
    cell.has_voters(&[1, 2]).await;
    writers.progress(50).await;
    writers.stop(&alone).await;
    cell.verified(&[1, 2]).await;
    let taken = "tidemark_primary_taken_over_databases_total";
    let taken = cell.node(2).api().metric(taken).await.unwrap();
    assert!(taken > Some(0.0), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_member_ends_and_its_id_is_spent() {
    let (mut cell, client, writers) = three_at_work().await;
    // The leader: it hands over first.
    let leader = cell.leader().await;
    let id = leader.to_string();
    assert_done(&cell.command(&["remove", &id], &[1, 2, 3]).await);
    let (ended, log) = cell.end(leader).await;
    assert!(!ended.success());
    assert!(log.contains("was removed from its cell"), "{log}");
    let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cell.has_voters(&rest).await;
    // Asked twice, it is done already.
    assert_done(&cell.command(&["remove", &id], &rest).await);
    writers.progress(20).await;
    writers.stop(&client).await;

    cell.lose_disk(leader);
    let url = cell.url(rest[0]);
    cell.tell(leader, &["--join", &url]);
    cell.node(leader).start();
    let (ended, log) = cell.end(leader).await;
    assert!(!ended.success());
    assert!(log.contains("take a new id"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_voter_is_replaced_under_writes() {
    let (mut cell, client, writers) = three_at_work().await;
    let leader = cell.leader().await;
    cell.node(leader).kill();
    let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cell.join(4, rest[0], Some(leader));
    let voters = [rest[0], rest[1], 4];
    cell.has_voters(&voters).await;
    writers.progress(20).await;
    writers.stop(&client).await;
    cell.verified(&voters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_that_leaves_no_majority_alive_is_refused() {
    let mut cell = Growing::new(PROGRAM);
    cell.begin_with_three().await;
    let leader = cell.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cell.node(others[0]).kill();
    // Until its silence counts.
    let id = others[1].to_string();
    wait::soon("the dead voter is counted as dead", async || {
        let cell = cell.look(leader).await?;
        let dead = cell.members.iter().find(|m| m.node.0 == others[0])?;
        (dead.silent_ms? > 3_000).then_some(())
    })
    .await;
    let refused = cell.command(&["remove", &id], &[leader]).await;
    assert!(!refused.status.success());
    let text = text(&refused);
    assert!(text.contains("only 1 of 2 voters are alive"), "{text}");
    // The dead one may go: those who stay are alive.
    let dead = others[0].to_string();
    assert_done(&cell.command(&["remove", &dead], &[leader]).await);
    let mut voters = [leader, others[1]];
    voters.sort_unstable();
    cell.has_voters(&voters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restart_fails_no_request() {
    let (mut cell, client, writers) = three_at_work().await;
    // The leader each time, then everybody.
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let leader = cell.leader().await;
        let told = Instant::now();
        cell.node(leader).stop().await;
        writers.progress(50).await;
        pauses.push(writers.pause_since(told));
        cell.node(leader).start();
        cell.node(leader).ready().await;
    }
    for id in 1..=3 {
        cell.node(id).stop().await;
        cell.node(id).start();
        cell.node(id).ready().await;
        writers.progress(20).await;
    }
    eprintln!("longest pause of four writers when the leader is told to stop: {pauses:?}");
    writers.stop(&client).await;
    cell.verified(&[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_to_the_voter_that_was_named() {
    let mut cell = Growing::new(PROGRAM);
    cell.begin_with_three().await;
    let leader = cell.leader().await;
    let next = if leader == 3 { 1 } else { leader + 1 };
    let id = next.to_string();
    // Asked at a follower: it says who leads.
    let done = cell.command(&["transfer", &id], &[next]).await;
    assert_done(&done);
    assert!(
        text(&done).contains(&format!("{id} leads now")),
        "{}",
        text(&done)
    );
    wait::soon("the named one serves", async || {
        (cell.leader().await == next).then_some(())
    })
    .await;
    let status = cell.command(&["status", "--json"], &[leader]).await;
    assert_done(&status);
    let shown: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(shown["leader"], next);
    assert_eq!(shown["members"].as_array().unwrap().len(), 3);
    let nobody = cell.command(&["remove", "77"], &[leader]).await;
    assert!(!nobody.status.success());
    assert!(
        text(&nobody).contains("is no member of this cell"),
        "{}",
        text(&nobody)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_node_goes_on_after_a_restart_and_begins_no_cell_of_its_own() {
    let mut cell = Growing::new(PROGRAM);
    cell.add(1);
    cell.join(2, 1, None);
    wait::soon("it finds nobody to ask", async || {
        let waits = cell
            .node(2)
            .log()
            .contains("does not take this node in yet");
        waits.then_some(())
    })
    .await;
    cell.node(2).kill();
    // Somebody forgets what it was made for.
    cell.tell(2, &[]);
    cell.node(2).start();
    let (ended, log) = cell.end(2).await;
    assert!(!ended.success());
    assert!(log.contains("was made to join a cell"), "{log}");

    let url = cell.url(1);
    cell.tell(2, &["--join", &url]);
    cell.node(2).start();
    cell.node(1).start();
    cell.has_voters(&[1, 2]).await;
}
