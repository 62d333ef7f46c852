//! Looking at the cluster: the map, and how far its nodes are.
//!
//! 1. A request finds that a look is due ([`Atlas::look_if_due`](crate::atlas::Atlas::look_if_due)) and begins one
//!    beside itself; it waits for nothing. A client that asks nothing looks at nothing.
//! 2. A few nodes are probed, all at once: twice each `GET /ready`, the shorter of which is its round trip, as the
//!    first may have made the connection. That needs no token, and none is sent.
//! 3. The nearest fit node is turned to, if it is worth it.
//! 4. At some of the looks that one is asked for the map. If it tells of somebody new, 2 and 3 are repeated.
//!
//! One look at a time, every question with a deadline. What fails costs nobody anything but its own place.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap};
use tidemark_protocol::cluster::{CLUSTER_PATH, ClusterMap};
use tidemark_protocol::headers::{CLUSTER, DEADLINE, SERVED_BY};
use tidemark_protocol::node::Role;
use tidemark_protocol::{ClusterId, NodeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::answer::ServedBy;
use crate::atlas::{NodeUrl, Sighting};
use crate::builder::base_url;
use crate::client::Client;
use crate::nodes::{KnownNode, Nearest, Nodes};
use crate::transport::Reply;

/// Time for a node to answer a probe, both its questions and a connection included: a node at the other end of the
/// world does in half of it.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Time for the map, and what the node is told of it: it may have to ask the one that leads.
const MAP_WAIT: Duration = Duration::from_secs(2);
const MAP_WAIT_TOLD: &str = "1500ms";

impl Client {
    /// Looks at the cluster now and turns to the nearest node, and tells of all that are known, the best first. For
    /// a program that does not want its first requests to go to the node that was given first. Without
    /// [`ClientBuilder::nearest`](crate::ClientBuilder::nearest) nothing is looked at.
    pub async fn look_around(&self) -> Vec<KnownNode> {
        if let Nodes::Nearest(nearest) = self.nodes() {
            let asked = Instant::now();
            let turn = nearest.turn.lock().await;
            if !nearest.atlas().looked_after(asked) {
                nearest.atlas().look(Instant::now());
                self.look(nearest).await;
            }
            drop(turn);
        }
        self.known_nodes()
    }

    /// The nodes that the client knows of, the best to ask first. Nothing is sent.
    pub fn known_nodes(&self) -> Vec<KnownNode> {
        self.nodes().known()
    }

    /// Begins a look beside this request, if it is time to and nobody looks.
    pub(crate) fn look_around_if_due(&self) {
        let Nodes::Nearest(nearest) = self.nodes() else {
            return;
        };
        let Ok(turn) = Arc::clone(&nearest.turn).try_lock_owned() else {
            return;
        };
        if !nearest.atlas().look_if_due(Instant::now()) {
            return;
        }
        let client = self.clone();
        // Nobody waits for it. It ends by its deadlines, or with the runtime.
        tokio::spawn(async move {
            if let Nodes::Nearest(nearest) = client.nodes() {
                client.look(nearest).await;
            }
            drop(turn);
        });
    }

    async fn look(&self, nearest: &Nearest) {
        let before = self.nodes().preferred();
        self.probe_some(nearest).await;
        let map_from = nearest.atlas().map_from();
        if let Some(node) = map_from {
            match timeout(MAP_WAIT, self.map(&node)).await {
                Ok(Some(map)) => {
                    let plain = nearest.plain;
                    let news = nearest.atlas().drawn(&map, |url| told_url(url, plain));
                    if news {
                        self.probe_some(nearest).await;
                    }
                }
                Ok(None) | Err(_) => tracing::debug!(%node, "no map of the cluster from this node"),
            }
        }
        let after = self.nodes().preferred();
        if before != after {
            tracing::info!(%before, %after, "turning to a nearer node");
        }
    }

    /// Probes some of the nodes, and turns to the nearest.
    async fn probe_some(&self, nearest: &Nearest) {
        let urls = nearest.atlas().probes(Instant::now());
        let mut probes = JoinSet::new();
        for url in urls {
            let client = self.clone();
            probes.spawn(async move {
                let seen = timeout(PROBE_WAIT, client.probe(&url)).await;
                (url, seen.ok().flatten())
            });
        }
        while let Some(probed) = probes.join_next().await {
            if let Ok((url, seen)) = probed {
                nearest.atlas().probed(&url, seen);
            }
        }
        nearest.atlas().looked(Instant::now(), self.dice());
    }

    async fn map(&self, node: &NodeUrl) -> Option<ClusterMap> {
        let url = format!("{node}{CLUSTER_PATH}");
        let mut request = self.http().get(url).header(DEADLINE, MAP_WAIT_TOLD);
        if let Some(token) = self.authorization() {
            request = request.header(AUTHORIZATION, token);
        }
        let response = request.send().await.ok()?.error_for_status().ok()?;
        let headers = response.headers().clone();
        let body = self.read(response).await.ok()?;
        Reply::new(headers, body).result().ok()
    }

    /// Who is there and how far, if it can serve.
    async fn probe(&self, node: &NodeUrl) -> Option<Sighting> {
        let url = format!("{node}/ready");
        let mut round_trip = Duration::MAX;
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            let asked = Instant::now();
            let response = self.http().get(&url).send().await.ok()?;
            round_trip = round_trip.min(asked.elapsed());
            if !response.status().is_success() {
                return None;
            }
            headers = response.headers().clone();
            // To its end, or the connection is of no more use.
            self.read(response).await.ok()?;
        }
        let text = |name| headers.get(name)?.to_str().ok();
        let signature = text(SERVED_BY).and_then(|text| text.parse::<ServedBy>().ok());
        let signature = signature.as_ref();
        let number = |by: &ServedBy| u64::from_str_radix(&by.node, 16).ok().map(NodeId);
        Some(Sighting {
            node: signature.and_then(number),
            region: signature.and_then(|by| by.region.parse().ok()),
            role: signature.and_then(role),
            cluster: text(CLUSTER).and_then(|text| text.parse::<ClusterId>().ok()),
            round_trip,
        })
    }
}

fn role(by: &ServedBy) -> Option<Role> {
    match by.role.as_str() {
        "primary" => Some(Role::Primary),
        "replica" => Some(Role::Replica),
        _ => None,
    }
}

/// The base URL of a node that the map tells of, if the token may go there: never without encryption to a node that
/// others told of, where every node that was given is asked with it.
fn told_url(url: &str, plain: bool) -> Option<NodeUrl> {
    let base = base_url(url).ok()?;
    (plain || base.starts_with("https:")).then(|| base.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_does_not_go_unencrypted_where_only_the_map_says_to() {
        let told = |url, plain| told_url(url, plain).map(|url| url.to_string());
        let plain = "http://10.0.0.1:8787";
        assert_eq!(told(plain, true).as_deref(), Some(plain));
        assert_eq!(told(plain, false), None);
        for nonsense in ["", "10.0.0.1:8787", "ftp://10.0.0.1", "http://h/?q"] {
            assert_eq!(told(nonsense, true), None, "{nonsense}");
        }
    }
}
