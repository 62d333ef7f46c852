//! `tidemark verify --data` on the files of nodes that do not run: every byte that changes is found, nothing that a
//! kill leaves is taken for damage, and what is repaired agrees with the others again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tidemark_tests::{Cell, Cluster, Layout, Load, Node, Place, Seed, Workload, flip_bit, wait};

use crate::PROGRAM;

/// Flips of each file.
const FLIPS: usize = 12;

fn verify(data: &Path, more: &[&str]) -> Output {
    let mut verify = Command::new(PROGRAM);
    verify.arg("verify").arg("--data").arg(data).args(more);
    verify.output().expect("run tidemark verify")
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn assert_sound(node: &Node) {
    let output = verify(&node.data(), &["--full"]);
    assert!(
        output.status.success(),
        "{}: {}",
        node.name(),
        text(&output)
    );
}

/// The files of a kind below a node's directory that have any bytes.
fn files(data: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("list a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.file_name().expect("a name").to_string_lossy();
            let is_kind = name == kind || kind == "log" && name.ends_with(".wal");
            if is_kind && path.metadata().expect("a file").len() > 0 {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    found
}

/// Changes one bit after another of every file of this kind, and back: each must be found.
fn check_flips(node: &Node, kind: &str, random: &mut fastrand::Rng) {
    let files = files(&node.data(), kind);
    assert!(!files.is_empty(), "{} has no {kind}", node.name());
    for path in files {
        let length = path.metadata().expect("a file").len();
        for _ in 0..FLIPS {
            let offset = random.u64(..length);
            flip_bit(&path, offset);
            let output = verify(&node.data(), &[]);
            let told = text(&output);
            let what = format!("{}, byte {offset} of {length}: {told}", path.display());
            assert_eq!(output.status.code(), Some(1), "{what}");
            let name = path.file_name().expect("a name").to_string_lossy();
            assert!(told.contains(&*name) && told.contains("DAMAGE"), "{what}");
            flip_bit(&path, offset);
        }
    }
    assert_sound(node);
}

/// Takes away what others count on, and puts it back: that must be noticed though all that is left fits.
fn check_losses(node: &Node) {
    let data = node.data();
    let aside = data.join("aside");
    let segments = files(&data, "log");
    let last = segments.last().expect("a segment");
    for lost in [&data.join("log"), &data.join("chain"), last] {
        std::fs::rename(lost, &aside).expect("moved");
        let output = verify(&data, &[]);
        std::fs::rename(&aside, lost).expect("moved back");
        let told = text(&output);
        assert_eq!(output.status.code(), Some(1), "{}: {told}", lost.display());
    }
    assert_sound(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_byte_that_changes_in_any_kind_of_file_is_found() {
    let mut random = Seed::of("any_byte_that_changes_in_any_kind_of_file_is_found").stream(0);
    let words = ["--checkpoint-every", "1MiB"];
    let mut cluster = Cluster::told(PROGRAM, &[Place::near("WEUR")], &words).await;
    let api = cluster.primary.api();
    api.create("shop").await;
    api.query(
        "shop",
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB); CREATE INDEX i ON t (b)",
    )
    .ok()
    .await;
    let write = || {
        let sql = "INSERT INTO t (b) VALUES (randomblob(20000))";
        api.query("shop", sql)
            .header("tidemark-request-id", &uuid::Uuid::new_v4().to_string())
    };
    let chain = cluster.primary.data().join("chain");
    wait::soon("the log was persisted", async || {
        write().ok().await;
        chain.exists().then_some(())
    })
    .await;
    write().ok().await;
    cluster.settled(wait::SOON).await;

    let running = verify(&cluster.primary.data(), &[]);
    assert!(
        running.status.code() == Some(2) && text(&running).contains("is using"),
        "{running:?}"
    );
    let nobody = tempfile::tempdir().expect("a directory");
    assert_eq!(verify(nobody.path(), &[]).status.code(), Some(2));

    // The WAL is there after a kill; pages of the main file that it covers are no use to anybody.
    cluster.primary.kill();
    assert_sound(&cluster.primary);
    for kind in [
        "log",
        "log.synced",
        "applied",
        "chain",
        "positions",
        "requests",
    ] {
        check_flips(&cluster.primary, kind, &mut random);
    }
    check_losses(&cluster.primary);
    // What a start writes anew needs no other voter.
    let synced = cluster.primary.data().join("log.synced");
    flip_bit(&synced, 9);
    let output = verify(&cluster.primary.data(), &["--repair"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!synced.exists());
    assert_sound(&cluster.primary);
    // A replica that is told to stop moves everything into the file.
    cluster.replicas[0].stop().await;
    assert_sound(&cluster.replicas[0]);
    for kind in ["main.db", "positions"] {
        check_flips(&cluster.replicas[0], kind, &mut random);
    }
    let term = cluster.replicas[0].data().join("term");
    let good = std::fs::read(&term).expect("the term");
    std::fs::write(&term, "x").expect("a bad term");
    let output = verify(&cluster.replicas[0].data(), &["--repair"]);
    assert!(
        text(&output).contains("empty directory"),
        "{}",
        text(&output)
    );
    std::fs::write(&term, good).expect("the term again");
    cluster.primary.start();
    cluster.primary.ready().await;
    cluster.replicas[0].start();
    cluster.verified(wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_leaves_is_sound_time_after_time() {
    let seed = Seed::of("what_a_kill_leaves_is_sound_time_after_time");
    let mut random = seed.stream(0);
    let mut cell = Cell::of(PROGRAM, Layout::default()).await;
    let mut workload = Workload::start(&cell, seed, Load::default()).await;
    for _ in 0..crate::faults::rounds(4) {
        workload.progress(random.usize(1..200), wait::SOON).await;
        workload.fault(None);
        cell.nodes_mut().for_each(Node::kill);
        cell.nodes().for_each(assert_sound);
        cell.nodes_mut().for_each(Node::start);
        for node in cell.nodes_mut() {
            node.ready().await;
        }
    }
    workload.judged(&cell, wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_repaired_is_fetched_and_agrees_and_nothing_is_invented() {
    let seed = Seed::of("what_is_repaired_is_fetched_and_agrees_and_nothing_is_invented");
    let mut random = seed.stream(0);
    let mut cell = Cell::of(PROGRAM, Layout::default()).await;
    let mut workload = Workload::start(&cell, seed, Load::default()).await;
    workload.progress(200, wait::SOON).await;
    workload.judged(&cell, wait::SOON).await;
    let leader = cell.leader().await;
    let follower = (leader + 1) % 3;

    cell.replicas[0].stop().await;
    cell.voters[follower].kill();
    for node in [&cell.replicas[0], &cell.voters[follower]] {
        for path in files(&node.data(), "positions") {
            let length = path.metadata().expect("a file").len();
            flip_bit(&path, random.u64(24..length));
            assert_eq!(verify(&node.data(), &[]).status.code(), Some(1));
        }
        let output = verify(&node.data(), &["--repair"]);
        assert!(
            output.status.success(),
            "{}: {}",
            node.name(),
            text(&output)
        );
        // Out of use, and not thrown away.
        let mut left = files(&node.data(), "main.db");
        left.retain(|path| !path.to_string_lossy().contains(".set-aside"));
        assert_eq!(left, [] as [PathBuf; 0], "{}", node.name());
        let marked = files(&node.data(), "main.db.damaged").len();
        let aside = files(&node.data(), "main.db").len();
        assert!(marked + aside > 0, "{}", node.name());
    }
    cell.replicas[0].start();
    cell.voters[follower].start();
    cell.replicas[0].ready().await;
    cell.voters[follower].ready().await;
    cell.verified(wait::SOON).await;
    assert_eq!(
        files(&cell.voters[follower].data(), "damaged"),
        [] as [PathBuf; 0]
    );
    let aside = files(&cell.voters[follower].data(), "main.db.damaged");
    assert_eq!(aside, [] as [PathBuf; 0], "the copy is back");

    // Nobody is there to have it.
    cell.nodes_mut().for_each(Node::kill);
    let lone = &cell.voters[follower];
    let positions = files(&lone.data(), "positions");
    let length = positions[0].metadata().expect("a file").len();
    flip_bit(&positions[0], length - 1);
    let output = verify(&lone.data(), &["--repair"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("no other voter has it"),
        "{}",
        text(&output)
    );
    assert!(
        !files(&lone.data(), "main.db").is_empty(),
        "nothing was thrown away"
    );
    // A log is nothing that anybody else could have.
    flip_bit(&positions[0], length - 1);
    let log = files(&lone.data(), "log");
    flip_bit(&log[0], 30);
    let output = verify(&lone.data(), &["--repair"]);
    assert!(
        text(&output).contains("Replace the voter"),
        "{}",
        text(&output)
    );
}
