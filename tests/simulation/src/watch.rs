//! What holds at every moment, seen through what nodes say of themselves.
//!
//! - A term has one leader.
//! - One sequence number of a database has one checksum, on whichever node.
//! - What a node has applied is not more than what it knows to be committed.
//! - Of one life of a node, what its readers see and its newest term never go back.
//!
//! The first that does not is kept, with the time, and ends the run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemark_protocol::node::{NodeStatus, Role};
use tidemark_protocol::{DatabaseId, Epoch, NodeId, Position, Seq, StateChecksum, Term};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::world::handles::Time;

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Watch {
    time: Arc<Time>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    violation: Option<String>,
    /// Who led each term.
    leaders: BTreeMap<Term, NodeId>,
    /// The content of each state.
    states: HashMap<(DatabaseId, Epoch, Seq), StateChecksum>,
    /// What each node said last in this life.
    last: BTreeMap<String, NodeStatus>,
    /// Hash of everything that was seen: two runs of a seed have the same.
    trace: u64,
    looks: u64,
}

impl Watch {
    pub(crate) fn new(time: Arc<Time>) -> Self {
        Self {
            time,
            seen: Mutex::default(),
        }
    }

    /// A host's node tells of itself.
    pub(crate) fn saw(&self, host: &str, status: NodeStatus) {
        let mut seen = self.lock();
        seen.looks += 1;
        let line = format!("{} {host} {status:?}\n", self.time.ms());
        seen.trace(&line);
        if let Err(violation) = seen.check(host, &status) {
            seen.violate(format!("{} ms: {host}: {violation}", self.time.ms()));
        }
        seen.last.insert(host.to_owned(), status);
    }

    /// Something happened that belongs to the trace.
    pub(crate) fn note(&self, what: &str) {
        let line = format!("{} {what}\n", self.time.ms());
        tracing::info!(target: "simulation", ms = self.time.ms(), "{what}");
        self.lock().trace(&line);
    }

    /// A new life of a host begins.
    pub(crate) fn crashed(&self, host: &str) {
        self.lock().last.remove(host);
    }

    /// Something is wrong that was found elsewhere.
    pub(crate) fn violate(&self, violation: &str) {
        let violation = format!("{} ms: {violation}", self.time.ms());
        self.lock().violate(violation);
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    /// What each node that lives said last.
    pub(crate) fn last(&self) -> BTreeMap<String, NodeStatus> {
        self.lock().last.clone()
    }

    /// The host of the node that leads the newest term, if one says so.
    pub(crate) fn leader(&self) -> Option<String> {
        let seen = self.lock();
        let leading = seen.last.iter().filter(|(_, status)| status.leading);
        let newest = leading.max_by_key(|(_, status)| status.term);
        newest.map(|(host, _)| host.clone())
    }

    /// Hash of all that was seen.
    pub(crate) fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// Terms that had a leader.
    pub(crate) fn terms(&self) -> usize {
        self.lock().leaders.len()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn trace(&mut self, line: &str) {
        self.trace = xxh3_64_with_seed(line.as_bytes(), self.trace);
    }

    fn violate(&mut self, violation: String) {
        self.violation.get_or_insert(violation);
    }

    fn check(&mut self, host: &str, status: &NodeStatus) -> Result<(), String> {
        if status.leading {
            let leader = *self.leaders.entry(status.term).or_insert(status.node);
            if leader != status.node {
                let (term, node) = (status.term, status.node);
                return Err(format!("term {term} is led by {leader} and by {node}"));
            }
        }
        if let Some(cell) = &status.cell
            && cell.applied > cell.committed
        {
            let (applied, committed) = (cell.applied, cell.committed);
            return Err(format!("applied {applied:?}, committed {committed:?}"));
        }
        for database in &status.databases {
            let Position {
                epoch,
                seq,
                checksum,
            } = database.position;
            let id = database.uuid;
            let known = self.states.get(&(id, epoch, seq)).copied();
            match known {
                Some(known) if known != checksum => {
                    return Err(format!(
                        "database {id} has checksum {checksum} at {seq}, elsewhere {known}"
                    ));
                }
                Some(_) => {}
                None => {
                    self.states.insert((id, epoch, seq), checksum);
                }
            }
        }
        let Some(before) = self.last.get(host) else {
            return Ok(());
        };
        if status.term < before.term {
            return Err(format!("term {} after {}", status.term, before.term));
        }
        for old in &before.databases {
            let new = status.databases.iter().find(|new| new.uuid == old.uuid);
            if let Some(new) = new
                && !new.position.reached(&old.position)
            {
                let (id, new, old) = (old.uuid, new.position, old.position);
                return Err(format!("database {id} is at {new} after {old}"));
            }
        }
        Ok(())
    }
}

/// Whether all nodes have the same, and one of them leads.
pub(crate) fn agree(last: &BTreeMap<String, NodeStatus>, hosts: usize) -> bool {
    let positions = |status: &NodeStatus| {
        let mut positions: Vec<_> = status
            .databases
            .iter()
            .map(|database| (database.uuid, database.position))
            .collect();
        positions.sort_by_key(|(id, _)| id.to_string());
        positions
    };
    let mut all = last.values().map(positions);
    let leads = |status: &NodeStatus| status.role == Role::Primary && status.leading;
    let first = all.next();
    last.len() == hosts
        && last.values().any(leads)
        && all.all(|other| Some(other) == first)
        && first.is_some_and(|first| !first.is_empty())
}
