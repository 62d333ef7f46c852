//! The catalogue: the cell's own database, which lists all others and keeps the cluster's settings.
//!
//! It is a database like any other: written through the log, shipped to every replica, read with SQL.
//! This module has its schema and the sink that turns its rows into [`Catalogue`], so that every role
//! reads it the same way.

use std::collections::{BTreeMap, HashMap};

use crate::bookmark::BookmarkKey;
use crate::id::{ClusterId, DatabaseId, Incarnation, NodeId, Region};
use crate::render::{AnswerLimit, ResultSink, StatementStatistics};
use crate::value::{Statement, Value, ValueRef};

/// Makes the catalogue's tables. Run once, on the empty database of a new cell.
pub const SCHEMA: &str = "\
CREATE TABLE settings(key TEXT PRIMARY KEY NOT NULL, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE databases(
  uuid TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL UNIQUE,
  created_at TEXT NOT NULL,
  primary_location_hint TEXT,
  jurisdiction TEXT,
  replicated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE members(
  node TEXT PRIMARY KEY NOT NULL,
  incarnation TEXT NOT NULL,
  url TEXT NOT NULL,
  joined_at TEXT NOT NULL,
  left_at TEXT
) STRICT, WITHOUT ROWID;";

const READ_SETTINGS: &str = "SELECT key, value FROM settings";
const READ_DATABASES: &str = "SELECT uuid, name, created_at, primary_location_hint, jurisdiction, \
                              replicated FROM databases";
const READ_MEMBERS: &str = "SELECT node, incarnation, url, joined_at, left_at FROM members";

/// Setting: sixteen bytes, the key of the check in bookmarks.
pub const BOOKMARK_KEY: &str = "bookmark_key";
/// Setting: the region of the cell.
pub const PRIMARY_REGION: &str = "primary_region";

/// One database as the catalogue lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogueEntry {
    /// Its identifier.
    pub uuid: DatabaseId,
    /// Its name, unique.
    pub name: String,
    /// ISO 8601 with milliseconds and `Z`.
    pub created_at: String,
    /// As given at creation, lowercase.
    pub primary_location_hint: Option<String>,
    /// As given at creation.
    pub jurisdiction: Option<String>,
    /// Whether replicas hold it.
    pub replicated: bool,
}

/// A node that is, or was, a member of the cell. Rows stay for ever: an id is never used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberEntry {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Base URL under which it was reached when it joined.
    pub url: String,
    /// When it asked to join: ISO 8601 with milliseconds and `Z`.
    pub joined_at: String,
    /// When it was told to leave, in the same form.
    pub left_at: Option<String>,
}

/// The catalogue at one position, in memory.
#[derive(Clone, Debug)]
pub struct Catalogue {
    by_id: HashMap<DatabaseId, CatalogueEntry>,
    by_name: BTreeMap<String, DatabaseId>,
    bookmark_key: BookmarkKey,
    primary_region: Region,
    members: BTreeMap<NodeId, MemberEntry>,
}

/// The catalogue's rows are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// A setting is missing or of the wrong type.
    #[error("the catalogue has no usable setting '{key}'")]
    Setting {
        /// Its key.
        key: &'static str,
    },
    /// A row of `databases` is malformed.
    #[error("the catalogue lists a database badly: {row}")]
    Row {
        /// The row.
        row: String,
    },
    /// A row of `members` is malformed.
    #[error("the catalogue lists a member badly: {row}")]
    Member {
        /// The row.
        row: String,
    },
}

impl Catalogue {
    /// The entry of a database.
    pub fn get(&self, database: DatabaseId) -> Option<&CatalogueEntry> {
        self.by_id.get(&database)
    }

    /// The identifier of a database given by UUID or name.
    pub fn resolve(&self, name_or_id: &str) -> Option<DatabaseId> {
        match name_or_id.parse() {
            Ok(id) if self.by_id.contains_key(&id) => Some(id),
            _ => self.by_name.get(name_or_id).copied(),
        }
    }

    /// All entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogueEntry> {
        self.by_name.values().map(|id| &self.by_id[id])
    }

    /// Number of databases.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The key of the check in bookmarks.
    pub fn bookmark_key(&self) -> &BookmarkKey {
        &self.bookmark_key
    }

    /// The cluster that it is the catalogue of.
    pub fn cluster(&self) -> ClusterId {
        self.bookmark_key.cluster()
    }

    /// The region of the cell.
    pub fn primary_region(&self) -> &Region {
        &self.primary_region
    }

    /// What is on record of a node of the cell.
    pub fn member(&self, node: NodeId) -> Option<&MemberEntry> {
        self.members.get(&node)
    }
}

/// The sink for [`CatalogueReader::statements`].
#[derive(Debug, Default)]
pub struct CatalogueReader {
    statement: usize,
    row: Vec<Value>,
    settings: Vec<Vec<Value>>,
    databases: Vec<Vec<Value>>,
    members: Vec<Vec<Value>>,
}

impl CatalogueReader {
    /// What to run.
    pub fn statements() -> [Statement; 3] {
        [READ_SETTINGS, READ_DATABASES, READ_MEMBERS].map(|sql| Statement {
            sql: sql.to_owned(),
            params: vec![],
        })
    }

    /// The catalogue that was read.
    pub fn finish(self) -> Result<Catalogue, CatalogueError> {
        let setting = |key: &'static str| {
            self.settings
                .iter()
                .find(|row| matches!(row.first(), Some(Value::Text(found)) if found == key))
                .and_then(|row| row.get(1))
                .ok_or(CatalogueError::Setting { key })
        };
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
        let mut catalogue = Catalogue {
            by_id: HashMap::new(),
            by_name: BTreeMap::new(),
            bookmark_key,
            primary_region,
            members: BTreeMap::new(),
        };
        for row in self.members {
            let member = member(&row).ok_or_else(|| CatalogueError::Member {
                row: format!("{row:?}"),
            })?;
            catalogue.members.insert(member.node, member);
        }
        for row in self.databases {
            let entry = entry(&row).ok_or_else(|| CatalogueError::Row {
                row: format!("{row:?}"),
            })?;
            catalogue.by_name.insert(entry.name.clone(), entry.uuid);
            catalogue.by_id.insert(entry.uuid, entry);
        }
        Ok(catalogue)
    }
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
            2 => &mut self.databases,
            _ => &mut self.members,
        }
        .push(row);
        Ok(())
    }

    fn end_statement(&mut self, _statistics: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn recorded(&self) -> &[u8] {
        &[]
    }
}
