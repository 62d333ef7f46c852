//! Databases as the API shows them, and what makes one.

use serde::{Deserialize, Serialize};

use crate::error::{Failure, FailureKind};
use crate::id::{DatabaseId, Region};
use crate::node::{CreateDatabase, DatabaseInfo, EditDatabase};
use crate::regions::is_jurisdiction;

/// Longest name of a database, in bytes. D1 states none; this one fits a file name.
pub const NAME_BYTES_MAX: usize = 128;
/// The name under which tools reach the catalogue; no database may have it.
const NAME_RESERVED: &str = "catalogue";

/// Whether replicas hold a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicationMode {
    /// In every region.
    #[default]
    Auto,
    /// Nowhere.
    Disabled,
}

/// The `read_replication` of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReadReplication {
    /// Whether replicas hold it.
    pub mode: ReplicationMode,
}

/// A database, as `create` and `get` answer it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Database {
    /// Its identifier.
    pub uuid: DatabaseId,
    /// Its name.
    pub name: String,
    /// Always `production`: wrangler refuses some commands for older ones.
    pub version: String,
    /// ISO 8601 with milliseconds and `Z`.
    pub created_at: String,
    /// User tables.
    pub num_tables: u64,
    /// Bytes.
    pub file_size: u64,
    /// Where data may lie, if that was limited.
    pub jurisdiction: Option<String>,
    /// Whether replicas hold it.
    pub read_replication: ReadReplication,
    /// Region of the primary.
    pub running_in_region: String,
    /// Region of the primary when it was created.
    pub created_in_region: String,
    /// The hint given at creation.
    pub primary_location_hint: Option<String>,
}

/// A database, as `list` answers it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatabaseSummary {
    /// Its identifier.
    pub uuid: DatabaseId,
    /// Its name.
    pub name: String,
    /// Always `production`.
    pub version: String,
    /// ISO 8601 with milliseconds and `Z`.
    pub created_at: String,
    /// Where data may lie, if that was limited.
    pub jurisdiction: Option<String>,
}

const VERSION: &str = "production";

impl From<DatabaseInfo> for Database {
    fn from(info: DatabaseInfo) -> Self {
        let DatabaseInfo {
            uuid,
            name,
            created_at,
            primary_location_hint,
            jurisdiction,
            replicated,
            file_size,
            num_tables,
            primary_region,
        } = info;
        let mode = if replicated {
            ReplicationMode::Auto
        } else {
            ReplicationMode::Disabled
        };
        Self {
            uuid,
            name,
            version: VERSION.to_owned(),
            created_at,
            num_tables,
            file_size,
            jurisdiction,
            read_replication: ReadReplication { mode },
            running_in_region: primary_region.to_string(),
            // A cell does not move.
            created_in_region: primary_region.into(),
            primary_location_hint,
        }
    }
}

impl From<DatabaseInfo> for DatabaseSummary {
    fn from(info: DatabaseInfo) -> Self {
        let DatabaseInfo {
            uuid,
            name,
            created_at,
            jurisdiction,
            ..
        } = info;
        Self {
            uuid,
            name,
            version: VERSION.to_owned(),
            created_at,
            jurisdiction,
        }
    }
}

/// The body of `create`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CreateBody {
    /// The name.
    #[serde(default)]
    pub name: Option<String>,
    /// Where the primary should be, lowercase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_location_hint: Option<String>,
    /// Where data may lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// Whether replicas hold it; they do unless told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_replication: Option<ReadReplication>,
}

/// The body of `PUT`, which must say everything, and of `PATCH`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EditBody {
    /// Whether replicas hold the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_replication: Option<ReadReplication>,
}

impl EditBody {
    /// Reads a body. Unknown keys are ignored.
    pub fn parse(body: &[u8]) -> Result<Self, Failure> {
        parsed(body)
    }

    /// The request to the node. `whole`: the body stands for the whole database, not for changes.
    pub fn validate(self, whole: bool) -> Result<EditDatabase, Failure> {
        let Self { read_replication } = self;
        if whole && read_replication.is_none() {
            return Err(invalid("read_replication", "Required"));
        }
        Ok(EditDatabase {
            replicated: read_replication.map(|given| given.mode == ReplicationMode::Auto),
            request: None,
        })
    }
}

fn parsed<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let text = format!("The request is malformed: {error}");
        Failure::new(FailureKind::BadRequest, text)
    })
}

impl CreateBody {
    /// Reads a body. Unknown keys are ignored.
    pub fn parse(body: &[u8]) -> Result<Self, Failure> {
        parsed(body)
    }

    /// The request to the node, once every property is known to be sound.
    pub fn validate(self) -> Result<CreateDatabase, Failure> {
        let Self {
            name,
            primary_location_hint,
            jurisdiction,
            read_replication,
        } = self;
        let name = name.ok_or_else(|| invalid("name", "Required"))?;
        check_name(&name)?;
        let primary_location_hint = match primary_location_hint {
            Some(hint) => {
                let region: Region = hint
                    .parse()
                    .map_err(|error| invalid("primary_location_hint", error))?;
                Some(region.as_str().to_ascii_lowercase())
            }
            None => None,
        };
        if let Some(given) = &jurisdiction
            && !is_jurisdiction(given)
        {
            // Which there are, the node knows that makes the database.
            let text = format!("'{given}' is not of lowercase letters, digits and '-'");
            return Err(invalid("jurisdiction", text));
        }
        let replicated = read_replication.unwrap_or_default().mode == ReplicationMode::Auto;
        Ok(CreateDatabase {
            name,
            primary_location_hint,
            jurisdiction,
            replicated,
            request: None,
        })
    }
}

/// Whether `name` may name a database: `^[a-zA-Z0-9][a-zA-Z0-9_-]*$`, and no UUID, since wherever a
/// database is asked for its UUID or its name will do.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let shaped = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if name.len() > NAME_BYTES_MAX {
        let text = format!(
            "has {} bytes, at most {NAME_BYTES_MAX} are allowed",
            name.len()
        );
        return Err(invalid("name", text));
    }
    if !shaped {
        let text = format!("'{name}' does not match ^[a-zA-Z0-9][a-zA-Z0-9_-]*$");
        return Err(invalid("name", text));
    }
    if name.parse::<DatabaseId>().is_ok() || name == NAME_RESERVED {
        return Err(invalid("name", format!("'{name}' is reserved")));
    }
    Ok(())
}

/// D1's text for a property that will not do.
fn invalid(property: &str, reason: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::BadRequest,
        format!("Invalid property: {property} => {reason}"),
    )
}
