//! The table of one history: what is asked of it, in SQL.

/// Rows that a read looks at.
const NEWEST: u32 = 8;

/// A table of its own for each epoch, so that a write of one that takes effect late is none of the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    pub(crate) create: String,
    pub(crate) drop: String,
    /// One value; returns its place.
    pub(super) insert: String,
    /// The newest rows, newest first.
    pub(super) newest: String,
    /// All rows, oldest first.
    pub(super) all: String,
}

impl Table {
    /// That of this epoch, from 0.
    pub(crate) fn of(epoch: u32) -> Self {
        let name = match epoch {
            0 => "entries".to_owned(),
            later => format!("entries_{later}"),
        };
        Self {
            create: format!(
                "CREATE TABLE IF NOT EXISTS {name} (place INTEGER PRIMARY KEY, value INTEGER NOT NULL)"
            ),
            drop: format!("DROP TABLE IF EXISTS {name}"),
            insert: format!("INSERT INTO {name} (value) VALUES (?) RETURNING place"),
            newest: format!("SELECT place, value FROM {name} ORDER BY place DESC LIMIT {NEWEST}"),
            all: format!("SELECT place, value FROM {name} ORDER BY place"),
        }
    }
}
