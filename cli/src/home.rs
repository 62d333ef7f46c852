//! The node's directory: who lives here, written once, and the lock that keeps a second process out.
//!
//! ```text
//! <data>/node.toml   node id, incarnation, role, cluster; written at the first start, compared at every other
//! <data>/node.lock   locked as long as the process lives
//! <data>/listen      address served now; rewritten at every start
//! <data>/spool       files that are imported or exported; emptied at every start
//! ```

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidemark_protocol::env::Random;
use tidemark_protocol::node::Role;
use tidemark_protocol::{Incarnation, NodeId};

const IDENTITY_FILE: &str = "node.toml";
const LOCK_FILE: &str = "node.lock";
const LISTEN_FILE: &str = "listen";
const IDENTITY_COMMENT: &str = "\
# Identity of this node, written at its first start. Do not edit or copy: no two nodes may have the
# same id, and an id is never used again. The incarnation names this life of the directory: a voter
# whose directory was lost must not vote again under its old id.
";

/// A node's directory, held by this process.
#[derive(Debug)]
pub(crate) struct Home {
    directory: PathBuf,
    identity: Identity,
    /// The lock ends with the file handle.
    _lock: File,
}

/// Who a node is, for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The node's id, as sixteen hex digits.
    #[serde(with = "node_id_as_hex")]
    pub(crate) node: NodeId,
    /// This life of the directory, drawn when it was made.
    pub(crate) incarnation: Incarnation,
    /// Its part.
    pub(crate) role: Role,
    /// The cluster it belongs to.
    pub(crate) cluster: String,
}

/// Where a new node's id comes from if none is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NewId {
    /// Drawn at random.
    Drawn,
    /// Nowhere: others have it in their lists.
    Required,
}

/// A directory cannot be this node's home.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HomeError {
    #[error("another process is using the data directory '{directory}'")]
    InUse { directory: PathBuf },
    #[error("cannot {doing} '{path}'")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot understand '{path}'")]
    Identity {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("'{directory}' is the home of a {got}, not of a {expected}", got = name(*got), expected = name(*expected))]
    Role {
        directory: PathBuf,
        got: Role,
        expected: Role,
    },
    #[error("'{directory}' is the home of node {got}, not of {expected}")]
    Node {
        directory: PathBuf,
        got: NodeId,
        expected: NodeId,
    },
    #[error("'{directory}' is new, and voters are listed: set node-id to the id of this one")]
    NoId { directory: PathBuf },
    #[error("'{directory}' belongs to the cluster '{got}', not to '{expected}'")]
    Cluster {
        directory: PathBuf,
        got: String,
        expected: String,
    },
}

impl Home {
    /// Opens `directory` for a node of this role and cluster; makes it, and a new identity, if there
    /// is none: with this id, or with one that comes from where `new_id` says.
    pub(crate) fn open(
        directory: &Path,
        role: Role,
        cluster: &str,
        node: Option<NodeId>,
        new_id: NewId,
        random: &dyn Random,
    ) -> Result<Self, HomeError> {
        let at = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Io {
                doing,
                path,
                source,
            }
        };
        std::fs::create_dir_all(directory).map_err(at("make", directory))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = File::create(&lock_path).map_err(at("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(HomeError::InUse {
                    directory: directory.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(at("lock", &lock_path)(error)),
        }

        let path = directory.join(IDENTITY_FILE);
        let identity = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|source| HomeError::Identity {
                path: path.clone(),
                source: Box::new(source),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = match (node, new_id) {
                    (Some(given), _) => given,
                    (None, NewId::Drawn) => new_node_id(random),
                    (None, NewId::Required) => {
                        return Err(HomeError::NoId {
                            directory: directory.to_owned(),
                        });
                    }
                };
                let identity = Identity {
                    node: new,
                    incarnation: Incarnation::from_bytes(random.bytes16()),
                    role,
                    cluster: cluster.to_owned(),
                };
                let text = toml::to_string(&identity).expect("plain fields");
                replace(&path, &format!("{IDENTITY_COMMENT}{text}")).map_err(at("write", &path))?;
                identity
            }
            Err(error) => return Err(at("read", &path)(error)),
        };
        let directory = directory.to_owned();
        if let Some(expected) = node
            && identity.node != expected
        {
            let got = identity.node;
            return Err(HomeError::Node {
                directory,
                got,
                expected,
            });
        }
        if identity.role != role {
            return Err(HomeError::Role {
                directory,
                got: identity.role,
                expected: role,
            });
        }
        if identity.cluster != cluster {
            let (got, expected) = (identity.cluster, cluster.to_owned());
            return Err(HomeError::Cluster {
                directory,
                got,
                expected,
            });
        }
        Ok(Self {
            directory,
            identity,
            _lock: lock,
        })
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Who lives here.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Tells where this node listens now, for scripts that gave it port 0.
    pub(crate) fn tell_address(&self, address: SocketAddr) -> Result<(), HomeError> {
        let path = self.directory.join(LISTEN_FILE);
        replace(&path, &format!("{address}\n")).map_err(|source| HomeError::Io {
            doing: "write",
            path,
            source,
        })
    }
}

/// The directory of a node that does not run, kept from being started by this process.
#[derive(Debug)]
pub(crate) struct Unused {
    identity: Identity,
    /// The lock ends with the file handle.
    _lock: File,
}

impl Unused {
    /// Takes the lock of a directory that is a node's already. Changes nothing.
    pub(crate) fn take(directory: &Path) -> Result<Self, HomeError> {
        let path = directory.join(IDENTITY_FILE);
        let io = |doing, path: PathBuf| {
            move |source| HomeError::Io {
                doing,
                path,
                source,
            }
        };
        let lock_path = directory.join(LOCK_FILE);
        let lock = File::open(&lock_path).map_err(io("open", lock_path.clone()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let directory = directory.to_owned();
                return Err(HomeError::InUse { directory });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock", lock_path)(error)),
        }
        let text = std::fs::read_to_string(&path).map_err(io("read", path.clone()))?;
        let identity = toml::from_str(&text).map_err(|source| HomeError::Identity {
            path,
            source: Box::new(source),
        })?;
        Ok(Self {
            identity,
            _lock: lock,
        })
    }

    /// Who lives there.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }
}

fn new_node_id(random: &dyn Random) -> NodeId {
    loop {
        let bytes = random.bytes16();
        let (half, _) = bytes.split_first_chunk::<8>().expect("sixteen bytes");
        // Zero stands for nobody in places.
        if let id @ 1.. = u64::from_le_bytes(*half) {
            return NodeId(id);
        }
    }
}

/// Writes beside, fsyncs, renames over, fsyncs the directory: a crash leaves the old or the new file.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(path.parent().expect("a file in a directory"))?.sync_all()
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

mod node_id_as_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tidemark_protocol::NodeId;

    pub(super) fn serialize<S: Serializer>(id: &NodeId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16)
            .map(NodeId)
            .map_err(|error| D::Error::custom(format_args!("'{text}' is not a node id: {error}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::system::SystemRandom;

    fn open(directory: &Path, role: Role, cluster: &str) -> Result<Home, HomeError> {
        Home::open(directory, role, cluster, None, NewId::Drawn, &SystemRandom)
    }

    #[test]
    fn identity_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("a/b");
        let first = open(&data, Role::Replica, "c").unwrap().identity().clone();
        let second = open(&data, Role::Replica, "c").unwrap().identity().clone();
        assert_eq!(first, second);
        assert_ne!(first.node, NodeId(0));
        let other = open(&directory.path().join("other"), Role::Replica, "c").unwrap();
        assert_ne!(other.identity().node, first.node);
        assert_ne!(other.identity().incarnation, first.incarnation);
    }

    #[test]
    fn given_id_is_kept_and_another_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = |node| {
            let (role, random) = (Role::Primary, &SystemRandom);
            Home::open(directory.path(), role, "c", node, NewId::Required, random)
        };
        let nobody = open(None).unwrap_err();
        assert!(matches!(nobody, HomeError::NoId { .. }), "{nobody:?}");
        let first = open(Some(NodeId(7))).unwrap();
        assert_eq!(first.identity().node, NodeId(7));
        drop(first);
        assert_eq!(open(None).unwrap().identity().node, NodeId(7));
        let other = open(Some(NodeId(8))).unwrap_err();
        assert!(matches!(other, HomeError::Node { .. }), "{other:?}");
    }

    #[test]
    fn home_of_another_role_or_cluster_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path(), Role::Primary, "one").unwrap());
        let error = open(directory.path(), Role::Replica, "one")
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("is the home of a primary, not of a replica"),
            "{error}"
        );
        let error = open(directory.path(), Role::Primary, "two")
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("belongs to the cluster 'one', not to 'two'"),
            "{error}"
        );
    }

    #[test]
    fn second_process_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let home = open(directory.path(), Role::Primary, "one").unwrap();
        let error = open(directory.path(), Role::Primary, "one").unwrap_err();
        assert!(matches!(error, HomeError::InUse { .. }), "{error:?}");
        drop(home);
        open(directory.path(), Role::Primary, "one").unwrap();
    }

    /// Nobody may say which life of the directory it is but the directory itself.
    #[test]
    fn identity_without_incarnation_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(IDENTITY_FILE);
        std::fs::write(&path, "node = '7'\nrole = 'primary'\ncluster = 'one'\n").unwrap();
        let error = anyhow::Error::from(open(directory.path(), Role::Primary, "one").unwrap_err());
        let text = format!("{error:#}");
        assert!(text.contains("node.toml"), "{text}");
        assert!(text.contains("missing field `incarnation`"), "{text}");
    }

    #[test]
    fn damaged_identity_is_an_error_and_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(IDENTITY_FILE);
        std::fs::write(&path, "node = 'xyz'\nrole = 'primary'\ncluster = 'one'\n").unwrap();
        let error = open(directory.path(), Role::Primary, "one").unwrap_err();
        assert!(matches!(error, HomeError::Identity { .. }), "{error:?}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("xyz"));
    }
}
