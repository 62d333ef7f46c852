//! At stake: read your writes and monotonic reads, which rest on the bookmark that is sent.

use std::sync::Arc;
use std::time::Duration;

use tidemark_client::{Client, Error, SessionStart};
use tokio::sync::Notify;

use crate::scripted::{Act, Scripted, quick};

/// Well-formed, of age `seq`.
fn bookmark(seq: u32) -> String {
    format!("00000001-00000000-{seq:08x}-{:032x}", 0xfeed_beef_u32)
}

fn answer(seq: u32) -> Act {
    Act::rows(&bookmark(seq), &["n"], &["[1]"])
}

async fn sent_first(start: SessionStart) -> String {
    let server = Scripted::start([answer(1)]).await;
    let session = server.client().database("shop").session(start);
    session.prepare("SELECT 1").run().await.unwrap();
    server.asked()[0]
        .header("x-d1-bookmark")
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn first_request_names_how_the_session_starts() {
    assert_eq!(
        sent_first(SessionStart::Unconstrained).await,
        "first-unconstrained"
    );
    assert_eq!(sent_first(SessionStart::Primary).await, "first-primary");
    assert_eq!(
        sent_first(SessionStart::Bookmark(bookmark(5))).await,
        bookmark(5)
    );
}

#[tokio::test]
async fn each_request_carries_the_newest_bookmark_seen() {
    let server = Scripted::start([answer(3), answer(2), answer(9), answer(9)]).await;
    let session = server
        .client()
        .database("shop")
        .session(SessionStart::Primary);
    assert_eq!(session.bookmark(), None);
    for newest in [3, 3, 9, 9] {
        session.prepare("SELECT 1").run().await.unwrap();
        assert_eq!(session.bookmark(), Some(bookmark(newest)));
    }
    let sent: Vec<_> = server
        .asked()
        .iter()
        .map(|asked| asked.header("x-d1-bookmark").unwrap().to_owned())
        .collect();
    assert_eq!(
        sent,
        [
            "first-primary".to_owned(),
            bookmark(3),
            bookmark(3),
            bookmark(9)
        ]
    );
}

#[tokio::test]
async fn late_answer_with_an_older_bookmark_does_not_take_the_session_back() {
    let gate = Arc::new(Notify::new());
    let late = Act::AnswerAfter(Arc::clone(&gate), Box::new(answer(4)));
    let server = Scripted::start([late, answer(8)]).await;
    let session = server
        .client()
        .database("shop")
        .session(SessionStart::Unconstrained);

    let slow = tokio::spawn({
        let session = session.clone();
        async move { session.prepare("SELECT 1").run().await }
    });
    server.until_asked(1).await;
    session.prepare("SELECT 2").run().await.unwrap();
    assert_eq!(session.bookmark(), Some(bookmark(8)));

    gate.notify_one();
    let outcome = slow.await.unwrap().unwrap();
    assert_eq!(outcome.bookmark, Some(bookmark(4)));
    assert_eq!(session.bookmark(), Some(bookmark(8)));
}

#[tokio::test]
async fn answer_that_does_not_end_or_is_too_long_still_takes_the_session_on() {
    let long = format!("[\"{}\"]", "x".repeat(5000));
    let script = [
        Act::rows(&bookmark(3), &["t"], &[&long]),
        Act::Stall(bookmark(5)),
    ];
    let server = Scripted::start(script).await;
    let client = quick(Client::builder(server.url()))
        .answer_bytes_max(4000)
        .build()
        .unwrap();
    let session = client.database("shop").session(SessionStart::Primary);

    let error = session.prepare("SELECT t").run().await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
    assert_eq!(session.bookmark(), Some(bookmark(3)));

    let endless = session
        .prepare("INSERT")
        .deadline(Duration::from_millis(300));
    let error = endless.run().await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    assert_eq!(session.bookmark(), Some(bookmark(5)));
}

#[tokio::test]
async fn clones_share_the_chain_and_other_sessions_do_not() {
    let server = Scripted::start([answer(2), answer(2), answer(2)]).await;
    let database = server.client().database("shop");
    let session = database.session(SessionStart::Unconstrained);
    let clone = session.clone();
    let other = database.session(SessionStart::Unconstrained);
    session.prepare("SELECT 1").run().await.unwrap();
    assert_eq!(clone.bookmark(), Some(bookmark(2)));
    assert_eq!(other.bookmark(), None);
}

#[tokio::test]
async fn handed_over_bookmark_is_not_undercut_by_an_older_answer() {
    let server = Scripted::start([answer(1)]).await;
    let start = SessionStart::Bookmark(bookmark(6));
    let session = server.client().database("shop").session(start);
    assert_eq!(session.bookmark(), Some(bookmark(6)));
    session.prepare("SELECT 1").run().await.unwrap();
    assert_eq!(session.bookmark(), Some(bookmark(6)));
}

/// A text greater than every bookmark would otherwise be sent for ever.
#[tokio::test]
async fn text_that_is_no_bookmark_is_sent_once_and_then_forgotten() {
    let server = Scripted::start([answer(1), answer(2)]).await;
    let start = SessionStart::Bookmark("zzz".to_owned());
    let session = server.client().database("shop").session(start);
    session.prepare("SELECT 1").run().await.unwrap();
    session.prepare("SELECT 1").run().await.unwrap();
    assert_eq!(server.asked()[0].header("x-d1-bookmark"), Some("zzz"));
    assert_eq!(
        server.asked()[1].header("x-d1-bookmark"),
        Some(bookmark(1).as_str())
    );
}

#[tokio::test]
async fn plain_query_sends_no_bookmark_and_hands_over_the_one_it_got() {
    let server = Scripted::start([answer(4), answer(5)]).await;
    let database = server.client().database("shop");
    for seq in [4, 5] {
        let result = database.prepare("SELECT n").all::<i64>().await.unwrap();
        assert_eq!(result.bookmark, Some(bookmark(seq)));
    }
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("x-d1-bookmark").is_none())
    );
}
