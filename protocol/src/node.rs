//! What the HTTP face asks of a node: the one trait that primary and replica implement.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bookmark::Bookmark;
use crate::cell::CellStatus;
use crate::contract::{Delivered, Freshness, OnMiss, ReadContract, Why};
use crate::dump::{DumpOptions, DumpOutput};
use crate::error::{Failure, FailureKind};
use crate::id::{ClusterId, DatabaseId, NodeId, Region, RequestId, Term};
use crate::position::Position;
use crate::render::{AnswerShape, Tally, ValueForm};
use crate::value::Statement;

/// Run these statements, as one transaction.
#[derive(Clone, PartialEq, Debug)]
pub struct Execute {
    /// Where.
    pub database: DatabaseId,
    /// What. Each text may hold several statements.
    pub statements: Vec<Statement>,
    /// The client's name for this request, if it gave one: a retry under the same name counts once.
    pub request: Option<RequestId>,
    /// How fresh: not before what its session has seen.
    pub read: ReadContract,
    /// How fresh: not too long ago.
    pub freshness: Freshness,
    /// By when, from now.
    pub deadline: Duration,
    /// What else, if not.
    pub on_miss: OnMiss,
    /// Shape of the answer.
    pub shape: AnswerShape,
    /// Form of the values in the answer.
    pub form: ValueForm,
    /// What the statements may say beyond SQL that reads and writes.
    pub rules: Rules,
}

/// How the statements of a request are taken.
///
/// Under either, a request whose first statement is `PRAGMA foreign_keys = off` runs without enforcement of
/// foreign keys, and commits only if none is violated at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rules {
    /// As statements of one transaction that is not theirs to begin or end.
    #[default]
    Request,
    /// As a file: `BEGIN`, `COMMIT` and `END` do nothing, no rows are returned, and the answer is one element,
    /// the sum over all statements, with their number in `num_queries`.
    Script,
}

/// What became of an [`Execute`] that did not fail.
#[derive(Clone, PartialEq, Debug)]
pub enum Executed {
    /// Done here.
    Answer(Answer),
    /// This node cannot or should not do it; nothing happened. Send the request, as it came, to the
    /// primary. Only a node that does not lead says so.
    Forward(Why),
}

/// Statements that ran.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// D1's `result` array, as JSON.
    pub results: Bytes,
    /// The state that was read or written.
    pub bookmark: Bookmark,
    /// Whether a recorded answer of an earlier try was repeated.
    pub repeated: bool,
    /// What it cost; nothing if it was repeated.
    pub tally: Tally,
    /// How fresh it is, and what that took.
    pub delivered: Delivered,
}

/// An export that was written to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exported {
    /// The state that was written.
    pub bookmark: Bookmark,
}

/// A database as the catalogue has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatabaseInfo {
    /// Its identifier.
    pub uuid: DatabaseId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// When it was created: ISO 8601 with milliseconds and `Z`.
    pub created_at: String,
    /// The hint given at creation, lowercase.
    pub primary_location_hint: Option<String>,
    /// The jurisdiction given at creation.
    pub jurisdiction: Option<String>,
    /// Whether replicas hold it.
    pub replicated: bool,
    /// Bytes of the file on this node.
    pub file_size: u64,
    /// User tables on this node.
    pub num_tables: u64,
    /// Region of the primary.
    pub primary_region: Region,
}

/// Make a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateDatabase {
    /// Its name.
    pub name: String,
    /// Where the client would like the primary. Recorded; a cell has one region.
    pub primary_location_hint: Option<String>,
    /// Where data may lie. Recorded.
    pub jurisdiction: Option<String>,
    /// Whether replicas hold it.
    pub replicated: bool,
    /// The client's name for this request.
    pub request: Option<RequestId>,
}

/// Change what the catalogue says of a database. What is `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EditDatabase {
    /// Whether replicas hold it.
    pub replicated: Option<bool>,
    /// The client's name for this request.
    pub request: Option<RequestId>,
}

/// Which databases to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListDatabases {
    /// Only names that contain this.
    pub name: Option<String>,
    /// Skip so many.
    pub offset: u64,
    /// At most so many.
    pub limit: u64,
}

/// One page of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseList {
    /// The page.
    pub databases: Vec<DatabaseInfo>,
    /// Matching databases in all.
    pub total: u64,
}

/// Which part a node plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A voter of the cell. One of them leads.
    Primary,
    /// A follower of the stream in another region.
    Replica,
}

/// Where one database stands on a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// The database.
    pub uuid: DatabaseId,
    /// Its name; empty for the catalogue.
    pub name: String,
    /// The state readers see.
    pub position: Position,
    /// Why it does not answer, if it does not.
    pub damaged: Option<String>,
}

/// A node's account of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its identifier.
    pub node: NodeId,
    /// Its part.
    pub role: Role,
    /// Its region.
    pub region: Region,
    /// Whether it can take writes itself now.
    pub leading: bool,
    /// Newest term it has seen.
    pub term: Term,
    /// Base URL of the primary, if known.
    pub primary_url: Option<String>,
    /// Its databases.
    pub databases: Vec<DatabaseStatus>,
    /// On a primary: the replicas connected to it.
    pub replicas: Vec<ReplicaStatus>,
    /// On a primary: its cell.
    #[serde(default)]
    pub cell: Option<CellStatus>,
}

/// A replica as its primary sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its identifier.
    pub node: NodeId,
    /// Its region.
    pub region: Region,
    /// Databases it follows.
    pub databases: u64,
    /// Transactions committed and not yet confirmed applied there, over all databases.
    pub behind: u64,
    /// Age of the oldest of them in milliseconds, by the primary's clock alone; zero when none.
    pub confirm_lag_ms: u64,
    /// Base URL under which it says that it is reached.
    #[serde(default)]
    pub url: Option<String>,
    /// Microseconds that the newest message which it answered, a transaction or a heartbeat, took there and
    /// back, its own work included.
    #[serde(default)]
    pub round_trip_us: Option<u64>,
}

/// One database as far as its replicas have it, as the node that leads sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatabaseReplicas {
    /// The database.
    pub uuid: DatabaseId,
    /// Where it is on the node that leads.
    pub position: Position,
    /// The replicas that follow it and are connected, by region and identifier.
    pub replicas: Vec<DatabaseReplica>,
}

/// One database on one replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatabaseReplica {
    /// The replica, as text: programs that read every number as a float would round it.
    #[serde(with = "crate::cluster::as_text")]
    pub node: NodeId,
    /// Its region.
    pub region: Region,
    /// Base URL under which it says that it is reached.
    pub url: Option<String>,
    /// The newest state that it said its readers see. `None`: it has said of none yet.
    pub applied: Option<Position>,
    /// Transactions committed and not known to be applied there, at most.
    pub behind: u64,
    /// Age of the oldest that was sent and is not confirmed, in milliseconds, by the leader's clock alone; zero
    /// when none.
    pub lag_ms: u64,
}

/// The content of a database, recomputed from its pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verification {
    /// The state that was read.
    pub position: Position,
    /// The checksum its pages give.
    pub computed: crate::position::StateChecksum,
    /// Pages read.
    pub pages: u64,
    /// Whether both agree.
    pub intact: bool,
}

/// A node, as the HTTP face sees it.
pub trait Node: Send + Sync + 'static {
    /// Runs statements.
    fn execute(&self, request: Execute) -> impl Future<Output = Result<Executed, Failure>> + Send;

    /// Finds a database by UUID or name. `None` when this node knows of none.
    fn database(
        &self,
        name_or_id: &str,
    ) -> impl Future<Output = Result<Option<DatabaseInfo>, Failure>> + Send;

    /// The identifier of a database given by UUID or name, from memory. `None` when unknown here.
    fn resolve(&self, name_or_id: &str) -> Option<DatabaseId>;

    /// Lists databases by name, from the catalogue alone: sizes are those of an empty database.
    fn databases(
        &self,
        list: ListDatabases,
    ) -> impl Future<Output = Result<DatabaseList, Failure>> + Send;

    /// Makes a database. Primary only.
    fn create(
        &self,
        create: CreateDatabase,
    ) -> impl Future<Output = Result<DatabaseInfo, Failure>> + Send;

    /// Deletes a database, once per `request`. Primary only.
    fn delete(
        &self,
        database: DatabaseId,
        request: Option<RequestId>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Changes what the catalogue says of a database. Primary only.
    fn edit(
        &self,
        database: DatabaseId,
        edit: EditDatabase,
    ) -> impl Future<Output = Result<DatabaseInfo, Failure>> + Send {
        let _ = edit;
        async move {
            let text = format!("this node cannot change database {database}");
            Err(Failure::new(FailureKind::Unavailable, text))
        }
    }

    /// Recomputes the checksum of a database from its pages.
    fn verify(
        &self,
        database: DatabaseId,
    ) -> impl Future<Output = Result<Verification, Failure>> + Send;

    /// Writes a database as SQL text to `output`, all of it as of one state. Reads and writes go on meanwhile.
    fn export(
        &self,
        database: DatabaseId,
        options: DumpOptions,
        deadline: Duration,
        output: DumpOutput,
    ) -> impl Future<Output = Result<Exported, Failure>> + Send {
        drop((options, output));
        async move {
            let text = format!("this node cannot export database {database} within {deadline:?}");
            Err(Failure::new(FailureKind::Unavailable, text))
        }
    }

    /// How far each replica has a database. For the node that leads.
    fn replicas(
        &self,
        database: DatabaseId,
    ) -> impl Future<Output = Result<DatabaseReplicas, Failure>> + Send {
        async move {
            let text = format!("this node does not ship database {database}");
            Err(Failure::new(FailureKind::Unavailable, text))
        }
    }

    /// A node's account of itself.
    fn status(&self) -> impl Future<Output = NodeStatus> + Send;

    /// Which cluster it is of, once it knows.
    fn cluster(&self) -> Option<ClusterId> {
        None
    }

    /// Where to forward to: base URL of the node that leads, unless it is this one.
    fn upstream(&self) -> Option<String>;

    /// How much longer it is worth waiting for somebody to lead: nothing where nobody is about to.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether it can serve: recovered, and (replica) it has a catalogue.
    fn ready(&self) -> Result<(), Failure>;
}
