//! What the nodes show of themselves.

use super::cluster::{Cluster, Service};

pub(crate) async fn check(cluster: &Cluster<'_>) {
    for service in Service::NODES {
        let shown = cluster.api(service).get("/metrics").await;
        assert_eq!(shown.expect("the node answers").status, 200);
    }
}
