//! At stake: requests go to the nearest node that can answer them, and the token to nobody else.

use std::time::Duration;

use tidemark_client::{Client, SessionStart};

use crate::scripted::{Act, Scripted, mute, nobody, quick};

const BOOKMARK: &str = "00000001-00000000-00000001-000000000000000000000000deadbeef";
const CLUSTER: &str = "00000000000000c1";
const FAR: Duration = Duration::from_millis(60);

fn fine() -> Act {
    Act::rows(BOOKMARK, &["n"], &["[1]"])
}

/// A node of this number, so far away.
async fn node(number: u64, far: Duration, script: impl IntoIterator<Item = Act>) -> Scripted {
    let node = Scripted::start(script).await;
    node.sign(&format!("WEUR/replica/{number:016x}"), CLUSTER, far);
    node
}

/// The map with these nodes, by number and URL.
fn map(nodes: &[(u64, &str)]) -> String {
    let node = |(number, url): &(u64, &str)| {
        format!(
            r#"{{"node":"{number:016x}","role":"replica","region":"WEUR","url":"{url}","leading":false,
            "voter":false,"behind":0,"lag_ms":0}}"#
        )
    };
    let nodes: Vec<_> = nodes.iter().map(node).collect();
    format!(
        r#"{{"result":{{"drawn_by":"0000000000000001","cluster":"{CLUSTER}","complete":true,"term":1,"commits":1,
        "nodes":[{}]}},"success":true,"errors":[],"messages":[]}}"#,
        nodes.join(",")
    )
}

fn nearest(given: &Scripted) -> Client {
    let client = quick(Client::builder(given.url())).nearest();
    client.build().unwrap()
}

#[tokio::test]
async fn nearest_node_of_the_map_is_asked_and_the_session_goes_along() {
    let given = node(1, FAR, [fine()]).await;
    let near = node(2, Duration::ZERO, [fine(), fine()]).await;
    given.tell(map(&[(1, &given.url()), (2, &near.url())]));
    let client = nearest(&given);
    let session = client.database("s").session(SessionStart::Unconstrained);

    // The first request does not wait for a look.
    session.exec("INSERT").await.unwrap();
    assert_eq!(given.asked().len(), 1);

    let known = client.look_around().await;
    assert_eq!(known[0].url, near.url());
    assert!(known[0].asked && known[0].fit, "{known:?}");
    assert!(known[0].round_trip < known[1].round_trip, "{known:?}");
    session.exec("SELECT").await.unwrap();
    let [moved] = near.asked().try_into().unwrap();
    assert_eq!(moved.header("x-d1-bookmark"), Some(BOOKMARK));
    assert_eq!(moved.header("authorization"), Some("Bearer secret"));
}

#[tokio::test]
async fn without_being_told_to_no_client_looks_around() {
    let given = node(1, Duration::ZERO, [fine()]).await;
    let client = given.client();
    client.database("s").exec("INSERT").await.unwrap();
    assert_eq!(client.look_around().await.len(), 1);
    assert_eq!((given.looked_at(), given.maps_told()), (0, 0));
}

#[tokio::test]
async fn node_that_fails_hands_over_to_the_next_nearest_within_the_request() {
    let given = node(1, FAR, [fine()]).await;
    let near = node(2, Duration::ZERO, [Act::Hang]).await;
    let middle = node(3, FAR / 2, [fine(), fine()]).await;
    given.tell(map(&[
        (2, &near.url()),
        (3, &middle.url()),
        (1, &given.url()),
    ]));
    let client = nearest(&given);
    client.look_around().await;
    let database = client.database("s");
    let answers = database.exec("INSERT").await.unwrap();
    assert_eq!(answers.attempts, 2);
    // And the one that answered is kept.
    assert_eq!(database.exec("INSERT").await.unwrap().attempts, 1);
    let asked = [&near, &middle, &given].map(|node| node.asked().len());
    assert_eq!(asked, [1, 2, 0]);
}

/// At stake: what a map says of addresses is true within the cluster, and not everywhere else.
#[tokio::test]
async fn addresses_that_lead_nowhere_or_to_others_get_no_token_and_cost_no_request_anything() {
    let given = node(1, FAR, [fine(), fine()]).await;
    let (silent, silent_url) = mute().await;
    let stranger = node(5, Duration::ZERO, []).await;
    stranger.sign(
        "WEUR/replica/0000000000000005",
        "00000000000000c2",
        Duration::ZERO,
    );
    let other = node(7, Duration::ZERO, []).await;
    given.tell(map(&[
        (1, &given.url()),
        (2, &silent_url),
        (3, &nobody().await),
        (4, "ftp://nonsense"),
        (5, &stranger.url()),
        (6, &other.url()),
    ]));
    let client = nearest(&given);
    client.database("s").exec("INSERT").await.unwrap();
    let known = client.look_around().await;
    let fit: Vec<_> = known.iter().filter(|node| node.fit).collect();
    assert_eq!(fit.len(), 1, "{known:?}");
    assert_eq!(fit[0].url, given.url());
    client.database("s").exec("INSERT").await.unwrap();
    assert_eq!(given.asked().len(), 2);
    for node in [&stranger, &other] {
        assert!(node.looked_at() > 0, "somebody looked who is there");
        assert!(node.asked().is_empty(), "{:?}", node.asked());
        assert!(!node.saw_a_token());
    }
    drop(silent);
}

#[tokio::test]
async fn looks_are_as_far_apart_as_was_said_however_much_is_asked() {
    let asking = 60;
    let given = node(1, Duration::ZERO, (0..asking).map(|_| fine())).await;
    given.tell(map(&[(1, &given.url())]));
    let client = nearest(&given);
    client.look_around().await;
    let looked = given.looked_at();
    let database = client.database("s");
    for _ in 0..asking {
        database.exec("SELECT").await.unwrap();
    }
    assert_eq!((given.looked_at(), given.maps_told()), (looked, 1));
}

#[tokio::test]
async fn looks_closer_than_a_flood_are_refused() {
    let client = Client::builder("http://localhost:1").nearest();
    let error = client.look_every(Duration::from_millis(1)).build();
    let text = error.unwrap_err().to_string();
    assert!(text.contains("1ms"), "{text}");
}
