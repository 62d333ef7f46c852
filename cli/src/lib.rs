//! The tidemark program: primary, replica, dev, shell and tools.
