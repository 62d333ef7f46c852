//! Databases put to sleep all the time, at the worst moments.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidemark_protocol::{Node, Position};

use crate::pipeline::tests::{INSERT, TABLE, database, serving_after, start, write};

/// Writers and a reader who hold the database only while they need it, and somebody who closes it whenever
/// he can: every acknowledged write is there once, at a place of its own.
#[tokio::test(flavor = "multi_thread")]
async fn database_that_is_closed_all_the_time_loses_no_write_and_uses_no_number_twice() {
    const WRITERS: usize = 4;
    const SLEEPS: u64 = 60;
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let line = database(&primary).await;
    let (id, term) = (line.id(), serving_after(&primary, Default::default()).await);
    write(&line, TABLE, term).await.unwrap();
    drop(line);

    let ended = Arc::new(AtomicBool::new(false));
    let slept = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..WRITERS {
        let (primary, ended, slept) =
            (Arc::clone(&primary), Arc::clone(&ended), Arc::clone(&slept));
        tasks.push(tokio::spawn(async move {
            let mut written: Vec<Position> = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let line = primary.line(id).await.unwrap();
                let position = write(&line, INSERT, term).await.unwrap();
                assert!(written.last().is_none_or(|last| position.seq > last.seq));
                written.push(position);
                drop(line);
                // Let it come to rest: no sleep without.
                let seen = slept.load(Ordering::Relaxed);
                while slept.load(Ordering::Relaxed) == seen && !ended.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            }
            written
        }));
    }
    while slept.load(Ordering::Relaxed) < SLEEPS {
        if primary.databases.put_to_sleep(id).await.unwrap() {
            slept.fetch_add(1, Ordering::Relaxed);
        }
    }
    ended.store(true, Ordering::Relaxed);
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await.unwrap().into_iter().map(|position| position.seq));
    }
    let acknowledged = seqs.len();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), acknowledged, "a number was used twice");
    let line = primary.line(id).await.unwrap();
    let one_more = write(&line, INSERT, term).await.unwrap();
    // The first transaction made the table.
    assert_eq!(one_more.seq.0, acknowledged as u64 + 2);
    assert!(primary.verify(id).await.unwrap().intact);
    drop(line);
    primary.stop().await;
}

/// The log waits for the files of a database that it commits to, and they stay open as long as anything runs.
#[tokio::test(flavor = "multi_thread")]
async fn database_whose_writer_works_is_not_closed_though_its_client_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let line = database(&primary).await;
    let (id, term) = (line.id(), serving_after(&primary, Default::default()).await);
    write(&line, TABLE, term).await.unwrap();
    let held = line.hold_writer().await;
    let sleeping = {
        let primary = Arc::clone(&primary);
        tokio::spawn(async move { primary.databases.put_to_sleep(id).await.unwrap() })
    };
    line.has_queued(1).await;
    let busy = line.hold_writer_next();
    drop(line);
    drop(held);
    assert!(!sleeping.await.unwrap());
    drop(busy);
    while !primary.databases.put_to_sleep(id).await.unwrap() {}
    primary.stop().await;
}
