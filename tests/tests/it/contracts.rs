//! `tidemark-read`: an answer misses nothing that the contract says it must have, or there is none, whatever is
//! cut or stands still.

use std::time::{Duration, Instant};

use tidemark_deploy::Relay;
use tidemark_tests::{Api, Lagging, Node, wait};

use crate::PROGRAM;

const BOUND: Duration = Duration::from_secs(2);
const COUNT: &str = "SELECT count(*) AS n FROM t";

/// What a replica says to a read within [`BOUND`].
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// So many rows are there, in a copy of its own, which misses at most this many milliseconds.
    Here(u64, u64),
    /// The primary's answer, and why.
    Primary(u64, String),
    /// None: the kind of the failure.
    Nothing(String),
}

async fn ask(api: &Api, on_miss: &str) -> Said {
    let request = api
        .query("shop", COUNT)
        .header(
            "tidemark-read",
            &format!("max-staleness={}ms", BOUND.as_millis()),
        )
        .header("tidemark-on-miss", on_miss)
        .header("tidemark-deadline", "400ms");
    let reply = request.send().await.expect("the node answers");
    if let Some(kind) = reply.header("tidemark-failure") {
        return Said::Nothing(kind.to_owned());
    }
    let rows = reply.rows()[0]["n"].as_u64().expect("a number");
    let delivered = reply.header("tidemark-delivered").expect("it says what");
    let part = |name: &str| {
        let parts = delivered.split(", ");
        let mut values = parts.filter_map(|part| part.split_once('='));
        let found = values.find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_owned())
    };
    match part("forwarded") {
        Some(why) => Said::Primary(rows, why),
        None => {
            let staleness = part("staleness-ms").expect("a bound");
            Said::Here(rows, staleness.parse().expect("a number"))
        }
    }
}

/// A primary with the table `t`, and a replica that answers for itself.
async fn started() -> Lagging {
    let cluster = Lagging::start(PROGRAM, 11).await;
    let primary = cluster.primary.api();
    primary.create("shop").await;
    primary
        .query("shop", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
        .ok()
        .await;
    let replica = cluster.replicas[0].api();
    wait::soon("the replica answers within the bound", async || {
        matches!(ask(&replica, "forward").await, Said::Here(0, _)).then_some(())
    })
    .await;
    cluster
}

async fn insert(primary: &Node) {
    primary
        .api()
        .query("shop", "INSERT INTO t DEFAULT VALUES")
        .ok()
        .await;
}

/// From `cut` on nothing new reaches the replica: it answers for as long as the bound allows, and then says no.
async fn refuses_once_the_bound_has_passed(replica: &Api, cut: Instant) {
    wait::soon("the replica refuses", async || {
        let asked = cut.elapsed();
        match ask(replica, "error").await {
            Said::Here(..) => {
                assert!(asked < BOUND, "answered {asked:?} after the cut");
                None
            }
            Said::Nothing(kind) => {
                assert_eq!(kind, "stale");
                Some(())
            }
            said @ Said::Primary(..) => panic!("{said:?}"),
        }
    })
    .await;
    // It may have known itself to be fresh at the moment of the cut, or a little before.
    assert!(
        cut.elapsed() + Duration::from_millis(700) > BOUND,
        "{:?}",
        cut.elapsed()
    );
    let said = ask(replica, "stale").await;
    let Said::Here(rows, staleness_ms) = said else {
        panic!("{said:?}");
    };
    assert_eq!(rows, 0);
    let staleness_ms = u128::from(staleness_ms);
    assert!(staleness_ms > BOUND.as_millis(), "{staleness_ms}");
    let said = ask(replica, "forward").await;
    let Said::Nothing(kind) = said else {
        panic!("nobody can be asked, and it said {said:?}");
    };
    assert_ne!(kind, "stale");
}

async fn fresh_again(replica: &Api) {
    wait::soon("the replica has what it missed", async || {
        matches!(ask(replica, "forward").await, Said::Here(1, _)).then_some(())
    })
    .await;
    let read = replica
        .query("shop", COUNT)
        .header("tidemark-read", "linearizable");
    let reply = read.ok().await;
    assert_eq!(reply.rows()[0]["n"], 1);
    assert_eq!(
        reply.header("tidemark-delivered"),
        Some("waited-ms=0, staleness-ms=0, forwarded=contract")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_is_cut_off_answers_within_the_bound_only_as_long_as_that_lasts() {
    let mut cluster = started().await;
    let replica = cluster.replicas[0].api();
    let relay: &Relay = &cluster.ways[0].relay;
    relay.cut_both();
    let cut = Instant::now();
    insert(&cluster.primary).await;
    refuses_once_the_bound_has_passed(&replica, cut).await;
    // Another one, whose way is good, has the write within the bound.
    let other = cluster.replicas[1].api();
    wait::soon("another replica has it", async || {
        matches!(ask(&other, "error").await, Said::Here(1, _)).then_some(())
    })
    .await;
    cluster.ways[0].relay.heal_both();
    fresh_again(&replica).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_stands_still_proves_nothing() {
    let mut cluster = started().await;
    let replica = cluster.replicas[0].api();
    cluster.primary.freeze();
    let cut = Instant::now();
    refuses_once_the_bound_has_passed(&replica, cut).await;
    let read = replica
        .query("shop", COUNT)
        .header("tidemark-read", "linearizable")
        .header("tidemark-deadline", "300ms");
    let reply = read.send().await.expect("the replica answers");
    assert!(reply.header("tidemark-failure").is_some(), "{reply:?}");
    cluster.primary.thaw();
    wait::soon("the primary goes on", async || {
        let insert = cluster
            .primary
            .api()
            .query("shop", "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING");
        insert
            .send()
            .await
            .ok()?
            .header("tidemark-failure")
            .is_none()
            .then_some(())
    })
    .await;
    fresh_again(&replica).await;
    cluster.stop().await;
}
