//! Turns the rows of the catalogue into a [`Catalogue`], or into what is different from one read earlier.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    BOOKMARK_KEY, CHANGES, Catalogue, CatalogueChanges, CatalogueEntry, CatalogueError,
    MemberEntry, PRIMARY_REGION, Rest,
};
use crate::bookmark::BookmarkKey;
use crate::id::{DatabaseId, NodeId};
use crate::render::{AnswerLimit, ResultSink, StatementStatistics};
use crate::value::{Statement, Value, ValueRef};

const READ_SETTINGS: &str = "SELECT key, value FROM settings";
const READ_MEMBERS: &str = "SELECT node, incarnation, url, joined_at, left_at FROM members";
const READ_DATABASES: &str = "SELECT uuid, name, created_at, primary_location_hint, jurisdiction, \
                              replicated FROM databases";
const READ_CHANGED: &str = "SELECT changes.uuid, databases.uuid, name, created_at, \
                            primary_location_hint, jurisdiction, replicated \
                            FROM changes LEFT JOIN databases ON databases.uuid = changes.uuid \
                            WHERE number > ? ORDER BY number";

/// The sink for [`CatalogueReader::statements`].
#[derive(Debug, Default)]
pub struct CatalogueReader {
    /// Changes up to here are known.
    since: Option<u64>,
    statement: usize,
    row: Vec<Value>,
    settings: Vec<Vec<Value>>,
    members: Vec<Vec<Value>>,
    databases: Vec<Vec<Value>>,
}

/// What was read.
#[derive(Debug)]
pub enum CatalogueReading {
    /// All of it.
    Whole(Catalogue),
    /// What is different from the one that was known.
    Changes(CatalogueChanges),
    /// Not all of those changes are on record any more: it has to be read whole.
    Lost,
}

impl CatalogueReader {
    /// Reads what changed since the catalogue whose [`Catalogue::changes`] these are. It must be an earlier state of the
    /// same history.
    pub fn since(changes: u64) -> Self {
        Self {
            since: Some(changes),
            ..Self::default()
        }
    }

    /// What to run.
    pub fn statements(&self) -> [Statement; 3] {
        let (databases, params) = match self.since {
            None => (READ_DATABASES, vec![]),
            Some(since) => {
                let since = i64::try_from(since).unwrap_or(i64::MAX);
                (READ_CHANGED, vec![Value::Integer(since)])
            }
        };
        [
            (READ_SETTINGS, vec![]),
            (READ_MEMBERS, vec![]),
            (databases, params),
        ]
        .map(|(sql, params)| Statement {
            sql: sql.to_owned(),
            params,
        })
    }

    /// What was read.
    pub fn finish(self) -> Result<CatalogueReading, CatalogueError> {
        let rest = rest(&self.settings, &self.members)?;
        let Some(since) = self.since else {
            let entries = self.databases.iter().map(|row| listed(row));
            let entries = entries.collect::<Result<_, _>>()?;
            return Ok(CatalogueReading::Whole(Catalogue::new(entries, rest)));
        };
        let read = self.databases.len() as u64;
        if rest.changes != since.checked_add(read) {
            return Ok(CatalogueReading::Lost);
        }
        let databases = self.databases.iter().map(|row| changed(row));
        let databases = databases.collect::<Result<_, _>>()?;
        Ok(CatalogueReading::Changes(CatalogueChanges {
            databases,
            rest,
        }))
    }
}

fn rest(settings: &[Vec<Value>], members: &[Vec<Value>]) -> Result<Rest, CatalogueError> {
    let find = |key: &str| {
        let row = settings
            .iter()
            .find(|row| matches!(row.first(), Some(Value::Text(found)) if found == key));
        row.and_then(|row| row.get(1))
    };
    let setting = |key: &'static str| find(key).ok_or(CatalogueError::Setting { key });
    let bookmark_key = match setting(BOOKMARK_KEY)? {
        Value::Blob(bytes) => bytes.as_slice().try_into().ok().map(BookmarkKey::new),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) => None,
    }
    .ok_or(CatalogueError::Setting { key: BOOKMARK_KEY })?;
    let primary_region = match setting(PRIMARY_REGION)? {
        Value::Text(name) => name.parse().ok(),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => None,
    }
    .ok_or(CatalogueError::Setting {
        key: PRIMARY_REGION,
    })?;
    let changes = match find(CHANGES) {
        None => None,
        Some(Value::Integer(number)) => {
            let number = u64::try_from(*number);
            Some(number.map_err(|_| CatalogueError::Setting { key: CHANGES })?)
        }
        Some(Value::Null | Value::Real(_) | Value::Text(_) | Value::Blob(_)) => {
            return Err(CatalogueError::Setting { key: CHANGES });
        }
    };
    let mut by_node = BTreeMap::new();
    for row in members {
        let member = member(row).ok_or_else(|| CatalogueError::Member {
            row: format!("{row:?}"),
        })?;
        by_node.insert(member.node, member);
    }
    Ok(Rest {
        bookmark_key,
        primary_region,
        members: by_node,
        changes,
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => None,
    }
}

fn member(row: &[Value]) -> Option<MemberEntry> {
    let [node, incarnation, url, joined_at, left_at] = row else {
        return None;
    };
    Some(MemberEntry {
        node: NodeId(u64::from_str_radix(&text(node)?, 16).ok()?),
        incarnation: text(incarnation)?.parse().ok()?,
        url: text(url)?,
        joined_at: text(joined_at)?,
        left_at: text(left_at),
    })
}

fn listed(row: &[Value]) -> Result<CatalogueEntry, CatalogueError> {
    entry(row).ok_or_else(|| bad_row(row))
}

fn entry(row: &[Value]) -> Option<CatalogueEntry> {
    let [uuid, name, created_at, hint, jurisdiction, replicated] = row else {
        return None;
    };
    Some(CatalogueEntry {
        uuid: text(uuid)?.parse().ok()?,
        name: text(name)?,
        created_at: text(created_at)?,
        primary_location_hint: text(hint),
        jurisdiction: text(jurisdiction),
        replicated: *replicated != Value::Integer(0),
    })
}

/// A database that changed, and its row if it has one.
fn changed(row: &[Value]) -> Result<(DatabaseId, Option<Arc<CatalogueEntry>>), CatalogueError> {
    let (id, row) = row.split_first().ok_or_else(|| bad_row(row))?;
    let id: Option<DatabaseId> = text(id).and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| bad_row(row))?;
    let entry = if row.first() == Some(&Value::Null) {
        None
    } else {
        Some(Arc::new(listed(row)?))
    };
    Ok((id, entry))
}

fn bad_row(row: &[Value]) -> CatalogueError {
    CatalogueError::Row {
        row: format!("{row:?}"),
    }
}

impl ResultSink for CatalogueReader {
    fn begin_statement(&mut self) {
        self.statement += 1;
    }

    fn columns(&mut self, _names: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn begin_row(&mut self) {
        self.row.clear();
    }

    fn cell(&mut self, _index: usize, value: ValueRef<'_>) {
        self.row.push(value.to_owned());
    }

    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        let row = std::mem::take(&mut self.row);
        match self.statement {
            1 => &mut self.settings,
            2 => &mut self.members,
            _ => &mut self.databases,
        }
        .push(row);
        Ok(())
    }

    fn end_statement(&mut self, _statistics: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn reset(&mut self) {
        let since = self.since;
        *self = Self {
            since,
            ..Self::default()
        };
    }

    fn recorded(&self) -> &[u8] {
        &[]
    }
}
