//! Copies that cannot be continued: too old, damaged on disk, diverged, interrupted while being
//! repaired. What is damaged is never read; what is repaired holds exactly the source's content.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use tidemark_protocol::node::Node;
use tidemark_protocol::{Executed, FailureKind, OnMiss, Why};

use crate::source::{Tamper, copy_tree};
use crate::world::{DB, World, at_least, ms, unconstrained};

/// A database of some hundred pages at both ends.
async fn grown_world() -> World {
    let world = World::new().await;
    for id in 0..40 {
        let sql = format!("INSERT INTO t VALUES ({id}, hex(randomblob(8000)))");
        world.source.write(DB, &sql, vec![]);
    }
    world.caught_up(DB).await;
    world
}

async fn assert_identical(world: &mut World) {
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

fn flip_byte(path: &Path, offset: u64) {
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    let mut byte = [0];
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_that_is_too_old_gets_only_the_pages_that_differ() {
    let mut world = grown_world().await;
    world.stop().await;
    world
        .source
        .write(DB, "UPDATE t SET v = 'changed' WHERE id = 7", vec![]);
    world.source.forget();
    world.start().await;
    world.caught_up(DB).await;
    {
        let state = world.source.state();
        let hashes = state
            .seen
            .hashes
            .iter()
            .find(|(id, _)| *id == DB)
            .expect("hashes came");
        assert!(hashes.1 > 100, "hashes of every page: {hashes:?}");
        assert!(
            state.seen.pages_sent < 20,
            "{} pages were sent",
            state.seen.pages_sent
        );
    }
    assert_eq!(
        world
            .value(unconstrained("SELECT v FROM t WHERE id = 7"))
            .await,
        "changed"
    );
    // The stream goes on behind the image.
    world
        .source
        .write(DB, "UPDATE t SET v = 'again' WHERE id = 7", vec![]);
    let bookmark = world.source.bookmark(DB);
    assert_eq!(
        world
            .value(at_least("SELECT v FROM t WHERE id = 7", bookmark))
            .await,
        "again"
    );
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_file_is_repaired_from_what_is_left() {
    let mut world = grown_world().await;
    world.stop().await;
    let path = world.files_of(DB).join("main.db");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2 + 100)
        .unwrap();
    world.start().await;
    world.caught_up(DB).await;
    let pages = world.source.page_count(DB);
    let sent = world.source.state().seen.pages_sent;
    assert!(
        sent < pages * 2 / 3,
        "{sent} of {pages} pages were sent though half was there"
    );
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_flipped_on_disk_is_noticed_before_anything_is_served_and_repaired() {
    let mut world = grown_world().await;
    world.stop().await;
    let pages = world.source.page_count(DB);
    flip_byte(&world.files_of(DB).join("main.db"), 4096 * 20 + 123);
    world.source.silence();
    world.start().await;

    // No source: nothing can repair it, so nothing may be read.
    let mut request = unconstrained("SELECT count(*) FROM t");
    request.deadline = ms(300);
    for (on_miss, at_any_time) in [
        (OnMiss::Stale, false),
        (OnMiss::Error, false),
        (OnMiss::Forward, true),
    ] {
        request.on_miss = on_miss;
        let result = world.execute(request.clone()).await;
        if at_any_time {
            assert_eq!(result, Ok(Executed::Forward(Why::Unreadable)));
        } else {
            assert_eq!(result.unwrap_err().kind, FailureKind::Damaged);
        }
    }
    assert!(
        world.status(DB).await.unwrap().1.is_some(),
        "the status tells of the damage"
    );

    world.source.serve().await;
    request.on_miss = OnMiss::Error;
    request.deadline = ms(10_000);
    assert_eq!(world.value(request).await, 40);
    assert!(world.source.state().seen.follows.contains(&(DB, None)));
    let sent = world.source.state().seen.pages_sent;
    assert!(
        sent < pages / 2,
        "{sent} of {pages} pages were sent for one that was damaged"
    );
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_is_no_database_any_more_is_replaced() {
    let mut world = grown_world().await;
    world.stop().await;
    std::fs::write(world.files_of(DB).join("main.db"), b"not a database").unwrap();
    world.start().await;
    world.caught_up(DB).await;
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_catalogue_is_repaired_and_the_node_gets_ready() {
    let mut world = grown_world().await;
    world.stop().await;
    let file = world
        .files_of(tidemark_protocol::DatabaseId::CATALOGUE)
        .join("main.db");
    flip_byte(&file, 4096 + 77);
    world.start().await;
    world
        .eventually("ready", async || world.node().ready().is_ok())
        .await;
    world.caught_up(DB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_with_other_content_than_it_says_is_never_visible() {
    let mut world = grown_world().await;
    let before = world.source.position(DB);
    world.source.state().tamper = Some(Tamper::OtherContent);
    let after = world
        .source
        .write(DB, "UPDATE t SET v = 'x' WHERE id = 1", vec![]);
    let mut request = at_least("SELECT v FROM t WHERE id = 1", world.source.bookmark(DB));
    request.on_miss = OnMiss::Error;
    let answer = world.answer(request).await;
    assert_eq!(answer.bookmark.claimed(), after);
    assert!(after.reached(&before));
    assert_eq!(
        world.metric("tidemark_replica_resyncs_total{reason=\"diverged\"}"),
        1
    );
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_transaction_is_noticed_and_old_content_stays_readable_meanwhile() {
    let mut world = grown_world().await;
    world.source.state().image_pages_max = Some(0);
    world.source.state().tamper = Some(Tamper::Lose);
    world
        .source
        .write(DB, "UPDATE t SET v = 'lost' WHERE id = 1", vec![]);
    world
        .source
        .write(DB, "UPDATE t SET v = 'next' WHERE id = 2", vec![]);
    world
        .eventually("asked for a resync", async || {
            world
                .source
                .state()
                .seen
                .hashes
                .iter()
                .any(|(id, _)| *id == DB)
        })
        .await;
    // Old, intact and of this history: whoever asks for no more gets it.
    assert_eq!(
        world.value(unconstrained("SELECT count(*) FROM t")).await,
        40
    );
    world.source.state().image_pages_max = None;
    world.source.hang_up();
    world.caught_up(DB).await;
    assert_eq!(
        world
            .value(unconstrained("SELECT v FROM t WHERE id = 1"))
            .await,
        "lost"
    );
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_an_image_it_starts_with_the_old_state_and_is_repaired() {
    let mut world = grown_world().await;
    let old = world.source.position(DB);
    world.source.pause();
    world.source.write(DB, "UPDATE t SET v = v || 'x'", vec![]);
    world.source.forget();
    world.source.state().image_pages_max = Some(30);
    world.source.hang_up();
    world.source.resume();
    let building = |world: &World| {
        let known = ["main.db", "main.db-wal", "main.db-shm", "positions"];
        std::fs::read_dir(world.files_of(DB)).unwrap().any(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name();
            !known.iter().any(|known| name == *known)
                && entry.metadata().is_ok_and(|metadata| metadata.len() > 0)
        })
    };
    world
        .eventually("an image is half there", async || building(&world))
        .await;

    // The files as a kill would leave them, under a new process.
    let elsewhere = tempfile::tempdir().unwrap();
    copy_tree(&world.directory, &elsewhere.path().join("data"));
    world.replica.take();
    world.directory = elsewhere.path().join("data");
    world.source.silence();
    world.start().await;
    let answer = world
        .answer(unconstrained("SELECT count(*) FROM t WHERE v LIKE '%x'"))
        .await;
    assert_eq!(
        crate::world::first_value(&answer),
        0,
        "the old state, nothing of the new"
    );
    assert_eq!(answer.bookmark.claimed(), old);

    world.source.state().image_pages_max = None;
    world.source.serve().await;
    world.caught_up(DB).await;
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn image_that_cannot_be_written_is_tried_again_until_it_can() {
    let mut world = grown_world().await;
    // What follows would keep a database that sleeps from opening as well.
    world.idle_wait = Duration::from_secs(3600);
    world.restart().await;
    world.caught_up(DB).await;
    let count = unconstrained("SELECT count(*) FROM t");
    assert_eq!(world.value(count.clone()).await, 40, "opened by that");
    // Stands where the new file is to be made.
    let obstacle = world.files_of(DB).join("main.db.new");
    std::fs::create_dir(&obstacle).unwrap();
    world.source.pause();
    world
        .source
        .write(DB, "UPDATE t SET v = 'new' WHERE id = 1", vec![]);
    world.source.forget();
    world.source.hang_up();
    world.source.resume();
    let failed = "tidemark_replica_resyncs_total{reason=\"failed\"}";
    world
        .eventually("failed twice", async || world.metric(failed) >= 2)
        .await;
    // The old state is intact and stays readable.
    assert_eq!(world.value(count).await, 40);
    std::fs::remove_dir(&obstacle).unwrap();
    world.caught_up(DB).await;
    assert_identical(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_read_of_the_old_copy_holds_the_exchange_back_and_ends_undisturbed() {
    let world = grown_world().await;
    let reads: Vec<_> = (0..4)
        .map(|_| {
            // Runs until its deadline, on the state it began with.
            let mut request = unconstrained(
                "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c",
            );
            request.deadline = ms(1500);
            let node = std::sync::Arc::clone(world.replica.as_ref().unwrap());
            tokio::spawn(async move { node.execute(request).await })
        })
        .collect();
    world.source.pause();
    world
        .source
        .write(DB, "UPDATE t SET v = 'new' WHERE id = 1", vec![]);
    world.source.forget();
    world.source.hang_up();
    world.source.resume();
    world.caught_up(DB).await;
    assert!(
        world
            .source
            .state()
            .seen
            .hashes
            .iter()
            .any(|(id, _)| *id == DB),
        "exchanged"
    );
    for read in reads {
        let failure = read.await.unwrap().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Deadline);
    }
    assert_eq!(
        world
            .value(unconstrained("SELECT v FROM t WHERE id = 1"))
            .await,
        "new"
    );
}

/// Files as they lie there at any moment, taken one after the other while they change: worse than what
/// a crash leaves. Whatever a node makes of them, it never shows a state that never was.
#[tokio::test(flavor = "multi_thread")]
async fn files_taken_at_any_moment_never_show_a_state_that_never_was() {
    let mut world = grown_world().await;
    world.source.write(DB, "UPDATE t SET v = '0'", vec![]);
    world.caught_up(DB).await;
    for round in 1..=12 {
        let elsewhere = tempfile::tempdir().unwrap();
        let directory = elsewhere.path().join("data");
        for step in 0..40 {
            let sql = format!("UPDATE t SET v = '{round}-{step}' || substr(v, 1, {step})");
            world.source.write(DB, &sql, vec![]);
            if step == 3 * round {
                copy_tree(&world.directory, &directory);
            }
        }
        world.stop().await;
        world.directory = directory;
        world.source.silence();
        world.start().await;
        let mut request = unconstrained("SELECT count(DISTINCT v), count(*) FROM t");
        request.deadline = ms(200);
        request.on_miss = OnMiss::Stale;
        match world.execute(request.clone()).await {
            Ok(Executed::Answer(answer)) => {
                assert_eq!(
                    crate::world::first_value(&answer),
                    1,
                    "all rows change together"
                );
            }
            // Its content is no known state, or there is no catalogue: it says so.
            Ok(Executed::Forward(_)) => {}
            Err(failure) => assert_eq!(failure.kind, FailureKind::Damaged, "{failure}"),
        }
        world.source.serve().await;
        world.caught_up(DB).await;
        assert!(world.node().verify(DB).await.unwrap().intact);
        world.keep(elsewhere);
    }
    assert_identical(&mut world).await;
}
