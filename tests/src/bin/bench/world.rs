//! Six regions as far apart as published: a primary in ENAM, and a replica in each of the others.

use tidemark_client::Client;
use tidemark_deploy::distance;
use tidemark_tests::{Cluster, Place};

use crate::server::node_program;

/// Where the primary is.
pub(crate) const HOME: &str = "ENAM";
const AWAY: [&str; 5] = ["WNAM", "WEUR", "EEUR", "APAC", "OC"];

/// What a client in one region can ask.
pub(crate) struct Region {
    pub(crate) name: &'static str,
    /// Round trip to the primary, in milliseconds.
    pub(crate) round_trip_ms: f64,
    /// The region's own node.
    pub(crate) near: Client,
    /// The primary, from here.
    pub(crate) primary: Client,
}

/// Starts the nodes. They stop when the cluster is dropped.
pub(crate) async fn start() -> anyhow::Result<(Cluster, Vec<Region>)> {
    let home = HOME.parse()?;
    let mut places = Vec::new();
    for name in AWAY {
        let one_way = distance::one_way(&home, &name.parse()?);
        let one_way = one_way.ok_or_else(|| anyhow::anyhow!("no distance to {name}"))?;
        places.push(Place::at(name, one_way));
    }
    let cluster = Cluster::start(&node_program()?, &places).await;

    let local = Cluster::client(&cluster.primary);
    let mut regions = vec![Region {
        name: HOME,
        round_trip_ms: 0.0,
        near: local.clone(),
        primary: local,
    }];
    for ((replica, way), place) in cluster.replicas.iter().zip(&cluster.ways).zip(&places) {
        // A client there goes the same way to the primary as the replica does.
        let primary = Client::builder(format!("http://{}", way.address())).build()?;
        regions.push(Region {
            name: place.region,
            round_trip_ms: 2e3 * place.link.delay.as_secs_f64(),
            near: Cluster::client(replica),
            primary,
        });
    }
    Ok((cluster, regions))
}
