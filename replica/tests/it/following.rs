//! Following the stream: what is committed at the source becomes readable at the replica, whatever
//! happens to the connection.

use tidemark_protocol::node::{ListDatabases, Node};
use tidemark_protocol::{DatabaseId, Executed, OnMiss, Why};

use crate::world::{DB, World, at_least, unconstrained};

#[tokio::test(flavor = "multi_thread")]
async fn committed_write_becomes_readable_and_is_confirmed() {
    let world = World::new().await;
    let written = world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    let bookmark = world.source.bookmark(DB);
    let answer = world.answer(at_least("SELECT v FROM t", bookmark)).await;
    assert_eq!(crate::world::first_value(&answer), "one");
    assert_eq!(
        answer.bookmark, bookmark,
        "the answer names the state that was read"
    );
    world
        .eventually("confirmed", async || {
            world.source.state().seen.applied.get(&DB) == Some(&written)
        })
        .await;
    world
        .eventually("heartbeat echoed", async || {
            world.source.state().seen.echoes > 0
        })
        .await;
    assert!(world.metric("tidemark_replica_applied_transactions") >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_is_applied_merged_and_the_files_are_identical_after_checkpoint() {
    let mut world = World::new().await;
    world.source.pause();
    for id in 0..500 {
        world.source.write(
            DB,
            &format!("INSERT INTO t VALUES ({id}, hex(randomblob(200)))"),
            vec![],
        );
    }
    world
        .source
        .write(DB, "DELETE FROM t WHERE id % 3 = 0", vec![]);
    world.source.resume();
    world.caught_up(DB).await;
    let verification = world.node().verify(DB).await.unwrap();
    assert!(verification.intact, "{verification:?}");
    assert_eq!(verification.position, world.source.position(DB));
    world.stop().await;
    let copy = std::fs::read(world.files_of(DB).join("main.db")).unwrap();
    assert!(
        copy == world.source.file(DB),
        "the file differs from the source's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_lost_resumes_from_the_position_without_a_resync() {
    let world = World::new().await;
    world.source.pause();
    let before = world.source.position(DB);
    for id in 0..20 {
        world.source.hang_up();
        world
            .source
            .write(DB, &format!("INSERT INTO t VALUES ({id}, 'x')"), vec![]);
    }
    world.source.resume();
    world.caught_up(DB).await;
    let state = world.source.state();
    assert!(state.seen.hashes.is_empty(), "{:?}", state.seen.hashes);
    assert!(
        state.seen.follows.contains(&(DB, Some(before))),
        "{:?}",
        state.seen.follows
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_replica_serves_before_it_reaches_a_source_and_resumes() {
    let mut world = World::new().await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
    let bookmark = world.source.bookmark(DB);
    world.source.silence();
    world.restart().await;
    world.node().ready().unwrap();
    // The session's state is here: no source is needed for it.
    let value = world.value(at_least("SELECT v FROM t", bookmark)).await;
    assert_eq!(value, "one");

    world
        .source
        .write(DB, "INSERT INTO t VALUES (2, 'two')", vec![]);
    world.source.serve().await;
    world.caught_up(DB).await;
    assert!(world.source.state().seen.hashes.is_empty());
    assert_eq!(
        world.value(unconstrained("SELECT count(*) FROM t")).await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn new_replica_is_not_ready_until_it_has_a_catalogue() {
    let mut world = World::without_replica().await;
    world.source.silence();
    world.start().await;
    assert!(world.node().ready().is_err());
    assert_eq!(world.node().resolve("db"), None);
    world.source.serve().await;
    world
        .eventually("ready", async || world.node().ready().is_ok())
        .await;
    assert_eq!(world.node().resolve("db"), Some(DB));
}

#[tokio::test(flavor = "multi_thread")]
async fn created_database_appears_and_deleted_one_goes_with_its_files() {
    let world = World::new().await;
    let other = DatabaseId::from_bytes([0xd2; 16]);
    world.source.create(other, "other");
    world.source.write(other, "CREATE TABLE u(x)", vec![]);
    world
        .source
        .write(other, "INSERT INTO u VALUES (42)", vec![]);
    world
        .eventually("listed", async || {
            world.node().resolve("other") == Some(other)
        })
        .await;
    let mut request = at_least("SELECT x FROM u", world.source.bookmark(other));
    request.database = other;
    // On a busy machine the stream may be late, and such a read forwarded.
    let mut patient = request.clone();
    patient.on_miss = OnMiss::Error;
    assert_eq!(world.value(patient).await, 42);
    let info = world
        .node()
        .database("other")
        .await
        .unwrap()
        .expect("it is listed");
    assert_eq!((info.uuid, info.num_tables), (other, 1));
    let list = ListDatabases {
        name: None,
        offset: 0,
        limit: 1,
    };
    let list = world.node().databases(list).await.unwrap();
    assert_eq!((list.total, list.databases.len()), (2, 1));
    assert!(world.files_of(other).exists());

    // What a crash left of an earlier deletion goes too.
    let left = world.files_of(other).with_extension("deleted");
    std::fs::create_dir_all(left.join("half")).unwrap();
    world.source.delete(other);
    world
        .eventually("files gone", async || {
            !world.files_of(other).exists() && !left.exists()
        })
        .await;
    assert_eq!(world.node().resolve("other"), None);
    let executed = world.execute(request).await.unwrap();
    let unknown = Executed::Forward(Why::UnknownDatabase);
    assert_eq!(executed, unknown);
    assert!(world.source.state().seen.unfollows.contains(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn database_that_the_source_gets_later_than_its_catalogue_is_asked_for_again() {
    let world = World::new().await;
    let other = DatabaseId::from_bytes([0xd2; 16]);
    world.source.list(other, "other");
    world
        .eventually("asked", async || {
            world
                .source
                .state()
                .seen
                .follows
                .iter()
                .any(|(id, _)| *id == other)
        })
        .await;
    world.source.open(other);
    world.source.write(other, "CREATE TABLE u(x)", vec![]);
    world.caught_up(other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_source_is_left_and_found_again() {
    let world = World::new().await;
    let hellos = world.source.state().seen.hellos.len();
    world.source.state().beating = false;
    world
        .eventually("reconnected", async || {
            world.source.state().seen.hellos.len() > hellos
        })
        .await;
    assert!(world.metric("tidemark_replica_disconnects_total{reason=\"silent\"}") >= 1);
    world.source.state().beating = true;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    let mut request = at_least("SELECT v FROM t", world.source.bookmark(DB));
    request.on_miss = OnMiss::Error;
    assert_eq!(world.value(request).await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_pass_through_a_queue_smaller_than_they_are() {
    let world = World::new().await;
    for id in 0..3 {
        let sql = format!("INSERT INTO t VALUES ({id}, hex(zeroblob(8000000)))");
        world.source.write(DB, &sql, vec![]);
    }
    world.caught_up(DB).await;
    assert_eq!(
        world
            .value(unconstrained("SELECT sum(length(v)) FROM t"))
            .await,
        48_000_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_was_dropped_lets_go_of_its_files() {
    let mut world = World::new().await;
    drop(world.replica.take());
    // In the same process: only files that nobody holds any more can be opened.
    world.start().await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
    world.caught_up(DatabaseId::CATALOGUE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_databases_share_one_connection_and_survive_a_restart() {
    let mut world = World::new().await;
    let id = |number: u8| DatabaseId::from_bytes([number; 16]);
    for number in 1..=60 {
        world.source.create(id(number), &format!("many-{number}"));
        world.source.write(id(number), "CREATE TABLE u(x)", vec![]);
    }
    for number in 1..=60 {
        world.caught_up(id(number)).await;
    }
    world.restart().await;
    for number in 1..=60 {
        world.source.write(
            id(number),
            &format!("INSERT INTO u VALUES ({number})"),
            vec![],
        );
    }
    for number in 1..=60 {
        let mut request = at_least("SELECT x FROM u", world.source.bookmark(id(number)));
        request.database = id(number);
        request.on_miss = OnMiss::Error;
        assert_eq!(world.value(request).await, number);
    }
    assert_eq!(
        world.source.state().seen.hellos.len(),
        2,
        "one connection per start"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_database_closes_its_files_and_opens_them_for_reads_and_for_the_stream() {
    let world = World::new().await;
    let asleep = async || {
        world
            .eventually("asleep", async || world.files_are_closed(DB))
            .await;
    };
    let bookmark = world.source.bookmark(DB);
    asleep().await;
    assert_eq!(
        world.status(DB).await,
        Some((world.source.position(DB), None))
    );
    let info = world
        .node()
        .database("db")
        .await
        .unwrap()
        .expect("it is listed");
    assert_eq!(info.num_tables, 1);
    assert!(info.file_size >= 8192, "{}", info.file_size);
    asleep().await;
    assert_eq!(
        world
            .value(at_least("SELECT count(*) FROM t", bookmark))
            .await,
        0
    );
    asleep().await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    assert_eq!(
        world
            .value(at_least("SELECT v FROM t", world.source.bookmark(DB)))
            .await,
        "one"
    );
    asleep().await;
    assert!(world.node().verify(DB).await.unwrap().intact);
    asleep().await;
    // It still follows after a new connection, without being opened for that.
    world.source.hang_up();
    world
        .source
        .write(DB, "INSERT INTO t VALUES (2, 'two')", vec![]);
    world.caught_up(DB).await;
    assert!(world.source.state().seen.hashes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn start_opens_no_database_that_was_closed_and_tells_where_it_is() {
    let mut world = World::new().await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
    world.restart().await;
    world.caught_up(DB).await;
    // It did not go to sleep: it has not been awake.
    assert!(world.files_are_closed(DB));
    assert_eq!(world.metric("tidemark_replica_sleeps_total"), 0);
    assert!(world.source.state().seen.hashes.is_empty());
    let info = world.node().database("db").await.unwrap();
    assert_eq!(info.expect("it is listed").num_tables, 1);
    world
        .source
        .write(DB, "INSERT INTO t VALUES (2, 'two')", vec![]);
    let mut read = at_least("SELECT v FROM t WHERE id = 2", world.source.bookmark(DB));
    // On a busy machine the stream may be late, and such a read forwarded.
    read.on_miss = OnMiss::Error;
    assert_eq!(world.value(read).await, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_changed_while_it_was_closed_is_noticed_at_the_next_read() {
    let world = World::new().await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
    world
        .eventually("asleep", async || world.files_are_closed(DB))
        .await;
    let path = world.files_of(DB).join("main.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1; // the text of the row
    std::fs::write(&path, bytes).unwrap();
    let mut request = unconstrained("SELECT v FROM t");
    request.on_miss = OnMiss::Error;
    assert_eq!(
        world.value(request).await,
        "one",
        "repaired before it was read"
    );
    assert!(world.metric("tidemark_replica_resyncs_total{reason=\"damaged\"}") >= 1);
}
