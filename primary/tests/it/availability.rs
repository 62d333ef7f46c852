//! What a voter that does not lead answers by itself, and what is left of a cell that has lost its majority:
//! sessions go on, and what needs a leader is told promptly that there is none.

use std::time::{Duration, Instant};

use serde_json::json;
use tidemark_primary::Primary;
use tidemark_protocol::node::Answer;
use tidemark_protocol::{
    Bookmark, DatabaseId, Execute, Executed, Failure, FailureKind, Node, NodeId, OnMiss,
    ReadContract, Value, Why,
};

use crate::cell::{COUNT, INSERT, database};
use crate::harness::{named, request, rows};
use crate::voters::{Cell, eventually};

/// Less than a request waits for an election, and far less than its own deadline.
const PROMPT: Duration = Duration::from_millis(1500);

fn row(n: i64) -> [Value; 2] {
    [Value::Integer(0), Value::Integer(n)]
}

/// A read of the number of rows.
fn count(db: DatabaseId, read: ReadContract) -> Execute {
    Execute {
        read,
        on_miss: OnMiss::Forward,
        ..request(db, COUNT, &[])
    }
}

/// Writes one row at the leader.
async fn write(cell: &Cell, db: DatabaseId, n: i64) -> Bookmark {
    let id = 1000 + u128::from(n.unsigned_abs());
    cell.run(named(id, request(db, INSERT, &row(n))))
        .await
        .bookmark
}

/// What this node answers by itself.
async fn here(node: &Primary, execute: Execute) -> Option<Answer> {
    match node.execute(execute).await {
        Ok(Executed::Answer(answer)) => Some(answer),
        Ok(Executed::Forward(_)) => None,
        Err(failure) => panic!("{failure}"),
    }
}

fn served_by_primary(answer: &Answer) -> bool {
    let results: serde_json::Value = serde_json::from_slice(&answer.results).unwrap();
    results[0]["meta"]["served_by_primary"].as_bool().unwrap()
}

/// The bookmark with its last digits turned: readable, and not ours.
fn forged(bookmark: Bookmark) -> Bookmark {
    let mut text = bookmark.to_string();
    let last = if text.ends_with('0') { "1" } else { "0" };
    text.replace_range(text.len() - 1.., last);
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_answer_sessions_and_hand_on_what_is_the_leaders() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    for (node, follower) in cell.followers().await {
        eventually("the follower has the database", async || {
            follower.resolve("shop")?;
            let read = count(db, ReadContract::FirstUnconstrained);
            here(&follower, read).await
        })
        .await;
        // Each write is read at once: the bookmark alone makes it visible.
        for n in 0..20 {
            let n = n + 100 * i64::try_from(node.0).unwrap();
            let bookmark = write(&cell, db, n).await;
            let sql = "SELECT count(*) FROM t WHERE n = ?";
            let mut read = request(db, sql, &[Value::Integer(n)]);
            (read.read, read.on_miss) = (ReadContract::Bookmark(bookmark), OnMiss::Error);
            let answer = here(&follower, read).await.unwrap();
            assert_eq!(rows(&answer), json!([[1]]), "voter {node}");
            assert!(answer.bookmark.to_string() >= bookmark.to_string());
            assert!(!served_by_primary(&answer));
        }
        let bookmark = write(&cell, db, 50 + i64::try_from(node.0).unwrap()).await;
        let session = ReadContract::Bookmark(bookmark);
        let leaders = [
            count(db, ReadContract::Primary),
            count(db, ReadContract::FirstPrimary),
            count(db, ReadContract::Bookmark(forged(bookmark))),
            count(DatabaseId::from_bytes([9; 16]), session),
            Execute {
                read: session,
                ..request(db, "DELETE FROM t", &[])
            },
            Execute {
                read: session,
                ..named(7, request(db, "CREATE TABLE t(x)", &[]))
            },
            // A newer state may have what it names.
            Execute {
                read: session,
                ..request(db, "INSERT INTO later VALUES (1)", &[])
            },
            Execute {
                read: session,
                ..request(db, "DROP TRIGGER IF EXISTS later", &[])
            },
        ];
        for execute in leaders {
            let got = follower.execute(execute.clone()).await;
            assert_eq!(got, Ok(Executed::Forward(Why::NotLeading)), "{execute:?}");
        }
    }
}

/// Fails with this kind, without keeping anybody waiting.
async fn refused_promptly(node: &Primary, execute: Execute) -> Failure {
    let begun = Instant::now();
    let failure = node.execute(execute.clone()).await.unwrap_err();
    let took = begun.elapsed();
    assert_eq!(
        failure.kind,
        FailureKind::Unavailable,
        "{failure}: {execute:?}"
    );
    assert!(took < PROMPT, "{took:?}: {failure}: {execute:?}");
    failure
}

/// Leaves one voter of three: what it still answers, and what it refuses.
async fn check_the_last(cell: &Cell, db: DatabaseId, last: NodeId, bookmark: Bookmark) {
    for (node, _) in cell.running() {
        if node != last {
            cell.kill(node);
        }
    }
    let (_, primary) = cell.running().swap_remove(0);
    // The first ones may wait for an election, or have begun before the loss was noticed.
    let mut n = 0;
    eventually("the loss is noticed", async || {
        n += 1;
        let mut insert = named(5000 + n, request(db, INSERT, &row(5000)));
        insert.deadline = Duration::from_millis(300);
        let failure = primary.execute(insert).await.err()?;
        let definite = failure.kind == FailureKind::Unavailable;
        let known = matches!(
            failure.kind,
            FailureKind::Unknown | FailureKind::Unavailable
        );
        assert!(known, "{failure}");
        (definite && failure.retry_after? >= Duration::from_secs(1)).then_some(())
    })
    .await;
    assert!(primary.ready().is_err());
    assert_eq!(primary.upstream(), None, "nobody to send anybody to");
    for n in 0..3 {
        let insert = named(6000 + n, request(db, INSERT, &row(6000)));
        let failure = refused_promptly(&primary, insert).await;
        assert!(
            failure.retry_after >= Some(Duration::from_secs(1)),
            "{failure:?}"
        );
        refused_promptly(&primary, count(db, ReadContract::Primary)).await;
        refused_promptly(&primary, count(db, ReadContract::FirstPrimary)).await;
        // Also when it is the leader that would have to judge.
        refused_promptly(
            &primary,
            count(db, ReadContract::Bookmark(forged(bookmark))),
        )
        .await;
        let seen = [
            ReadContract::Bookmark(bookmark),
            ReadContract::FirstUnconstrained,
        ];
        for read in seen {
            let answer = here(&primary, count(db, read)).await.unwrap();
            assert_eq!(
                rows(&answer),
                json!([[3]]),
                "what was acknowledged, and no more"
            );
            assert_eq!(answer.bookmark, bookmark);
        }
        let refused = Execute {
            read: ReadContract::Bookmark(bookmark),
            ..request(db, "SELECT nonsense FROM t", &[])
        };
        let failure = primary.execute(refused).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Sql, "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_lost_its_majority_answers_sessions_and_refuses_the_rest_promptly() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    for n in 0..2 {
        write(&cell, db, n).await;
    }
    let bookmark = write(&cell, db, 2).await;
    let (leader, _) = cell.leader().await;
    check_the_last(&cell, db, leader, bookmark).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_that_lost_its_majority_answers_sessions_and_refuses_the_rest_promptly() {
    let cell = Cell::start().await;
    let db = database(&cell).await;
    for n in 0..2 {
        write(&cell, db, n).await;
    }
    let bookmark = write(&cell, db, 2).await;
    cell.settled().await;
    let (leader, _) = cell.leader().await;
    let (last, follower) = cell.followers().await.swap_remove(0);
    eventually("the follower knows the database", async || {
        follower.resolve("shop")
    })
    .await;
    drop(follower);
    check_the_last(&cell, db, last, bookmark).await;

    // A bookmark that it has not reached, and cannot reach without a leader.
    cell.kill(last);
    for (node, _) in cell.running() {
        cell.kill(node);
    }
    let others: Vec<_> = [1, 2, 3]
        .map(NodeId)
        .into_iter()
        .filter(|node| *node != last)
        .collect();
    for node in &others {
        cell.start_voter(*node).await;
    }
    let ahead = write(&cell, db, 3).await;
    for node in &others {
        cell.kill(*node);
    }
    cell.start_voter(last).await;
    let (_, primary) = cell.running().swap_remove(0);
    let wanted = |on_miss, deadline| Execute {
        on_miss,
        deadline,
        ..count(db, ReadContract::Bookmark(ahead))
    };
    let short = Duration::from_millis(300);
    let failure = eventually("it has read its files", async || {
        let read = primary.execute(wanted(OnMiss::Error, short)).await;
        read.err()
            .filter(|failure| failure.kind == FailureKind::Stale)
    })
    .await;
    assert!(failure.message.contains("wanted"), "{failure}");
    let stale = here(&primary, wanted(OnMiss::Stale, short)).await.unwrap();
    assert_eq!(rows(&stale), json!([[3]]));
    eventually("it knows that nobody leads", async || {
        primary
            .execute(wanted(OnMiss::Forward, short))
            .await
            .err()?
            .retry_after
    })
    .await;
    refused_promptly(&primary, wanted(OnMiss::Forward, Duration::from_secs(10))).await;

    cell.start_voter(leader).await;
    let answer = eventually("it hears of the leader", async || {
        match primary
            .execute(wanted(OnMiss::Error, Duration::from_secs(5)))
            .await
        {
            Ok(Executed::Answer(answer)) => Some(answer),
            Ok(Executed::Forward(_)) | Err(_) => None,
        }
    })
    .await;
    assert_eq!(rows(&answer), json!([[4]]));
}
