//! A database that goes and comes back, as when its replication is switched off and on.
//!
//! At stake: the files of the copy that goes and of the one that comes have the same name.

use std::pin::pin;
use std::sync::Arc;

use tidemark_protocol::node::Node;
use tidemark_protocol::{DatabaseId, Executed, FailureKind, Value};

use crate::world::{DB, World, at_least, ms, unconstrained};

fn set_replicated(world: &World, replicated: bool) {
    let sql = "UPDATE databases SET replicated = ? WHERE uuid = ?";
    let params = vec![
        Value::Integer(i64::from(replicated)),
        Value::Text(DB.to_string()),
    ];
    world.source.write(DatabaseId::CATALOGUE, sql, params);
}

async fn until_listed(world: &World, listed: bool) {
    let what = if listed { "listed" } else { "let go of" };
    world
        .eventually(what, async || world.status(DB).await.is_some() == listed)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_listed_again_while_its_old_copy_is_read_begins_anew_when_that_is_gone() {
    let mut world = World::new().await;
    world
        .source
        .write(DB, "INSERT INTO t VALUES (1, 'old')", vec![]);
    world.caught_up(DB).await;

    let mut endless = unconstrained(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c",
    );
    endless.deadline = ms(1500);
    let node = Arc::clone(world.replica.as_ref().unwrap());
    {
        let mut read = pin!(node.execute(endless));
        // Polled once, it holds the files.
        tokio::select! {
            biased;
            ended = &mut read => panic!("it ended: {ended:?}"),
            () = std::future::ready(()) => {}
        }
        // Twice: the one in between goes before it was ever opened.
        for _ in 0..2 {
            set_replicated(&world, false);
            until_listed(&world, false).await;
            assert!(world.files_of(DB).exists(), "it is still read");
            set_replicated(&world, true);
            until_listed(&world, true).await;
        }
        world
            .source
            .write(DB, "INSERT INTO t VALUES (2, 'new')", vec![]);
        let request = at_least("SELECT count(*) FROM t", world.source.bookmark(DB));
        let executed = world.execute(request).await.unwrap();
        assert!(
            !matches!(executed, Executed::Answer(_)),
            "handed on: {executed:?}"
        );
        let failure = read.await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Deadline);
    }

    world.caught_up(DB).await;
    let request = at_least("SELECT count(*) FROM t", world.source.bookmark(DB));
    assert_eq!(world.value(request.clone()).await, 2);
    // What it has is on disk under its name.
    drop(node);
    world.restart().await;
    world.source.silence();
    assert_eq!(world.value(request).await, 2);
}
