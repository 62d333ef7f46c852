//! A replica that is broken on purpose, in a process of its own: the judge finds what it shows.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the other tests of this crate need the rest"
)]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tidemark_checker::{Asked, Check, Entry, History, Read, check, check_values};
use tidemark_protocol::Term;

use crate::world::{DB, World, unconstrained};

#[path = "it/source.rs"]
mod source;
#[path = "it/world.rs"]
mod world;

/// With the check in place: `source_of_an_older_term_is_refused_even_after_a_restart`.
#[tokio::test(flavor = "multi_thread")]
async fn replica_that_takes_an_old_term_is_found() {
    let mut world = World::new().await;
    world.source.state().term = Term(7);
    world.source.hang_up();
    world.caught_up(DB).await;
    world.stop().await;

    fail::cfg("sabotage::term", "return").unwrap();
    // A deposed primary comes back, with something that was never committed.
    world.source.state().term = Term(6);
    let insert = "INSERT INTO t VALUES (1, 'never committed')";
    world.source.write(DB, insert, vec![]);
    world.start().await;
    world
        .eventually("shown", async || {
            world.value(unconstrained("SELECT count(*) FROM t")).await == 1
        })
        .await;

    let shown = Entry { place: 1, value: 1 };
    let history = History {
        reads: vec![Read {
            session: None,
            asked: Asked::Anything,
            invoked: Duration::ZERO,
            returned: Duration::ZERO,
            position: world.source.position(DB),
            newest: vec![shown],
            node: "replica".to_owned(),
        }],
        ..History::default()
    };
    let checks: Vec<_> = check(&history, &[]).iter().map(|one| one.check()).collect();
    assert_eq!(checks, [Check::Uncommitted]);
    assert_eq!(check_values(&history, &[]).len(), 1);
}
