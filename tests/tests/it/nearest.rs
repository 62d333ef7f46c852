//! A client that asks the nearest node: it finds it, moves on when it dies, comes back when it is there again, and
//! its sessions read their own writes wherever they are.

use std::time::Duration;

use tidemark_client::{Client, Database, Session, SessionStart};
use tidemark_deploy::Link;
use tidemark_tests::{Cluster, Place, wait};

use crate::PROGRAM;

/// Short, so that a test sees many looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const FAR: Duration = Duration::from_millis(120);
const MIDDLE: Duration = Duration::from_millis(40);

/// A primary that is far from the client, a replica beside it, and one between.
async fn start() -> (Cluster, Client, Database) {
    let places = [Place::at("WEUR", FAR), Place::at("EEUR", FAR)];
    let distances = [FAR, Duration::ZERO, MIDDLE].map(Link::with_delay);
    let cluster = Cluster::seen_from(PROGRAM, &places, &distances).await;
    let client = cluster.from_afar().nearest().look_every(LOOK_EVERY);
    let client = client.build().expect("a client of loopback URLs");
    client.create_database("shop").await.expect("made");
    let database = client.database("shop");
    let table =
        "CREATE TABLE visit (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO visit VALUES (1, 0)";
    database.exec(table).await.expect("made");
    cluster.settled(wait::SOON).await;
    (cluster, client, database)
}

/// Counts a visit and reads the count, in one session; says who answered the read.
async fn visit(session: &Session, visits: &mut i64) -> String {
    let count = session.prepare("UPDATE visit SET n = n + 1 WHERE id = 1");
    count.run().await.expect("a visit is counted");
    *visits += 1;
    let read = session.exec("SELECT n FROM visit WHERE id = 1").await;
    let mut read = read.expect("a session reads");
    let [row] = &mut read.results.remove(0).rows[..] else {
        panic!("one row was asked for");
    };
    assert_eq!(
        row.remove(0),
        (*visits).into(),
        "a session reads its writes"
    );
    read.served_by.expect("a node signs").region
}

#[tokio::test(flavor = "multi_thread")]
async fn nearest_node_is_found_left_when_it_dies_and_returned_to() {
    let (mut cluster, client, database) = start().await;
    let known = client.look_around().await;
    let regions: Vec<_> = known.iter().map(|node| node.region.as_deref()).collect();
    assert_eq!(
        regions,
        [Some("WEUR"), Some("EEUR"), Some("ENAM")],
        "{known:?}"
    );

    let session = database.session(SessionStart::Unconstrained);
    let mut visits = 0;
    assert_eq!(visit(&session, &mut visits).await, "WEUR");

    // Every visit succeeds while the node is killed, and counts once.
    cluster.replicas[0].kill();
    assert_eq!(visit(&session, &mut visits).await, "EEUR");
    for _ in 0..5 {
        assert_eq!(visit(&session, &mut visits).await, "EEUR");
    }

    cluster.replicas[0].start();
    cluster.replicas[0].ready().await;
    wait::soon("the client is back at the nearest node", async || {
        (visit(&session, &mut visits).await == "WEUR").then_some(())
    })
    .await;

    // And with both replicas gone the primary is left.
    for replica in &mut cluster.replicas {
        replica.kill();
    }
    assert_eq!(visit(&session, &mut visits).await, "ENAM");
    cluster.primary.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn way_that_becomes_long_and_a_replica_that_is_cut_off_are_left() {
    let (cluster, client, database) = start().await;
    client.look_around().await;
    let session = database.session(SessionStart::Unconstrained);
    let mut visits = 0;
    assert_eq!(visit(&session, &mut visits).await, "WEUR");
    cluster.fronts[1].set_link(Link::with_delay(2 * MIDDLE));
    wait::soon("the client has turned to the nearer one", async || {
        (visit(&session, &mut visits).await == "EEUR").then_some(())
    })
    .await;

    // It answers still, and has lost its primary.
    cluster.ways[1].cut_both();
    wait::soon("the client has left the one that goes stale", async || {
        (visit(&session, &mut visits).await == "WEUR").then_some(())
    })
    .await;
    cluster.ways[1].heal_both();
    wait::soon("the client is back", async || {
        (visit(&session, &mut visits).await == "EEUR").then_some(())
    })
    .await;
}
