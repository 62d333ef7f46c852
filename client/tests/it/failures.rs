//! At stake: nothing is done twice, and nobody is told that nothing happened when something may have.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_client::{Client, Error, FailureKind, SessionStart};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use crate::scripted::{Act, Asked, Scripted, mute, nobody, quick};

const BOOKMARK: &str = "00000001-00000000-00000001-000000000000000000000000deadbeef";

fn fine() -> Act {
    Act::rows(BOOKMARK, &["n"], &["[1]"])
}

async fn outcome(
    script: impl IntoIterator<Item = Act>,
) -> (Result<Option<i64>, Error>, Vec<String>) {
    let server = Scripted::start(script).await;
    let query = server
        .client()
        .database("s")
        .prepare("INSERT")
        .deadline(Duration::from_secs(5));
    let outcome = query.first::<i64>().await;
    let asked = server.asked();
    let ids = asked
        .iter()
        .map(|a| a.header("tidemark-request-id").unwrap().to_owned());
    (outcome, ids.collect())
}

/// Tries again until it succeeds, under one id.
async fn check_retried(act: Act) {
    let (outcome, ids) = outcome([act, fine()]).await;
    assert_eq!(outcome.unwrap(), Some(1));
    assert_eq!(ids.len(), 2);
    assert_eq!(BTreeSet::from_iter(&ids).len(), 1, "ids differ: {ids:?}");
}

/// Gives up at once.
async fn check_final(act: Act, expected: Error) {
    let (outcome, ids) = outcome([act, fine()]).await;
    assert_eq!(outcome.unwrap_err(), expected);
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn harmless_failures_are_tried_again_under_the_same_id() {
    check_retried(Act::failure(429, "overloaded", 7500, "queue is full")).await;
    check_retried(Act::failure(503, "unavailable", 7905, "no primary")).await;
    check_retried(Act::failure(503, "damaged", 7906, "under repair")).await;
    check_retried(Act::failure(412, "stale", 7902, "behind")).await;
    check_retried(Act::failure(424, "unknown", 7904, "lost contact")).await;
}

#[tokio::test]
async fn lost_contact_is_tried_again_under_the_same_id() {
    check_retried(Act::Hang).await;
    check_retried(Act::Half).await;
    check_retried(Act::foreign(502, "<html>bad gateway")).await;
    check_retried(Act::foreign(503, "upstream reset")).await;
}

fn coded(status: u16, code: u32) -> Act {
    let body = format!(r#"{{"success":false,"errors":[{{"code":{code},"message":"said so"}}]}}"#);
    Act::foreign(status, &body)
}

/// What lies between may drop headers it does not know.
#[tokio::test]
async fn failure_whose_header_was_lost_is_told_by_its_code_and_then_by_its_status() {
    check_retried(coded(412, 7902)).await;
    check_retried(coded(424, 7904)).await;
    check_retried(coded(424, 7500)).await;
    check_retried(Act::foreign(424, "<html>failed dependency")).await;
    let lost = Error::Failed {
        kind: FailureKind::LostBookmark,
        message: "said so".to_owned(),
        code: 7901,
        retry_after: None,
    };
    check_final(coded(400, 7901), lost).await;

    for act in [coded(424, 7904), Act::foreign(424, "")] {
        let (outcome, _) = outcome([act, Act::failure(400, "sql", 7500, "no such table")]).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    }
    // That nothing happened is a node's word as well.
    let (outcome, _) = outcome([coded(503, 7905), coded(400, 7901)]).await;
    assert!(!outcome.unwrap_err().may_have_happened());
}

#[tokio::test]
async fn faults_of_the_request_are_final() {
    let failed = |kind: FailureKind, code, message: &str| Error::Failed {
        kind,
        message: message.to_owned(),
        code,
        retry_after: None,
    };
    let act = Act::failure(400, "sql", 7500, "no such table: nope: SQLITE_ERROR");
    check_final(
        act,
        failed(FailureKind::Sql, 7500, "no such table: nope: SQLITE_ERROR"),
    )
    .await;
    let act = Act::failure(400, "lost_bookmark", 7901, "never reached");
    check_final(
        act,
        failed(FailureKind::LostBookmark, 7901, "never reached"),
    )
    .await;
    let act = Act::failure(500, "internal", 7500, "a fault");
    check_final(act, failed(FailureKind::Internal, 7500, "a fault")).await;
    let act = Act::foreign(404, "not here");
    check_final(
        act,
        failed(FailureKind::NoDatabase, 7404, "HTTP 404 Not Found not here"),
    )
    .await;
}

#[tokio::test]
async fn separate_requests_have_separate_ids() {
    let server = Scripted::start([fine(), fine()]).await;
    let database = server.client().database("s");
    for _ in 0..2 {
        database.prepare("INSERT").run().await.unwrap();
    }
    let asked = server.asked();
    assert_ne!(
        asked[0].header("tidemark-request-id"),
        asked[1].header("tidemark-request-id")
    );
}

#[tokio::test]
async fn doubt_is_not_removed_by_a_later_refusal() {
    let refused = Act::failure(400, "sql", 7500, "UNIQUE constraint failed");
    let (outcome, ids) = outcome([Act::Hang, refused]).await;
    let error = outcome.unwrap_err();
    let Error::Unknown { request, reason } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(request.to_string(), ids[0]);
    assert!(
        reason.ends_with("then: UNIQUE constraint failed"),
        "{reason}"
    );
}

#[tokio::test]
async fn silence_until_the_deadline_is_unknown_for_a_query_and_failed_for_a_question() {
    let deadline = Duration::from_millis(150);
    let server = Scripted::start([Act::Silence, Act::Silence]).await;
    let client = quick(Client::builder(server.url()))
        .deadline(deadline)
        .build()
        .unwrap();

    let started = Instant::now();
    let error = client
        .database("s")
        .prepare("INSERT")
        .run()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    assert!(error.may_have_happened());
    assert!(started.elapsed() >= deadline);

    let error = client.node_status().await.unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Deadline), "{error:?}");
    assert!(!error.may_have_happened());
}

#[tokio::test]
async fn refused_connection_is_failed_never_unknown() {
    let client = quick(Client::builder(nobody().await))
        .deadline(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = client
        .database("s")
        .prepare("INSERT")
        .run()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Unavailable), "{error:?}");
    assert!(!error.may_have_happened());
}

#[tokio::test]
async fn next_node_is_asked_when_the_first_cannot_be_reached_and_is_kept() {
    let server = Scripted::start([fine(), fine()]).await;
    let client = quick(Client::builder(nobody().await))
        .url(server.url())
        .build()
        .unwrap();
    let database = client.database("s");
    let first = database.exec("INSERT").await.unwrap();
    assert_eq!(first.attempts, 2);
    let second = database.exec("INSERT").await.unwrap();
    assert_eq!(second.attempts, 1);
}

/// A client with two nodes, the first of which does `act`; the second answers well.
async fn turns_away_from(act: Act) -> (Duration, Vec<Asked>, Vec<Asked>) {
    let first = Scripted::start([act]).await;
    let second = Scripted::start([fine(), fine()]).await;
    let client = quick(Client::builder(first.url()))
        .url(second.url())
        .build()
        .unwrap();
    let database = client.database("s");
    let started = Instant::now();
    database.exec("INSERT").await.unwrap();
    let took = started.elapsed();
    // The one that answered well is kept.
    database.exec("INSERT").await.unwrap();
    (took, first.asked(), second.asked())
}

/// At stake: a restart of a whole cell, one node after the other, that no client notices.
#[tokio::test]
async fn next_node_takes_over_from_one_that_goes_whatever_it_did_last() {
    let outage = || Act::failure(503, "unavailable", 7905, "nobody leads");
    for (case, act) in [
        ("reset", Act::Hang),
        ("half an answer", Act::Half),
        ("not leading", outage()),
        ("outage", outage().with("retry-after", "5")),
        (
            "leader elsewhere",
            outage().with("tidemark-leader", "http://127.0.0.1:1"),
        ),
        (
            "damaged",
            Act::failure(503, "damaged", 7906, "under repair"),
        ),
        (
            "unknown",
            Act::failure(424, "unknown", 7904, "it leads no more"),
        ),
        ("a balancer's page", Act::foreign(502, "bad gateway")),
    ] {
        let (took, first, second) = turns_away_from(act).await;
        assert!(took < Duration::from_secs(2), "{case}: {took:?}");
        assert_eq!((first.len(), second.len()), (1, 2), "{case}");
        let id = |asked: &Asked| asked.header("tidemark-request-id").map(str::to_owned);
        assert_eq!(
            id(&first[0]),
            id(&second[0]),
            "{case}: a retry has the same id"
        );
        assert_ne!(id(&second[0]), id(&second[1]), "{case}");
    }
}

#[tokio::test]
async fn session_that_moves_to_another_node_takes_its_bookmark_along() {
    let first = Scripted::start([Act::rows(BOOKMARK, &["a"], &["[1]"]), Act::Hang]).await;
    let second = Scripted::start([fine()]).await;
    let client = quick(Client::builder(first.url()))
        .url(second.url())
        .build()
        .unwrap();
    let session = client.database("s").session(SessionStart::Unconstrained);
    session.exec("INSERT").await.unwrap();
    session.exec("SELECT").await.unwrap();
    let [moved] = second.asked().try_into().unwrap();
    assert_eq!(moved.header("x-d1-bookmark"), Some(BOOKMARK));
}

#[tokio::test]
async fn when_every_node_asks_to_stay_away_the_longest_wait_counts_once_all_were_asked() {
    let busy =
        |wait| Act::failure(503, "unavailable", 7905, "nobody leads").with("retry-after", wait);
    let first = Scripted::start([busy("1"), fine()]).await;
    let second = Scripted::start([busy("0")]).await;
    let client = quick(Client::builder(first.url()))
        .url(second.url())
        .build()
        .unwrap();
    let started = Instant::now();
    let outcome = client.database("s").exec("INSERT").await.unwrap();
    assert_eq!(outcome.attempts, 3);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn silent_node_is_left_and_one_that_lives_may_take_its_time() {
    let (_listener, url) = mute().await;
    let second = Scripted::start([fine()]).await;
    let client = quick(Client::builder(url))
        .url(second.url())
        .build()
        .unwrap();
    let started = Instant::now();
    client.database("s").exec("INSERT").await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );

    let gate = Arc::new(Notify::new());
    let slow = Scripted::start([Act::AnswerAfter(Arc::clone(&gate), Box::new(fine()))]).await;
    let client = quick(Client::builder(slow.url()))
        .url(second.url())
        .build()
        .unwrap();
    let (outcome, ()) = tokio::join!(client.database("s").exec("SELECT"), async {
        slow.until_asked_for_life(3).await;
        gate.notify_one();
    });
    assert_eq!(outcome.unwrap().attempts, 1);
    assert_eq!(second.asked().len(), 1);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let busy = Act::failure(429, "overloaded", 7500, "queue is full").with("retry-after", "1");
    let started = Instant::now();
    let (outcome, _) = outcome([busy, fine()]).await;
    assert_eq!(outcome.unwrap(), Some(1));
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn retry_after_beyond_the_deadline_ends_the_call_at_once() {
    let busy = Act::failure(429, "overloaded", 7500, "queue is full").with("retry-after", "60");
    let started = Instant::now();
    let (outcome, ids) = outcome([busy, fine()]).await;
    let error = outcome.unwrap_err();
    let Error::Failed { retry_after, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), Some(FailureKind::Overloaded));
    assert_eq!(*retry_after, Some(Duration::from_secs(60)));
    assert_eq!(ids.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn every_fault_of_the_settings_is_named_and_the_token_is_not() {
    let error = Client::builder("ftp://x")
        .url("not a url")
        .account("a/b")
        .token("hush\nhush")
        .deadline(Duration::ZERO)
        .build()
        .unwrap_err();
    let text = error.to_string();
    for part in ["ftp", "'not a url'", "'a/b'", "token", "deadline"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert!(!text.contains("hush"), "{text}");
    let client = Client::builder("http://localhost:1")
        .token("hush")
        .build()
        .unwrap();
    assert!(!format!("{client:?}").contains("hush"));
}

#[tokio::test]
async fn deadline_that_no_node_would_take_is_not_sent() {
    let server = Scripted::start([]).await;
    let database = server.client().database("s");
    let second = Duration::from_secs(1);
    for deadline in [Duration::ZERO, Duration::MAX, 120 * second + second / 1000] {
        let query = database.prepare("SELECT 1").deadline(deadline).run().await;
        let batch = database.batch([database.prepare("SELECT 1")]);
        let batch = batch.deadline(deadline).await.map(drop);
        for outcome in [query.map(drop), batch] {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{error:?}");
        }
    }
    assert!(server.asked().is_empty());
}

/// At stake: a page of something in between must not be taken for a success that cannot be read.
#[tokio::test]
async fn failure_that_is_too_long_to_read_is_still_one() {
    let long = "x".repeat(4096);
    let sql = Act::failure(400, "sql", 7500, &long);
    for (act, kind) in [
        (sql, FailureKind::Sql),
        (Act::foreign(502, &long), FailureKind::Unknown),
        (Act::foreign(403, &long), FailureKind::Forbidden),
    ] {
        let server = Scripted::start([act]).await;
        let client = quick(Client::builder(server.url())).answer_bytes_max(1024);
        let database = client.build().unwrap().database("s");
        let outcome = database.prepare("INSERT").run().await;
        assert_eq!(outcome.unwrap_err().kind(), Some(kind));
    }
}

/// At stake: a node that stops in order takes no connections, and answers what it has.
#[tokio::test]
async fn answer_of_a_node_that_takes_no_more_connections_is_waited_for() {
    let (listener, url) = mute().await;
    let second = Scripted::start([fine()]).await;
    let client = quick(Client::builder(url)).url(second.url());
    let client = client.build().unwrap();
    let asking = tokio::spawn(async move { client.database("s").exec("INSERT").await });
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(listener);
    // As long as it takes another client to give a silent node up, which began later: by then this one has
    // been asked for a sign of life as well.
    let (_silent, url) = mute().await;
    let third = Scripted::start([fine()]).await;
    let other = quick(Client::builder(url)).url(third.url());
    let other = other.build().unwrap().database("s");
    other.exec("INSERT").await.unwrap();
    let refusal = b"HTTP/1.1 400 Bad Request\r\ntidemark-failure: sql\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(refusal).await.unwrap();
    let error = asking.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Sql), "{error:?}");
    assert!(second.asked().is_empty());
}

#[tokio::test]
async fn name_that_would_leave_its_path_is_not_sent() {
    let server = Scripted::start([]).await;
    for name in ["", "a/b", "..", "a?b", "a b"] {
        let error = server
            .client()
            .database(name)
            .prepare("SELECT 1")
            .run()
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{name}: {error:?}");
    }
    assert!(server.asked().is_empty());
}

/// At stake: a build without TLS says so, and one with it needs nothing else from the program.
#[test]
fn https_needs_the_feature_and_nothing_else() {
    let built = Client::builder("https://db.example").build();
    if cfg!(feature = "tls") {
        built.unwrap();
    } else {
        let text = built.unwrap_err().to_string();
        assert!(text.contains("feature 'tls'"), "{text}");
    }
}
