//! The map of a cluster: which nodes there are, where, in which part, how far behind, and under which URL.
//! Clients choose a node by it, people look at it.
//!
//! It is JSON under [`CLUSTER_PATH`], for whoever may use the API. The node that leads draws it, and the others
//! have it drawn there; where nobody leads, a node draws what it knows itself, which is not all.
//!
//! Trap: identifiers of nodes are texts here, unlike in [`NodeStatus`]: programs that read every number as a
//! float would round them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cell::CellMember;
use crate::id::{ClusterId, NodeId, Region, Term};
use crate::node::{NodeStatus, ReplicaStatus, Role};

/// Where nodes tell the map.
pub const CLUSTER_PATH: &str = "/tidemark/v1/cluster";

/// The nodes of a cluster as one of them sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterMap {
    /// The node that drew it.
    #[serde(with = "as_text")]
    pub drawn_by: NodeId,
    /// The cluster, if that node knows which it is of.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// Whether that node leads: only then everybody is on it.
    pub complete: bool,
    /// Newest term that node has seen.
    pub term: Term,
    /// Transactions committed there since the first, over all databases.
    pub commits: u64,
    /// The nodes: voters by id, then replicas by region and id.
    pub nodes: Vec<ClusterNode>,
}

/// A node on the map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterNode {
    /// Its identifier.
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// Its part.
    pub role: Role,
    /// Its region.
    pub region: Region,
    /// Base URL under which it says that it is reached.
    pub url: Option<String>,
    /// Whether it leads.
    pub leading: bool,
    /// Whether it votes.
    pub voter: bool,
    /// Transactions, of a voter log entries, committed and not yet known to be there.
    pub behind: Option<u64>,
    /// Milliseconds that it trails by, as the leader's clock has it: the age of the oldest transaction that it
    /// has not confirmed, and at least the time that the newest message to it took to be answered. Of a voter:
    /// since it last answered.
    pub lag_ms: Option<u64>,
}

impl ClusterMap {
    /// The map that a node with this status draws. `url` is its own.
    pub fn drawn(status: &NodeStatus, cluster: Option<ClusterId>, url: Option<&str>) -> Self {
        let mut nodes = voters(status);
        if !nodes.iter().any(|known| known.node == status.node) {
            nodes.push(ClusterNode {
                node: status.node,
                role: status.role,
                region: status.region.clone(),
                url: url.map(str::to_owned),
                leading: status.leading,
                voter: status.role == Role::Primary,
                behind: status.leading.then_some(0),
                lag_ms: status.leading.then_some(0),
            });
        }
        nodes.sort_by_key(|known| known.node);
        let mut replicas: Vec<_> = status.replicas.iter().map(replica).collect();
        replicas.sort_by(|a, b| (&a.region.as_str(), a.node).cmp(&(&b.region.as_str(), b.node)));
        // One that has just connected anew may still be listed under its old connection.
        replicas.dedup_by_key(|known| known.node);
        nodes.extend(replicas);
        let positions = status.databases.iter().map(|database| database.position);
        Self {
            drawn_by: status.node,
            cluster,
            complete: status.leading,
            term: status.term,
            commits: positions.map(|position| position.seq.0).sum(),
            nodes,
        }
    }
}

fn voters(status: &NodeStatus) -> Vec<ClusterNode> {
    let Some(cell) = &status.cell else {
        return Vec::new();
    };
    let drawn = |member: &CellMember| {
        let is_self = member.node == status.node;
        let leading = if is_self {
            status.leading
        } else {
            cell.leader == Some(member.node)
        };
        ClusterNode {
            node: member.node,
            role: Role::Primary,
            region: status.region.clone(),
            url: Some(member.url.clone()),
            leading,
            voter: member.voter,
            behind: if leading && is_self {
                Some(0)
            } else {
                member.behind
            },
            lag_ms: if leading && is_self {
                Some(0)
            } else {
                member.silent_ms
            },
        }
    };
    cell.members.iter().map(drawn).collect()
}

fn replica(known: &ReplicaStatus) -> ClusterNode {
    let answered = Duration::from_micros(known.round_trip_us.unwrap_or(0));
    let answered_ms = u64::try_from(answered.as_millis()).unwrap_or(u64::MAX);
    ClusterNode {
        node: known.node,
        role: Role::Replica,
        region: known.region.clone(),
        url: known.url.clone(),
        leading: false,
        voter: false,
        behind: Some(known.behind),
        lag_ms: Some(known.confirm_lag_ms.max(answered_ms)),
    }
}

/// Identifiers as the digits that people see.
pub(crate) mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::id::NodeId;

    pub(crate) fn serialize<S: Serializer>(node: &NodeId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(node)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
        let text = String::deserialize(from)?;
        let plain = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u64::from_str_radix(&text, 16).ok().filter(|_| plain);
        let number = number.ok_or_else(|| {
            D::Error::custom(format!("'{text}' is not a node: 16 hexadecimal digits"))
        });
        number.map(NodeId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellStatus;
    use crate::id::Incarnation;

    fn region(text: &str) -> Region {
        text.parse().expect("a region")
    }

    fn member(node: u64) -> CellMember {
        CellMember {
            node: NodeId(node),
            incarnation: Incarnation(1),
            url: format!("http://voter-{node}"),
            voter: true,
            matched: None,
            behind: Some(node),
            silent_ms: Some(10 * node),
        }
    }

    fn leader() -> NodeStatus {
        let replica = |node, region_name: &str, confirm_lag_ms, round_trip_us| ReplicaStatus {
            node: NodeId(node),
            region: region(region_name),
            databases: 1,
            behind: 2,
            confirm_lag_ms,
            url: Some(format!("http://replica-{node}")),
            round_trip_us,
        };
        NodeStatus {
            node: NodeId(1),
            role: Role::Primary,
            region: region("ENAM"),
            leading: true,
            term: Term(4),
            primary_url: None,
            databases: Vec::new(),
            replicas: vec![
                replica(9, "WEUR", 3, Some(80_900)),
                replica(u64::MAX, "APAC", 500, Some(180_000)),
                replica(9, "WEUR", 3, None),
            ],
            cell: Some(CellStatus {
                term: Term(4),
                leader: Some(NodeId(1)),
                members: vec![member(2), member(1)],
                changing: false,
                committed: None,
                applied: None,
                log_bytes: 0,
            }),
        }
    }

    #[test]
    fn a_leader_draws_voters_then_replicas_each_once() {
        let map = ClusterMap::drawn(&leader(), None, Some("http://unused"));
        let seen = map.nodes.iter().map(|known| {
            let url = known.url.as_deref().unwrap_or_default();
            (url, known.leading, known.behind, known.lag_ms)
        });
        let seen: Vec<_> = seen.collect();
        let expected = [
            ("http://voter-1", true, Some(0), Some(0)),
            ("http://voter-2", false, Some(2), Some(20)),
            (
                "http://replica-18446744073709551615",
                false,
                Some(2),
                Some(500),
            ),
            ("http://replica-9", false, Some(2), Some(80)),
        ];
        assert_eq!(seen, expected);
        assert!(map.complete);
    }

    #[test]
    fn a_node_that_knows_no_cell_draws_itself() {
        let status = NodeStatus {
            role: Role::Replica,
            leading: false,
            cell: None,
            replicas: Vec::new(),
            ..leader()
        };
        let map = ClusterMap::drawn(&status, None, Some("http://me"));
        assert!(!map.complete);
        let [own] = &map.nodes[..] else {
            panic!("{map:?}")
        };
        assert_eq!(own.url.as_deref(), Some("http://me"));
        assert_eq!((own.voter, own.lag_ms), (false, None));
    }

    #[test]
    fn identifiers_keep_all_their_digits() {
        let map = ClusterMap::drawn(&leader(), Some(ClusterId(0xfeed)), None);
        let text = serde_json::to_string(&map).expect("plain data");
        assert!(text.contains("\"node\":\"ffffffffffffffff\""), "{text}");
        assert!(text.contains("\"cluster\":\"000000000000feed\""), "{text}");
        assert_eq!(serde_json::from_str::<ClusterMap>(&text).ok(), Some(map));
        for wrong in ["\"f\"", "\"+00000000000000f\"", "7"] {
            let text = text.replace("\"ffffffffffffffff\"", wrong);
            assert!(
                serde_json::from_str::<ClusterMap>(&text).is_err(),
                "{wrong}"
            );
        }
    }
}
