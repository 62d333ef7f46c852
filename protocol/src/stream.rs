//! Messages of the replica stream.
