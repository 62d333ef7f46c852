//! What a node takes from the world besides disk and network: wall time and randomness, as handles,
//! so that a simulated cluster can own them.

/// Wall time. Used for labels and for bounding ages, never for deciding who is right.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn unix_ms(&self) -> u64;
}

/// Randomness for identifiers and keys.
pub trait Random: Send + Sync + 'static {
    /// Sixteen unpredictable bytes.
    fn bytes16(&self) -> [u8; 16];
}
