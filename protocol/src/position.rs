//! Where a database stands: its epoch, its sequence number and the checksum of its whole content.
//!
//! ```text
//! acknowledged <= tip                    (per database, on the primary)
//! applied(replica) <= acknowledged       (of the same epoch)
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::ops::{BitXor, BitXorAssign};

use serde::{Deserialize, Serialize};

/// Bytes of a database page. Fixed: the log, the stream and the page hashes are in these units.
pub const PAGE_SIZE: usize = 4096;

/// Number of a page in its database file, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PageNo(pub u32);

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A history of a database. A restore or a disaster recovery begins a new one, always higher.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of a new database.
    pub const FIRST: Epoch = Epoch(1);
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A database's Lamport timestamp: grows with every transaction, never goes back within an epoch.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Of a database in which nothing was written yet.
    pub const ZERO: Seq = Seq(0);
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The XOR of the hashes of all pages of a database, each hash keyed by its page number.
///
/// Two copies with equal checksums hold equal content (up to a 64-bit collision), so a position
/// proves the whole state and a transaction updates it from the pages it changed alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateChecksum(pub u64);

impl BitXor for StateChecksum {
    type Output = Self;

    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl BitXorAssign for StateChecksum {
    fn bitxor_assign(&mut self, other: Self) {
        self.0 ^= other.0;
    }
}

impl fmt::Display for StateChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The state of a database after one transaction.
///
/// Equality includes the checksum: equal (epoch, seq) with different content is what split brain
/// looks like. Order is by age alone, see [`Position::age`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The history it belongs to.
    pub epoch: Epoch,
    /// Its place in that history.
    pub seq: Seq,
    /// What the database holds there.
    pub checksum: StateChecksum,
}

impl Position {
    /// Order by age: by epoch, then by sequence number. The checksum has no order.
    pub fn age(&self, other: &Position) -> Ordering {
        (self.epoch, self.seq).cmp(&(other.epoch, other.seq))
    }

    /// Whether this state already contains everything up to `other`.
    pub fn reached(&self, other: &Position) -> bool {
        self.age(other) != Ordering::Less
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:{}", self.epoch, self.seq, self.checksum)
    }
}
