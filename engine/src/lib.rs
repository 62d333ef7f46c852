//! libSQL behind a safe interface: overlay WAL, owner, readers, injection, checksums, limits.
