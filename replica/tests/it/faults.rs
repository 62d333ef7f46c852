//! A source that must not be believed: deposed, garbled, or talking nonsense. The connection ends, and
//! nothing of what it said is applied.

use tidemark_protocol::node::Node;
use tidemark_protocol::stream::{PagesBuilder, SourceMessage};
use tidemark_protocol::{PAGE_SIZE, PageNo, Term};

use crate::source::{Spoil, Tamper};
use crate::world::{DB, World, unconstrained};

#[tokio::test(flavor = "multi_thread")]
async fn source_of_an_older_term_is_refused_even_after_a_restart() {
    let mut world = World::new().await;
    world.source.state().term = Term(7);
    world.source.hang_up();
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'of term 7')", vec![]);
    world.caught_up(DB).await;
    world.stop().await;

    // A deposed primary comes back, with something that was never committed.
    world.source.state().term = Term(6);
    world
        .source
        .write(DB, "INSERT INTO t VALUES (2, 'never committed')", vec![]);
    world.start().await;
    world
        .eventually("refused", async || {
            world.metric("tidemark_replica_old_terms_total") >= 2
        })
        .await;
    assert_eq!(
        world.value(unconstrained("SELECT count(*) FROM t")).await,
        1
    );
    assert_eq!(
        world.source.state().seen.hellos.last().unwrap().1,
        Term(7),
        "the hello says why"
    );

    world.source.state().term = Term(8);
    world.caught_up(DB).await;
    assert_eq!(
        world.value(unconstrained("SELECT count(*) FROM t")).await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_of_an_older_term_ends_the_connection_unapplied() {
    let world = World::new().await;
    world.source.state().term = Term(5);
    world.source.hang_up();
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
    let hellos = world.source.state().seen.hellos.len();
    world.source.state().tamper = Some(Tamper::Term(Term(4)));
    world
        .source
        .write(DB, "INSERT INTO t VALUES (2, 'two')", vec![]);
    world
        .eventually("connected anew", async || {
            world.source.state().seen.hellos.len() > hellos
        })
        .await;
    assert_eq!(world.metric("tidemark_replica_old_terms_total"), 1);
    // Asked for again under the present term, it is fine.
    world.caught_up(DB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbled_message_ends_the_connection_and_is_asked_for_again() {
    let world = World::new().await;
    let before = world.source.position(DB);
    world.source.state().tamper = Some(Tamper::Flip);
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
    assert_eq!(world.value(unconstrained("SELECT v FROM t")).await, "one");
    assert_eq!(
        world.metric("tidemark_replica_disconnects_total{reason=\"message\"}"),
        1
    );
    let state = world.source.state();
    let last = state.seen.follows.iter().rfind(|(id, _)| *id == DB);
    assert_eq!(last, Some(&(DB, Some(before))));
    assert!(
        state.seen.hashes.is_empty(),
        "the copy itself was never in doubt"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_message_that_is_none_ends_the_connection_and_is_asked_for_again() {
    let world = World::new().await;
    let spoils = [Spoil::Flip, Spoil::Lose, Spoil::Nest, Spoil::Shorten];
    for (n, spoil) in (0..).zip(spoils) {
        let hellos = world.source.state().seen.hellos.len();
        world.source.state().spoil = Some(spoil);
        // The second tells that the first was lost.
        for value in [2 * n, 2 * n + 1] {
            let insert = format!("INSERT INTO t VALUES ({value}, 'one')");
            world.source.write(DB, &insert, vec![]);
        }
        world.caught_up(DB).await;
        let state = world.source.state();
        assert!(state.spoil.is_none(), "{spoil:?}: nothing went out packed");
        assert!(state.seen.hellos.len() > hellos, "{spoil:?}");
    }
    let rows = world.value(unconstrained("SELECT count(*) FROM t")).await;
    assert_eq!(rows, 8);
    let reason = |name: &str| {
        let metric = format!("tidemark_replica_disconnects_total{{reason=\"{name}\"}}");
        world.metric(&metric)
    };
    assert_eq!(reason("protocol"), 1, "a message in a message");
    assert_eq!(reason("message"), 3);
    assert!(
        world.source.state().seen.hashes.is_empty(),
        "the copy itself was never in doubt"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn image_that_nobody_asked_for_ends_the_connection_and_changes_nothing() {
    let world = World::new().await;
    let position = world.source.position(DB);
    world.source.send(&SourceMessage::ImageBegin {
        database: DB,
        term: Term(1),
        position,
        page_count: u32::MAX,
    });
    world
        .eventually("complained", async || {
            world.metric("tidemark_replica_disconnects_total{reason=\"protocol\"}") >= 1
        })
        .await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remains_of_an_earlier_image_do_not_get_into_the_next() {
    let world = World::new().await;
    let mut pages = PagesBuilder::default();
    pages.push(PageNo(2), &[0xee; PAGE_SIZE]);
    world
        .source
        .send(&SourceMessage::NeedHashes { database: DB });
    world.source.send(&SourceMessage::Pages {
        database: DB,
        pages: pages.take(),
    });
    world.source.send(&SourceMessage::ImageEnd { database: DB });
    world
        .eventually("resynchronised", async || {
            world
                .source
                .state()
                .seen
                .hashes
                .iter()
                .any(|(id, _)| *id == DB)
        })
        .await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'one')", vec![]);
    world.caught_up(DB).await;
    assert!(world.node().verify(DB).await.unwrap().intact);
    assert_eq!(
        world.source.state().seen.hellos.len(),
        1,
        "the connection lives"
    );
}
