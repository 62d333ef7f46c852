//! The soak, shortly: that it goes through its epochs, and that it finds what it is there for.

use std::time::Duration;

use tidemark_tests::Seed;
use tidemark_tests::soak::{Report, Soak};

use crate::PROGRAM;

async fn soak(test: &str, saboteur: Option<&'static str>) -> Report {
    let soak = Soak {
        program: PROGRAM.to_owned(),
        seed: Seed::of(test),
        duration: Duration::from_secs(25),
        epoch: Duration::from_secs(4),
        warm_up: Duration::ZERO,
        saboteur,
    };
    soak.run(|report| eprintln!("{report}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_cell_comes_through_its_epochs() {
    let report = soak("a_sound_cell_comes_through_its_epochs", None).await;
    assert!(report.sound(), "{report}");
    assert!(report.epochs >= 2 && !report.faults.is_empty(), "{report}");
    assert_eq!(report.disk_mib.len(), 6, "every node was measured");
    assert!(report.clients["writes committed"] > 100, "{report}");
    assert_eq!(report.files, None, "nothing is left behind");
}

/// Replicas that do not wait for bookmarks: sessions go back, and a soak that did not see it would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_break_a_promise_are_found() {
    let test = "replicas_that_break_a_promise_are_found";
    let report = soak(test, Some("sabotage::wait")).await;
    assert!(!report.sound(), "{report}");
    let files = report
        .files
        .expect("the files are kept for whoever looks into it");
    std::fs::remove_dir_all(files).expect("remove them");
}
