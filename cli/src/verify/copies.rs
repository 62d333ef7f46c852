//! The copies of one database, and what they say about each other.

use std::cmp::Ordering;

use tidemark_client::Verification;
use tidemark_protocol::Position;

/// What is known of one copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Copy {
    /// The node does not know the database.
    Missing,
    /// The node has no business knowing it: a replica, and a database that is not replicated.
    Elsewhere,
    /// The node does not answer from it.
    Damaged(String),
    /// Where the node says it stands; its pages were not read.
    Claimed(Position),
    /// Its pages were read.
    Verified(Verification),
    /// The pages could not be read.
    Unread(String),
}

/// What the copies of one database say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// All were read, all are at the same position, all hold what it says.
    Agree,
    /// At least one is wrong. No waiting changes that.
    Differ,
    /// They may still come to agree.
    Open,
}

impl Copy {
    /// Where it stands, as far as is known.
    pub(crate) fn position(&self) -> Option<Position> {
        match self {
            Self::Claimed(position) => Some(*position),
            Self::Verified(verification) => Some(verification.position),
            Self::Missing | Self::Elsewhere | Self::Damaged(_) | Self::Unread(_) => None,
        }
    }
}

/// Judges the copies of one database.
pub(crate) fn judge(copies: &[Copy]) -> Verdict {
    let torn = |copy: &Copy| matches!(copy, Copy::Verified(found) if !found.intact);
    if copies.iter().any(torn) || split(copies) {
        return Verdict::Differ;
    }
    let mut verified = Vec::new();
    for copy in copies {
        match copy {
            Copy::Elsewhere => {}
            Copy::Verified(verification) => verified.push(verification.position),
            Copy::Missing | Copy::Damaged(_) | Copy::Claimed(_) | Copy::Unread(_) => {
                return Verdict::Open;
            }
        }
    }
    if verified.windows(2).all(|pair| pair[0] == pair[1]) {
        Verdict::Agree
    } else {
        Verdict::Open
    }
}

/// Whether all copies that should exist claim the same position: then it is worth reading their pages.
pub(crate) fn level(copies: &[Copy]) -> bool {
    let mut first = None;
    copies
        .iter()
        .filter(|copy| **copy != Copy::Elsewhere)
        .all(|copy| {
            let position = copy.position();
            position.is_some() && *first.get_or_insert(position) == position
        })
}

/// Two copies at the same place in the same history, with different content.
fn split(copies: &[Copy]) -> bool {
    let positions: Vec<Position> = copies.iter().filter_map(Copy::position).collect();
    positions.iter().enumerate().any(|(index, a)| {
        let later = &positions[index + 1..];
        later
            .iter()
            .any(|b| a.age(b) == Ordering::Equal && a.checksum != b.checksum)
    })
}

#[cfg(test)]
mod tests {
    use tidemark_protocol::{Epoch, Seq, StateChecksum};

    use super::*;

    fn at(seq: u64, checksum: u64) -> Position {
        Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
            checksum: StateChecksum(checksum),
        }
    }

    fn read(position: Position, computed: u64) -> Copy {
        let computed = StateChecksum(computed);
        Copy::Verified(Verification {
            position,
            computed,
            pages: 1,
            intact: computed == position.checksum,
        })
    }

    #[test]
    fn intact_copies_at_one_position_agree() {
        assert_eq!(
            judge(&[read(at(3, 7), 7), read(at(3, 7), 7)]),
            Verdict::Agree
        );
        assert_eq!(judge(&[read(at(3, 7), 7), Copy::Elsewhere]), Verdict::Agree);
    }

    #[test]
    fn torn_copy_differs_even_from_itself() {
        assert_eq!(judge(&[read(at(3, 7), 8)]), Verdict::Differ);
    }

    /// Split brain shows before any page is read.
    #[test]
    fn equal_age_with_other_content_differs() {
        let copies = [Copy::Claimed(at(3, 7)), Copy::Claimed(at(3, 8))];
        assert_eq!(judge(&copies), Verdict::Differ);
        assert!(!level(&copies));
    }

    #[test]
    fn copy_that_is_behind_damaged_or_missing_leaves_it_open() {
        for other in [
            Copy::Claimed(at(2, 6)),
            Copy::Claimed(at(3, 7)),
            read(at(2, 6), 6),
            Copy::Damaged("page 4".to_owned()),
            Copy::Missing,
            Copy::Unread("timeout".to_owned()),
        ] {
            assert_eq!(
                judge(&[read(at(3, 7), 7), other.clone()]),
                Verdict::Open,
                "{other:?}"
            );
        }
    }

    #[test]
    fn pages_are_worth_reading_once_all_claim_one_position() {
        assert!(level(&[
            Copy::Claimed(at(3, 7)),
            Copy::Claimed(at(3, 7)),
            Copy::Elsewhere
        ]));
        assert!(!level(&[Copy::Claimed(at(3, 7)), Copy::Claimed(at(2, 6))]));
        assert!(!level(&[Copy::Claimed(at(3, 7)), Copy::Missing]));
    }
}
