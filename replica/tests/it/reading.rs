//! Contracts: what a session is promised, what happens when the promise cannot be kept here, and what
//! belongs to the primary whatever happens.

use std::time::Instant;

use tidemark_protocol::{
    Bookmark, BookmarkKey, DatabaseId, Epoch, Execute, Executed, FailureKind, Freshness, OnMiss,
    Position, ReadContract, RequestId, Seq, Why,
};

use crate::source::KEY;
use crate::world::{DB, World, at_least, first_value, ms, request, unconstrained};

#[tokio::test(flavor = "multi_thread")]
async fn bookmark_ahead_is_waited_for() {
    let world = World::new().await;
    world.source.pause();
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    let mut waiting = at_least("SELECT v FROM t", world.source.bookmark(DB));
    waiting.on_miss = OnMiss::Error;
    let (value, ()) = tokio::join!(world.value(waiting), async {
        world
            .eventually("nothing yet", async || {
                world.value(unconstrained("SELECT count(*) FROM t")).await == 0
            })
            .await;
        world.source.resume();
    });
    assert_eq!(value, "one");
    assert_eq!(
        world.metric("tidemark_replica_waits_total{outcome=\"met\"}"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmark_missed_follows_the_rule_of_the_request() {
    let mut world = World::without_replica().await;
    // Then nothing tells how late the stream is.
    world.source.state().asks = false;
    world.start().await;
    world.caught_up(DB).await;
    world.source.pause();
    let reached = world.source.position(DB);
    let wanted = world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    let mut request = at_least("SELECT count(*) FROM t", world.source.bookmark(DB));
    // A tenth of it must do for the read itself, on a machine that has more to do.
    request.deadline = ms(2000);

    request.on_miss = OnMiss::Forward;
    let started = Instant::now();
    let behind = Ok(Executed::Forward(Why::Behind));
    assert_eq!(world.execute(request.clone()).await, behind);
    let waited = started.elapsed();
    assert!(waited >= ms(1000), "gave up after {waited:?}");
    assert!(
        waited < ms(2000),
        "no time is left to forward after {waited:?}"
    );

    request.on_miss = OnMiss::Stale;
    let answer = world.answer(request.clone()).await;
    assert_eq!(first_value(&answer), 0);
    assert_eq!(
        answer.bookmark,
        Bookmark::issue(&KEY, DB, reached),
        "says how old it is"
    );

    request.on_miss = OnMiss::Error;
    let failure = world.execute(request).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Stale);
    for position in [reached, wanted] {
        assert!(failure.message.contains(&position.to_string()), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_a_bookmark_ahead_is_forwarded_at_once() {
    let mut world = World::new().await;
    world.source.silence();
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    let request = at_least("SELECT v FROM t", world.source.bookmark(DB));
    world
        .eventually("forwarded at once", async || {
            let started = Instant::now();
            let behind = Ok(Executed::Forward(Why::Behind));
            assert_eq!(world.execute(request.clone()).await, behind);
            started.elapsed() < ms(1000)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_the_primary_is_forwarded() {
    let world = World::new().await;
    let unknown = DatabaseId::from_bytes([9; 16]);
    let here = [
        (request("SELECT 1", ReadContract::Primary), Why::Contract),
        (
            request("SELECT 1", ReadContract::FirstPrimary),
            Why::Contract,
        ),
        (
            Execute {
                freshness: Freshness::Linearizable,
                ..unconstrained("SELECT 1")
            },
            Why::Contract,
        ),
        (unconstrained("INSERT INTO t VALUES (5, 'x')"), Why::Write),
        (
            unconstrained("SELECT * FROM only_the_primary_has_this"),
            Why::Sql,
        ),
        (
            Execute {
                database: unknown,
                ..unconstrained("SELECT 1")
            },
            Why::UnknownDatabase,
        ),
        (
            Execute {
                database: DatabaseId::CATALOGUE,
                ..unconstrained("SELECT * FROM settings")
            },
            Why::UnknownDatabase,
        ),
    ];
    for (request, why) in here {
        assert_eq!(
            world.execute(request.clone()).await,
            Ok(Executed::Forward(why)),
            "{request:?}"
        );
    }
    // Nothing of the write happened here.
    assert_eq!(
        world.value(unconstrained("SELECT count(*) FROM t")).await,
        0
    );
}

/// SQLite says that a statement writes only once it has compiled it, against a schema that may be old here.
#[tokio::test(flavor = "multi_thread")]
async fn statement_that_fails_at_the_state_asked_for_is_forwarded_unless_nobody_can_be_asked() {
    let mut world = World::new().await;
    let bookmark = world.source.bookmark(DB);
    for on_miss in [OnMiss::Forward, OnMiss::Stale, OnMiss::Error] {
        for sql in ["INSERT INTO later VALUES (1)", "SELECT * FROM later"] {
            let mut request = at_least(sql, bookmark);
            request.on_miss = on_miss;
            let outcome = world.execute(request).await;
            assert_eq!(outcome, Ok(Executed::Forward(Why::Sql)), "{sql}, {on_miss}");
        }
    }
    world.source.silence();
    let request = at_least("SELECT * FROM nowhere", bookmark);
    world
        .eventually("refused here", async || {
            match world.execute(request.clone()).await {
                Ok(outcome) => {
                    assert_eq!(outcome, Executed::Forward(Why::Sql));
                    false
                }
                Err(failure) => {
                    assert_eq!(failure.kind, FailureKind::Sql);
                    let said = &failure.message;
                    assert!(said.contains("no such table: nowhere"), "{said}");
                    true
                }
            }
        })
        .await;
}

/// A trigger that this copy does not have yet would stay, though its removal was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_finds_nothing_to_do_here_is_forwarded() {
    let world = World::new().await;
    let outcome = world
        .execute(unconstrained("DROP TRIGGER IF EXISTS later"))
        .await;
    assert_eq!(outcome, Ok(Executed::Forward(Why::Write)));
}

/// The primary repeats the first try's answer; here the second try only looks like a faulty statement.
#[tokio::test(flavor = "multi_thread")]
async fn statement_that_fails_and_may_be_the_retry_of_a_write_is_forwarded_by_every_rule() {
    let world = World::new().await;
    for on_miss in [OnMiss::Forward, OnMiss::Stale, OnMiss::Error] {
        for sql in ["CREATE TABLE t(x)", "ALTER TABLE t DROP COLUMN gone"] {
            let mut request = at_least(sql, world.source.bookmark(DB));
            request.on_miss = on_miss;
            request.request = Some(RequestId::from_bytes([3; 16]));
            let outcome = world.execute(request).await;
            assert_eq!(outcome, Ok(Executed::Forward(Why::Sql)), "{sql}, {on_miss}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_table_that_contradicts_itself_is_an_sql_error_here() {
    let world = World::new().await;
    for sql in [
        "CREATE VIRTUAL TABLE f USING fts5(v, content='t', content_rowid='id')",
        "INSERT INTO f(rowid, v) VALUES (1, 'a row that t does not have')",
    ] {
        world.source.write(DB, sql, vec![]);
    }
    let request = at_least(
        "SELECT v FROM f WHERE f MATCH 'row'",
        world.source.bookmark(DB),
    );
    let failure = world.execute(request).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Sql, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_foreign_bookmarks_are_refused_by_name() {
    let world = World::new().await;
    let position = world.source.position(DB);
    let forged = Bookmark::issue(&BookmarkKey::new([8; 16]), DB, position);
    let foreign = Bookmark::issue(&KEY, DatabaseId::CATALOGUE, position);
    for bookmark in [forged, foreign] {
        let mut request = at_least("SELECT 1", bookmark);
        request.on_miss = OnMiss::Error;
        let failure = world.execute(request).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadBookmark);
        assert!(failure.message.contains(&bookmark.to_string()), "{failure}");
    }
    // Perhaps of a newer database of the same name: the primary decides.
    let forwarded = world.execute(at_least("SELECT 1", foreign)).await;
    assert_eq!(forwarded, Ok(Executed::Forward(Why::Bookmark)));
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmark_of_another_history_is_lost_and_of_a_later_epoch_is_ahead() {
    let world = World::new().await;
    let here = world.source.position(DB);
    let other = Position {
        checksum: tidemark_protocol::StateChecksum(1),
        ..here
    };
    let mut request = at_least("SELECT 1", Bookmark::issue(&KEY, DB, other));
    let lost = Ok(Executed::Forward(Why::Bookmark));
    assert_eq!(world.execute(request.clone()).await, lost);
    request.on_miss = OnMiss::Error;
    let failure = world.execute(request).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::LostBookmark);

    let later = Position {
        epoch: Epoch(2),
        seq: Seq(1),
        ..here
    };
    let mut request = at_least("SELECT 1", Bookmark::issue(&KEY, DB, later));
    request.deadline = ms(100);
    request.on_miss = OnMiss::Error;
    assert_eq!(
        world.execute(request).await.unwrap_err().kind,
        FailureKind::Stale
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn long_read_leaves_the_thread_it_came_on_and_keeps_its_deadline() {
    let world = World::new().await;
    let count = |n: u64| {
        format!(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {n}) \
             SELECT count(*) FROM c"
        )
    };
    assert_eq!(world.value(unconstrained(&count(100_000))).await, 100_000);
    let mut endless = unconstrained(&count(1_000_000_000_000));
    endless.deadline = ms(200);
    let started = Instant::now();
    let failure = world.execute(endless).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Deadline);
    assert!(started.elapsed() < ms(2000), "took {:?}", started.elapsed());
}

/// A session that reads and is written to by others never goes back, through lost connections and
/// resynchronisations.
#[tokio::test(flavor = "multi_thread")]
async fn session_never_goes_back() {
    let world = World::new().await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (0, '0')", vec![]);
    let mut bookmark = world.source.bookmark(DB);
    let mut last = 0;
    let mut answered = 0;
    for round in 1..=200_u64 {
        world.source.write(
            DB,
            &format!("UPDATE t SET v = '{round}' WHERE id = 0"),
            vec![],
        );
        match round % 50 {
            20 => world.source.hang_up(),
            40 => {
                world.source.forget();
                world.source.hang_up();
            }
            _ => {}
        }
        if round % 3 == 0 {
            bookmark = world.source.bookmark(DB);
            last = round;
        }
        match world
            .execute(at_least("SELECT CAST(v AS INTEGER) FROM t", bookmark))
            .await
            .unwrap()
        {
            Executed::Answer(answer) => {
                let value = first_value(&answer).as_u64().unwrap();
                assert!(value >= last, "went back from {last} to {value}");
                last = value;
                assert!(answer.bookmark.claimed().reached(&bookmark.claimed()));
                bookmark = answer.bookmark;
                answered += 1;
            }
            // As a real one would: the trip to the primary takes a while.
            Executed::Forward(_) => tokio::time::sleep(ms(5)).await,
        }
    }
    assert!(answered > 20, "only {answered} reads were answered here");
}
