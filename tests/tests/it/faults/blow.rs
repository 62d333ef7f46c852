//! What is done to one voter.

use tidemark_tests::Cell;

/// What is done to a voter, and undone later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blow {
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
}

pub(super) const BLOWS: [Blow; 5] = [
    Blow::Kill,
    Blow::Freeze,
    Blow::Isolate,
    Blow::Deafen,
    Blow::Mute,
];
impl Blow {
    /// Does it to the voter at this place.
    pub(super) fn strike(self, cell: &mut Cell, at: usize) {
        match self {
            Self::Kill => cell.voters[at].kill(),
            Self::Freeze => cell.voters[at].freeze(),
            Self::Isolate => cell.ways.isolate(at),
            Self::Deafen => cell.ways.deafen_to_all(at),
            Self::Mute => cell.ways.mute(at),
        }
    }

    /// Undoes it; waits until a process that was killed is ready.
    pub(super) async fn undo(self, cell: &mut Cell, at: usize) {
        match self {
            Self::Kill => {
                cell.voters[at].start();
                cell.voters[at].ready().await;
            }
            Self::Freeze => cell.voters[at].thaw(),
            Self::Isolate | Self::Deafen | Self::Mute => cell.ways.heal(),
        }
    }
}
