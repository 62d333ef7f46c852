//! What answers look like, byte for byte.
