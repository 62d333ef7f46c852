//! A node as the membership knows it.

use tidemark_protocol::Incarnation;

/// Where a node of the cell is reached, and which life of its disk was taken in.
///
/// Under another incarnation the same id is another node, which has promised nothing: messages meant for
/// the one are refused by the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    /// Base URL under which the others reach it.
    pub(crate) address: String,
    /// Of the data directory that it had when it was taken in.
    pub(crate) incarnation: Incarnation,
}

/// For openraft's checks of a log store.
#[cfg(test)]
impl Default for Member {
    fn default() -> Self {
        Self {
            address: String::new(),
            incarnation: Incarnation(0),
        }
    }
}
