//! A voter whose copy of a database is damaged fetches what differs from the leader, and nothing else.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use serde_json::json;
use tidemark_protocol::Node;

use crate::harness::{request, rows};
use crate::install::{
    COUNT, FETCHED, KEPT, ROWS, filled, kill_a_follower, make_leader, short_log, write_past,
};
use crate::voters::{Cell, eventually};

/// In the middle of a file of more than 400 pages.
const DAMAGED_OFFSET: u64 = 200 * 4096 + 1234;

#[tokio::test(flavor = "multi_thread")]
async fn damaged_copy_of_a_follower_is_fetched_from_the_leader_and_can_lead() {
    let cell = Cell::start_tuned(short_log).await;
    let db = filled(&cell, "shop", 100).await;
    // Past this the log does not bring the pages again.
    write_past(&cell, db, 20, 1000).await;
    let (damaged, _) = kill_a_follower(&cell).await;
    let file = cell.home(damaged).join("databases").join(db.to_string());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file.join("main.db"))
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, DAMAGED_OFFSET).unwrap();
    file.write_all_at(&[!byte[0]], DAMAGED_OFFSET).unwrap();
    drop(file);

    cell.start_voter(damaged).await;
    eventually("the copy is whole again", async || {
        let (_, voter) = cell.running().into_iter().find(|(n, _)| *n == damaged)?;
        let verified = voter.verify(db).await.ok()?;
        verified.intact.then_some(())
    })
    .await;
    let (fetched, kept) = (cell.counted(damaged, FETCHED), cell.counted(damaged, KEPT));
    assert!(
        (1..10).contains(&fetched) && kept > 380,
        "fetched {fetched}, kept {kept}"
    );

    make_leader(&cell, damaged).await;
    let count = cell.run(request(db, COUNT, &[])).await;
    assert_eq!(rows(&count), json!([[ROWS]]));
    cell.settled().await;
}
