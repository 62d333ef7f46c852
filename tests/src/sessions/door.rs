//! The two faces of a node for SQL: how a request and its answer look.

use serde_json::{Value, json};
use tidemark_protocol::{Bookmark, FailureKind, headers};

use super::DATABASE;
use crate::api::{Api, Reply};

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Door {
    /// D1's REST API, with sessions as Tidemark adds them to it.
    Rest,
    /// What a Worker's binding speaks.
    Binding,
}

/// An answer.
pub(super) struct Told {
    /// Whole numbers are all that the statements return.
    pub(super) rows: Vec<Vec<u64>>,
    pub(super) bookmark: Bookmark,
    /// The id of the node that ran it.
    pub(super) node: String,
}

/// What was said instead.
pub(super) struct Refused {
    pub(super) reason: String,
    /// Whether the statement may have been run all the same.
    pub(super) in_doubt: bool,
}

impl Door {
    /// Runs one statement, of which `columns` are returned. Panics if it is refused for a reason that no bad
    /// way explains.
    pub(super) async fn ask(
        self,
        node: &Api,
        (sql, params): (&str, &[u64]),
        columns: &[&str],
        (token, more): (&str, &[(&str, &str)]),
    ) -> Result<Told, Refused> {
        let body = json!({ "sql": sql, "params": params });
        let (path, header) = match self {
            Self::Rest => (Api::path(&format!("{DATABASE}/query")), headers::BOOKMARK),
            Self::Binding => {
                let path = format!("/d1/{DATABASE}/query?resultsFormat=ROWS_AND_COLUMNS");
                (path, headers::SESSION)
            }
        };
        let mut sent = vec![("content-type", "application/json"), (header, token)];
        sent.extend(more);
        let reply = node
            .send(reqwest::Method::POST, &path, &sent, body.to_string())
            .await;
        let reply = reply.map_err(|error| Refused {
            reason: format!(
                "{self:?}: {}",
                if error.is_timeout() { "late" } else { "broken" }
            ),
            in_doubt: true,
        })?;
        let results = match self {
            Self::Rest => &reply.json["result"][0],
            // One object, or an array of them.
            Self::Binding => reply.json.get(0).unwrap_or(&reply.json),
        };
        if results["success"] != true {
            return Err(refused(self, &reply));
        }
        let bookmark = reply.header(header).expect("an answer carries a bookmark");
        let served_by = reply.header(headers::SERVED_BY);
        let node = served_by.and_then(|who| who.rsplit('/').next());
        Ok(Told {
            rows: self.rows(&results["results"], columns),
            bookmark: bookmark.parse().expect("a node's bookmark is well-formed"),
            node: node.expect("an answer says who gave it").to_owned(),
        })
    }

    fn rows(self, results: &Value, columns: &[&str]) -> Vec<Vec<u64>> {
        let whole = |value: &Value| value.as_u64().expect("a whole number");
        let objects = |row: &Value| columns.iter().map(|name| whole(&row[*name])).collect();
        let array = |row: &Value| row.as_array().expect("a row").iter().map(whole).collect();
        match self {
            Self::Rest => {
                let rows = results.as_array().expect("rows");
                rows.iter().map(objects).collect()
            }
            Self::Binding => {
                assert_eq!(results["columns"], json!(columns));
                let rows = results["rows"].as_array().expect("rows");
                rows.iter().map(array).collect()
            }
        }
    }
}

fn refused(door: Door, reply: &Reply) -> Refused {
    let kind = reply.header(headers::FAILURE);
    let kind = kind.and_then(FailureKind::from_name);
    let Some(kind) = kind.filter(|kind| kind.retryable()) else {
        panic!("{door:?}: {} {}", reply.status, reply.text);
    };
    Refused {
        reason: format!("{door:?}: {}", kind.name()),
        in_doubt: kind == FailureKind::Unknown,
    }
}
