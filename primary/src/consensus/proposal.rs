//! What one entry of the log proposes: a command, or a part of one that is too large for an entry.

use std::fmt;

use bytes::Bytes;

use super::Command;
use super::command::{CommandError, KIND_PART};
use super::parts::Part;

/// What openraft replicates for us.
///
/// Cheap to clone, like [`Command`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Proposal {
    /// All of it.
    Whole(Command),
    /// See [`super::parts`].
    Part(Part),
}

impl Proposal {
    /// The byte that says what follows.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Whole(command) => command.kind(),
            Self::Part(_) => KIND_PART,
        }
    }

    /// What follows, in two pieces, of which the first may be empty.
    pub(super) fn pieces(&self) -> (Vec<u8>, &Bytes) {
        match self {
            Self::Whole(command) => (Vec::new(), command.body()),
            Self::Part(part) => (part.header(), part.body()),
        }
    }

    /// Bytes it keeps in memory, as good as.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Whole(command) => command.body().len(),
            Self::Part(part) => part.body().len(),
        }
    }

    /// Reads back [`Proposal::kind`] and [`Proposal::pieces`].
    pub(super) fn decode(kind: u8, body: Bytes) -> Result<Self, CommandError> {
        match kind {
            KIND_PART => Ok(Self::Part(Part::decode(body)?)),
            kind => Ok(Self::Whole(Command::decode(kind, body)?)),
        }
    }
}

impl From<Command> for Proposal {
    fn from(command: Command) -> Self {
        Self::Whole(command)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(command) => command.fmt(f),
            Self::Part(part) => part.fmt(f),
        }
    }
}
