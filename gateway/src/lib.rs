//! The HTTP face of a Tidemark node, the same on both roles.
