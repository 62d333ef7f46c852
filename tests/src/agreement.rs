//! Whether nodes have the same: every database at the same position, with the content that it says.

use std::time::Duration;

use tidemark_protocol::{DatabaseId, Position};

use crate::node::Node;
use crate::wait;

/// What the catalogue is called where a database is asked for by name.
const CATALOGUE: &str = "catalogue";

/// Waits until every node has every database of the first at the first one's position; returns the
/// positions by UUID.
pub(crate) async fn settled(nodes: &[&Node], deadline: Duration) -> Vec<(String, Position)> {
    wait::until("all nodes have the same positions", deadline, async || {
        let mut all = Vec::new();
        for node in nodes {
            let status = node.api().status().await.ok()?;
            let mut positions: Vec<_> = status
                .databases
                .iter()
                .map(|database| (database.uuid.to_string(), database.position))
                .collect();
            positions.sort_by(|a, b| a.0.cmp(&b.0));
            all.push(positions);
        }
        let first = all.swap_remove(0);
        all.iter().all(|other| *other == first).then_some(first)
    })
    .await
}

/// Waits until all nodes agree, then has each recompute the checksums of all databases from their
/// pages. Panics if any is not what its position says.
pub(crate) async fn verified(nodes: &[&Node], deadline: Duration) {
    let catalogue = DatabaseId::CATALOGUE.to_string();
    for (uuid, position) in settled(nodes, deadline).await {
        for node in nodes {
            let database = if uuid == catalogue { CATALOGUE } else { &uuid };
            let found = node.api().verify(database).await;
            assert_eq!(found.position, position, "{uuid} on {}", node.name());
            assert!(
                found.intact,
                "{uuid} on {} is not intact: {found:?}",
                node.name()
            );
        }
    }
}
