//! The catalogue: the cell's own database, which lists all others and keeps the cluster's settings.
//!
//! It is a database like any other: written through the log, shipped to every replica, read with SQL.
//! This module has its schema and, in `reader`, the sink that turns its rows into [`Catalogue`], so that every
//! role reads it the same way.

mod reader;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;

pub use self::reader::{CatalogueReader, CatalogueReading};
use crate::bookmark::BookmarkKey;
use crate::id::{ClusterId, DatabaseId, Incarnation, NodeId, Region};

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

/// Makes what numbers the changes to `databases`, so that who has read them need not read all of them again.
/// Run once, after [`SCHEMA`]. The newest 1024 changes are kept, and up to 255 more.
pub const CHANGES_SCHEMA: &str = "\
CREATE TABLE changes(number INTEGER PRIMARY KEY NOT NULL, uuid TEXT NOT NULL) STRICT;
INSERT INTO settings(key, value) VALUES ('changes', 0);
CREATE TRIGGER note_change AFTER INSERT ON changes BEGIN
  UPDATE settings SET value = new.number WHERE key = 'changes';
  DELETE FROM changes WHERE new.number % 256 = 0 AND number <= new.number - 1024;
END;
CREATE TRIGGER note_made AFTER INSERT ON databases BEGIN
  INSERT INTO changes(number, uuid) SELECT value + 1, new.uuid FROM settings WHERE key = 'changes';
END;
CREATE TRIGGER note_edited AFTER UPDATE ON databases BEGIN
  INSERT INTO changes(number, uuid) SELECT value + 1, new.uuid FROM settings WHERE key = 'changes';
END;
CREATE TRIGGER note_deleted AFTER DELETE ON databases BEGIN
  INSERT INTO changes(number, uuid) SELECT value + 1, old.uuid FROM settings WHERE key = 'changes';
END;";

/// Setting: sixteen bytes, the key of the check in bookmarks.
pub const BOOKMARK_KEY: &str = "bookmark_key";
/// Setting: the region of the cell.
pub const PRIMARY_REGION: &str = "primary_region";
/// Setting: number of the newest row of `changes`. Catalogues that are older than that table have none.
pub const CHANGES: &str = "changes";

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
    by_id: HashMap<DatabaseId, Arc<CatalogueEntry>, FixedState>,
    by_name: BTreeMap<Arc<str>, Arc<CatalogueEntry>>,
    rest: Rest,
}

/// What is read whole each time: little.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rest {
    bookmark_key: BookmarkKey,
    primary_region: Region,
    members: BTreeMap<NodeId, MemberEntry>,
    changes: Option<u64>,
}

/// What is different in a newer catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogueChanges {
    databases: Vec<(DatabaseId, Option<Arc<CatalogueEntry>>)>,
    rest: Rest,
}

impl CatalogueChanges {
    /// Databases that were made, edited or deleted, with what is listed of them now. One may be named twice.
    pub fn databases(&self) -> impl Iterator<Item = (DatabaseId, Option<&CatalogueEntry>)> {
        self.databases
            .iter()
            .map(|(database, entry)| (*database, entry.as_deref()))
    }
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
    fn new(entries: Vec<CatalogueEntry>, rest: Rest) -> Self {
        let mut catalogue = Self {
            by_id: HashMap::default(),
            by_name: BTreeMap::new(),
            rest,
        };
        for entry in entries {
            catalogue.insert(Arc::new(entry));
        }
        catalogue
    }

    fn insert(&mut self, entry: Arc<CatalogueEntry>) {
        self.by_name
            .insert(entry.name.as_str().into(), Arc::clone(&entry));
        self.by_id.insert(entry.uuid, entry);
    }

    /// Takes the changes since this one was read.
    pub fn apply(&mut self, changes: &CatalogueChanges) {
        for (database, entry) in &changes.databases {
            let old = self.by_id.remove(database);
            // Its name may be another's by now.
            let named = old.filter(|old| self.get_named(&old.name) == Some(*database));
            if let Some(old) = named {
                self.by_name.remove(old.name.as_str());
            }
            if let Some(entry) = entry {
                self.insert(Arc::clone(entry));
            }
        }
        self.rest = changes.rest.clone();
    }

    /// Number of the newest change that this has, for [`CatalogueReader::since`]. `None`: none are numbered yet, see
    /// [`CHANGES_SCHEMA`].
    pub fn changes(&self) -> Option<u64> {
        self.rest.changes
    }

    /// The entry of a database.
    pub fn get(&self, database: DatabaseId) -> Option<&CatalogueEntry> {
        self.by_id.get(&database).map(|entry| &**entry)
    }

    /// The identifier of a database given by UUID or name.
    pub fn resolve(&self, name_or_id: &str) -> Option<DatabaseId> {
        match name_or_id.parse() {
            Ok(id) if self.by_id.contains_key(&id) => Some(id),
            _ => self.get_named(name_or_id),
        }
    }

    fn get_named(&self, name: &str) -> Option<DatabaseId> {
        self.by_name.get(name).map(|entry| entry.uuid)
    }

    /// All entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogueEntry> {
        self.by_name.values().map(|entry| &**entry)
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
        &self.rest.bookmark_key
    }

    /// The cluster that it is the catalogue of.
    pub fn cluster(&self) -> ClusterId {
        self.rest.bookmark_key.cluster()
    }

    /// The region of the cell.
    pub fn primary_region(&self) -> &Region {
        &self.rest.primary_region
    }

    /// What is on record of a node of the cell.
    pub fn member(&self, node: NodeId) -> Option<&MemberEntry> {
        self.rest.members.get(&node)
    }
}

#[cfg(test)]
mod tests;
