//! Whether replicas have what the primary has, looked at without a look at every answer's form.

use std::collections::HashMap;
use std::time::Duration;

use tidemark_protocol::{DatabaseId, Position};
use tidemark_tests::{Cluster, Node};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until every replica has all databases at the positions of the primary, or but for so many transactions of
/// each.
pub(crate) async fn agreed(cluster: &Cluster, but_for: u64, limit: Duration) -> anyhow::Result<()> {
    let agreed = async {
        while !cluster_agrees(cluster, but_for).await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(limit, agreed).await?;
    Ok(())
}

async fn cluster_agrees(cluster: &Cluster, but_for: u64) -> bool {
    let Some(primary) = positions(&cluster.primary).await else {
        return false;
    };
    for replica in &cluster.replicas {
        let has = |(database, at): (&DatabaseId, &Position), there: &HashMap<_, Position>| {
            there
                .get(database)
                .is_some_and(|there| there.seq.0 + but_for >= at.seq.0)
        };
        match positions(replica).await {
            Some(there) if primary.iter().all(|one| has(one, &there)) => {}
            _ => return false,
        }
    }
    true
}

async fn positions(node: &Node) -> Option<HashMap<DatabaseId, Position>> {
    let status = Cluster::client(node).node_status().await.ok()?;
    let databases = status.databases.into_iter();
    Some(
        databases
            .map(|database| (database.uuid, database.position))
            .collect(),
    )
}
