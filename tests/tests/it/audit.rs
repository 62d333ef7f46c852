//! The auditor of a replica: bytes that change under a running node, while nobody writes.

use std::path::Path;
use std::time::Duration;

use tidemark_protocol::PAGE_SIZE;
use tidemark_tests::{Cluster, Node, Place, Seed, flip_bit, wait};

use crate::PROGRAM;

/// A large one stays open, of more than 4 MiB; a small one sleeps.
const LARGE_ROWS: u32 = 6000;
const SMALL_ROWS: u32 = 20;
/// Bytes before the first frame of a WAL, and before the page of each.
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

async fn metric(node: &Node, name: &str) -> f64 {
    let figure = node.api().metric(name).await.expect("the node answers");
    figure.unwrap_or_else(|| panic!("no {name}"))
}

async fn reaches(node: &Node, name: &str, at_least: f64) {
    wait::soon(&format!("{name} reaches {at_least}"), async || {
        (metric(node, name).await >= at_least).then_some(())
    })
    .await;
}

/// A place that the state's content depends on: of a page in the WAL if there is one, else of the file.
fn a_place(random: &mut fastrand::Rng, main: &Path) -> (std::path::PathBuf, u64) {
    let wal = main.with_file_name("main.db-wal");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let in_page = random.u64(200..PAGE_SIZE as u64);
    let frame = FRAME_HEADER + PAGE_SIZE as u64;
    match length(&wal).saturating_sub(WAL_HEADER) / frame {
        0 => {
            let pages = length(main) / PAGE_SIZE as u64;
            let page = random.u64(..pages);
            (main.to_owned(), page * PAGE_SIZE as u64 + in_page)
        }
        // The last frame is the newest image of its page.
        frames => (
            wal,
            WAL_HEADER + (frames - 1) * frame + FRAME_HEADER + in_page,
        ),
    }
}

async fn check(test: &str, rows: u32, idle: &str, sleeps: bool) {
    let mut random = Seed::of(test).stream(0);
    let words = ["--audit-every", "1s", "--idle-wait", idle];
    let cluster = Cluster::told(PROGRAM, &[Place::near("WEUR")], &words).await;
    let api = cluster.primary.api();
    let uuid = api.create("shop").await;
    let fill = format!(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO t SELECT i, randomblob(1000) FROM n"
    );
    api.query("shop", &fill).ok().await;
    let positions = cluster.settled(wait::SOON).await;
    let replica = &cluster.replicas[0];
    if sleeps {
        reaches(replica, "tidemark_replica_sleeps_total", 1.0).await;
    }
    // At least one whole round without a finding.
    let audits = metric(replica, "tidemark_replica_audits_total").await;
    reaches(replica, "tidemark_replica_audits_total", audits + 4.0).await;
    assert_eq!(
        metric(replica, "tidemark_replica_audit_violations_total").await,
        0.0
    );

    let (path, offset) = a_place(&mut random, &replica.database_file(&uuid));
    eprintln!("{} at {offset}", path.display());
    flip_bit(&path, offset);
    reaches(replica, "tidemark_replica_audit_violations_total", 1.0).await;
    wait::soon("the copy is repaired", async || {
        let status = replica.api().status().await.ok()?;
        let own = status
            .databases
            .iter()
            .find(|own| own.uuid.to_string() == uuid)?;
        let as_before = positions.contains(&(uuid.clone(), own.position));
        (own.damaged.is_none() && as_before).then_some(())
    })
    .await;
    assert!(replica.api().verify("shop").await.intact);
    let damaged = "tidemark_replica_resyncs_total{reason=\"damaged\"}";
    assert!(metric(replica, damaged).await >= 1.0);
    assert_eq!(cluster.settled(wait::SOON).await, positions, "nobody wrote");
    cluster.verified(wait::SOON).await;
    // The rounds go on, and find nothing more.
    let audits = metric(replica, "tidemark_replica_audits_total").await;
    reaches(replica, "tidemark_replica_audits_total", audits + 4.0).await;
    assert_eq!(
        metric(replica, "tidemark_replica_audit_violations_total").await,
        1.0
    );
    let age = metric(replica, "tidemark_replica_audit_age_seconds").await;
    assert!(Duration::from_secs_f64(age) < wait::SOON, "{age} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_that_changes_in_an_open_copy_is_found_without_a_write_and_repaired() {
    let test = "byte_that_changes_in_an_open_copy_is_found_without_a_write_and_repaired";
    check(test, LARGE_ROWS, "1h", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_that_changes_in_a_copy_that_sleeps_is_found_without_a_read_and_repaired() {
    let test = "byte_that_changes_in_a_copy_that_sleeps_is_found_without_a_read_and_repaired";
    check(test, SMALL_ROWS, "1s", true).await;
}
