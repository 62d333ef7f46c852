//! The catalogue's table `members`: every incarnation that ever was in the cell.
//!
//! The membership forgets who left; this table does not, so that no id is used twice. The first leader
//! writes the first members with the catalogue itself; later a row comes before the membership has the
//! node, and `left_at` before it lacks the node.

use tidemark_protocol::cell::{CellRefusal, CellRefusalCode, JoinRequest};
use tidemark_protocol::{Failure, NodeId, Statement, Term, Value};

use crate::cell::Primary;
use crate::consensus::MemberStatus;

const INSERT: &str = "INSERT INTO members(node, incarnation, url, joined_at) VALUES (?, ?, ?, ?)";
const LEAVE: &str =
    "UPDATE members SET left_at = coalesce(left_at, ?) WHERE node = ? AND left_at IS NULL";

/// What puts the members of a new cell on record.
pub(crate) fn first_members(members: &[MemberStatus], now: &str) -> Vec<Statement> {
    let insert = |member: &MemberStatus| {
        let incarnation = member.incarnation.to_string();
        insert(member.node, incarnation, member.address.clone(), now)
    };
    members.iter().map(insert).collect()
}

fn insert(node: NodeId, incarnation: String, url: String, now: &str) -> Statement {
    Statement {
        sql: INSERT.to_owned(),
        params: vec![
            Value::Text(node.to_string()),
            Value::Text(incarnation),
            Value::Text(url),
            Value::Text(now.to_owned()),
        ],
    }
}

impl Primary {
    /// Puts a node that asks to join on record, or refuses it: its id was another's.
    pub(super) async fn record_join(
        &self,
        request: &JoinRequest,
        term: Term,
    ) -> Result<(), CellRefusal> {
        let refused = |why: String| Err(CellRefusal::new(CellRefusalCode::IdUsed, why));
        let node = request.node;
        let catalogue = self.catalogue();
        match catalogue.as_ref().and_then(|known| known.member(node)) {
            Some(entry) if entry.incarnation != request.incarnation => refused(format!(
                "id {node} is incarnation {}, this node is {}: take a new id",
                entry.incarnation, request.incarnation
            )),
            Some(entry) => match &entry.left_at {
                Some(when) => refused(format!(
                    "node {node} was removed at {when}: ids are not used again, take a new one and an \
                     empty directory"
                )),
                None => Ok(()),
            },
            None => {
                let now = self.timestamp();
                let incarnation = request.incarnation.to_string();
                let row = insert(node, incarnation, request.url.clone(), &now);
                self.write_record(vec![row], term).await
            }
        }
    }

    /// Puts on record that a node leaves.
    pub(super) async fn record_leave(&self, node: NodeId, term: Term) -> Result<(), CellRefusal> {
        let leave = Statement {
            sql: LEAVE.to_owned(),
            params: vec![Value::Text(self.timestamp()), Value::Text(node.to_string())],
        };
        self.write_record(vec![leave], term).await
    }

    async fn write_record(
        &self,
        statements: Vec<Statement>,
        term: Term,
    ) -> Result<(), CellRefusal> {
        let written = self.write_catalogue(statements, None, term).await;
        written.map_err(|failure| not_recorded(&failure))?;
        let refreshed = self.refresh_catalogue().await;
        refreshed.map_err(|error| CellRefusal::new(CellRefusalCode::Internal, error.to_string()))
    }

    pub(crate) fn timestamp(&self) -> String {
        crate::node::timestamp(self.environment.clock.unix_ms())
    }
}

fn not_recorded(failure: &Failure) -> CellRefusal {
    // Asked again, it finds out what became of it.
    let code = if failure.kind.retryable() {
        CellRefusalCode::TimedOut
    } else {
        CellRefusalCode::Internal
    };
    CellRefusal::new(code, format!("the members' record: {failure}"))
}
