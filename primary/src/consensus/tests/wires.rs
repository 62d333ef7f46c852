//! Voters in one process, on wires that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use tidemark_protocol::{NodeId, Term};
use tokio::sync::{mpsc, watch};

use super::harness::*;
use crate::consensus::*;

/// Voters in one process, and wires between them that can be cut.
#[derive(Clone, Default)]
pub(super) struct Wires(pub(super) Arc<Wired>);

#[derive(Default)]
pub(super) struct Wired {
    pub(super) voters: Mutex<BTreeMap<NodeId, Consensus>>,
    pub(super) cut_off: Mutex<BTreeSet<NodeId>>,
    /// Answers to appends wait until this is over.
    pub(super) hold_answers: watch::Sender<bool>,
    /// Appends that have arrived over connections, heartbeats not among them.
    pub(super) appends: AtomicU64,
}

/// One voter's end of the wires.
pub(super) struct End {
    pub(super) node: NodeId,
    pub(super) wires: Wires,
}

impl Wires {
    pub(super) fn reach(&self, from: NodeId, to: NodeId) -> Option<Consensus> {
        let cut_off = self.0.cut_off.lock().unwrap();
        if cut_off.contains(&from) || cut_off.contains(&to) {
            return None;
        }
        self.0.voters.lock().unwrap().get(&to).cloned()
    }

    pub(super) fn voter(&self, node: NodeId) -> Consensus {
        self.0.voters.lock().unwrap()[&node].clone()
    }

    pub(super) fn cut_off(&self, node: NodeId) {
        self.0.cut_off.lock().unwrap().insert(node);
    }

    pub(super) fn heal(&self) {
        self.0.cut_off.lock().unwrap().clear();
    }

    /// Waits until one that is not cut off leads.
    pub(super) async fn leader(&self) -> (NodeId, Consensus, Term) {
        let found = wait_until(|| {
            // In the order of `reach`.
            let cut_off = self.0.cut_off.lock().unwrap();
            let voters = self.0.voters.lock().unwrap();
            let reachable = voters.iter().filter(|(node, _)| !cut_off.contains(*node));
            let leads = reachable.filter(|(_, voter)| voter.leadership().borrow().leading);
            leads
                .map(|(node, voter)| (*node, voter.clone(), voter.leadership().borrow().term))
                .max_by_key(|(_, _, term)| *term)
        });
        found.await
    }
}

impl End {
    fn reach(&self, node: NodeId, member: &Member) -> Result<Consensus, TransportError> {
        let voter = self.wires.reach(self.node, node);
        let voter = voter.filter(|voter| voter.incarnation() == member.incarnation);
        voter.ok_or_else(|| TransportError {
            node,
            address: member.address.clone(),
            reason: "cut".to_owned(),
        })
    }
}

impl Transport for End {
    fn open(
        &self,
        node: NodeId,
        member: &Member,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Channel, TransportError>> {
        let voter = match self.reach(node, member) {
            Ok(voter) => voter,
            Err(cut) => return Box::pin(std::future::ready(Err(cut))),
        };
        let (requests, incoming) = mpsc::channel(IN_FLIGHT_COUNT_MAX);
        let (outgoing, answers) = mpsc::channel(IN_FLIGHT_COUNT_MAX);
        let (from, wires) = (self.node, self.wires.clone());
        let incoming = stream::unfold(incoming, move |mut incoming| {
            let wires = wires.clone();
            async move {
                let message: Bytes = incoming.recv().await?;
                wires.reach(from, node)?;
                wires.0.appends.fetch_add(1, Ordering::Relaxed);
                Some((message, incoming))
            }
        });
        let wires = self.wires.clone();
        tokio::spawn(async move {
            let mut appended = pin!(voter.answer_appends(incoming));
            let mut held = wires.0.hold_answers.subscribe();
            while let Some(Ok(answer)) = appended.next().await {
                held.wait_for(|held| !held).await.unwrap();
                if wires.reach(node, from).is_none() || outgoing.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(std::future::ready(Ok(Channel { requests, answers })))
    }

    fn call(
        &self,
        node: NodeId,
        member: &Member,
        request: Bytes,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (from, wires, member) = (self.node, self.wires.clone(), member.clone());
        Box::pin(async move {
            let lost = || TransportError {
                node,
                address: member.address.clone(),
                reason: "cut".to_owned(),
            };
            let voter = wires.reach(from, node).ok_or_else(lost)?;
            if voter.incarnation() != member.incarnation {
                return Err(lost());
            }
            let answer = voter.answer(&request).await.map_err(|_stopped| lost())?;
            wires.reach(node, from).ok_or_else(lost)?;
            Ok(answer)
        })
    }
}

/// A voter of a cell whose directories are in `root`.
pub(super) fn voter_config(root: &Path, node: NodeId) -> ConsensusConfig {
    ConsensusConfig {
        node,
        incarnation: incarnation(node),
        heartbeat: Duration::from_millis(40),
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(400),
        log_entries_kept: 5,
        ..config(&root.join(node.to_string()))
    }
}

/// Starts a voter on its files and connects it.
pub(super) async fn start_voter(wires: &Wires, config: ConsensusConfig) -> Recorder {
    let recorder = Recorder::default();
    let node = config.node;
    let end = Arc::new(End {
        node,
        wires: wires.clone(),
    });
    let voter = Consensus::start(config, disk(), end, recorder.clone())
        .await
        .unwrap();
    wires.0.voters.lock().unwrap().insert(node, voter);
    recorder
}

/// A cell of the voters 1 to `count`.
pub(super) async fn cell_of(count: u64, root: &Path) -> (Wires, BTreeMap<NodeId, Recorder>) {
    let nodes = (1..=count).map(NodeId);
    let wires = Wires::default();
    let mut recorders = BTreeMap::new();
    for node in nodes.clone() {
        let recorder = start_voter(&wires, voter_config(root, node)).await;
        recorders.insert(node, recorder);
    }
    let members = nodes.map(|node| (node, member(node))).collect();
    let first = wires.voter(NodeId(1));
    first.initialize(members).await.unwrap();
    (wires, recorders)
}

pub(super) async fn cell_of_three(root: &Path) -> (Wires, BTreeMap<NodeId, Recorder>) {
    cell_of_three_with(root, |config| config).await
}

/// The same with other settings.
pub(super) async fn cell_of_three_with(
    root: &Path,
    change: impl Fn(ConsensusConfig) -> ConsensusConfig,
) -> (Wires, BTreeMap<NodeId, Recorder>) {
    let nodes = [1, 2, 3].map(NodeId);
    let wires = Wires::default();
    let mut recorders = BTreeMap::new();
    for node in nodes {
        let config = change(voter_config(root, node));
        recorders.insert(node, start_voter(&wires, config).await);
    }
    let members = nodes.map(|node| (node, member(node))).to_vec();
    let first = wires.voter(nodes[0]);
    first.initialize(members).await.unwrap();
    (wires, recorders)
}

pub(super) async fn stop(wires: &Wires) {
    let voters = std::mem::take(&mut *wires.0.voters.lock().unwrap());
    for voter in voters.into_values() {
        voter.stop().await;
    }
}

/// Proposes to whoever leads until it is committed. Never after an unknown outcome.
pub(super) async fn commit(wires: &Wires, seq: u64) -> LogIndex {
    loop {
        let (_, leader, term) = wires.leader().await;
        match propose(&leader, term, command(seq)).await {
            Proposed::Committed { index } => return index,
            Proposed::Refused(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Proposed::Unknown => panic!("the leader was lost"),
        }
    }
}
