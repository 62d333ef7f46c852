//! What is done to one voter.

use std::time::Duration;

use tidemark_deploy::Link;

use crate::cell::Cell;

/// What is done to a voter, and undone later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// kill -9.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// It hears nobody, and nobody hears it.
    Isolate,
    /// It hears nobody.
    Deafen,
    /// Nobody hears it.
    Mute,
    /// What it says arrives late, and what is said to it.
    Slow,
}

impl Blow {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Kill,
        Self::Freeze,
        Self::Isolate,
        Self::Deafen,
        Self::Mute,
        Self::Slow,
    ];
    /// The way of one that is slow, in each direction.
    pub const SLOW: Link = Link {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(120),
        bytes_per_second: None,
    };

    /// Does it to the voter at this place.
    pub fn strike(self, cell: &mut Cell, at: usize) {
        match self {
            Self::Kill => cell.voters[at].kill(),
            Self::Freeze => cell.voters[at].freeze(),
            Self::Isolate => cell.ways.isolate(at),
            Self::Deafen => cell.ways.deafen_to_all(at),
            Self::Mute => cell.ways.mute(at),
            Self::Slow => cell.ways.set_link(at, Self::SLOW),
        }
    }

    /// Undoes it; waits until a process that was killed is ready.
    pub async fn undo(self, cell: &mut Cell, at: usize) {
        match self {
            Self::Kill => {
                cell.voters[at].start();
                cell.voters[at].ready().await;
            }
            Self::Freeze => cell.voters[at].thaw(),
            Self::Isolate | Self::Deafen | Self::Mute => cell.ways.heal(),
            Self::Slow => cell.ways.set_link(at, Link::default()),
        }
    }
}
