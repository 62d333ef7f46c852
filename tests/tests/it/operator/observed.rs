//! Alerts and dashboard against nodes that run.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemark_tests::{Cluster, Place, wait};

use super::{exposition, queries};
use crate::PROGRAM;

/// What Prometheus makes by itself.
const OF_PROMETHEUS: &str = "up";

/// A query that names a metric which no node shows draws nothing and alerts nobody, without a word.
#[tokio::test]
async fn alerts_and_dashboard_name_metrics_that_nodes_show() {
    let cluster = Cluster::start(PROGRAM, &[Place::near("WEUR")]).await;
    let replica = &cluster.replicas[0];
    let session = Cluster::client(replica)
        .database("shop")
        .session(tidemark_client::SessionStart::Unconstrained);
    cluster.primary.api().create("shop").await;
    session
        .prepare("CREATE TABLE t (a)")
        .run()
        .await
        .expect("a write by way of the replica");
    cluster.settled(wait::SOON).await;
    session
        .prepare("SELECT a FROM t")
        .run()
        .await
        .expect("a read");

    let mut shown = BTreeSet::from([OF_PROMETHEUS.to_owned()]);
    for node in cluster.nodes() {
        // The replica's confirmation may still be on its way: what is shown does not depend on it.
        let reply = node.api().get("/metrics").await.expect("the node answers");
        shown.extend(exposition::samples(&reply.text));
    }
    let mut asked = BTreeSet::new();
    for query in queries::all() {
        let missing: Vec<_> = query.metrics().difference(&shown).cloned().collect();
        assert!(
            missing.is_empty(),
            "{} asks for {missing:?}, which no node shows",
            query.of
        );
        asked.extend(query.metrics());
    }
    assert!(asked.len() > 30, "{asked:?}");
}

/// An alert wakes somebody: it must say what it means and what to do, and wait out what mends itself.
#[test]
fn alerts_are_explained_and_patient() {
    let manual = std::fs::read_to_string(super::path("../docs/operations.md"));
    let manual = manual.expect("docs/operations.md");
    let alerts = queries::alerts();
    assert!(alerts.len() >= 15);
    for (name, rule) in &alerts {
        assert!(
            manual.contains(&format!("`{name}`")),
            "{name} is not explained"
        );
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(
            ["page", "ticket"].contains(&severity),
            "{name}: severity '{severity}'"
        );
        assert!(
            rule["annotations"]["summary"].is_string(),
            "{name} has no summary"
        );
        // Those without look back over a time of their own.
        let looks_back = rule["expr"].as_str().is_some_and(|text| text.contains('['));
        assert!(
            rule["for"].is_string() || looks_back,
            "{name} fires at once"
        );
    }
    let names: BTreeSet<_> = alerts.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), alerts.len(), "a name is used twice");
}

/// Grafana drops panels whose ids are the same, and draws those that overlap over each other.
#[test]
fn dashboard_s_panels_have_ids_places_and_a_data_source_of_their_own() {
    let dashboard = queries::dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = &panel["title"];
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{title}: its id is another's"
        );
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(x + w <= 24, "{title} is wider than the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(
                taken.insert(cell),
                "{title} lies over another panel at {cell:?}"
            );
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(
                !panel["targets"].as_array().expect("targets").is_empty(),
                "{title}"
            );
        }
    }
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables");
    let names: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "cluster"]);
}

/// Longest that a promtool may take.
const PROMTOOL_WAIT: Duration = Duration::from_secs(60);

/// The same parser that Prometheus has, where it is installed.
#[tokio::test]
async fn promtool_accepts_rules_and_configuration() {
    for (what, file) in [
        ("rules", "prometheus/alerts.yml"),
        ("config", "prometheus/prometheus.yml"),
    ] {
        let mut promtool = std::process::Command::new("promtool");
        promtool.args(["check", what]).arg(super::path(file));
        match crate::d1::program::run(&mut promtool, PROMTOOL_WAIT).await {
            Ok(ran) => assert!(ran.success(), "{ran:?}"),
            Err(error) => crate::d1::tools::skipped(&format!("no promtool: {error}")),
        }
    }
}
