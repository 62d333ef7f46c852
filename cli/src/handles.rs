//! File handles: how many this process may have, and how many of them are for databases.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit, which is often 1024 for the sake of programs that are older than `poll`, to the hard one.
/// Gives the file handles that databases may take: half of all, the others being for connections and the log.
pub(crate) fn for_databases() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, soft = ?limit.current, hard = ?limit.maximum, "the limit of file handles stays as it is");
            limit.current
        }
    };
    // None: unlimited.
    let handles = current.map_or(usize::MAX, |handles| {
        usize::try_from(handles).unwrap_or(usize::MAX)
    });
    tracing::debug!(handles, "file handles that this process may have");
    handles / 2
}
