//! What happens to the nodes, at random.

use std::time::Duration;

use tidemark_deploy::{Direction, Link};

use crate::blow::Blow;
use crate::cell::Cell;
use crate::points::Point;

/// How long an end or a start of a process may take on a busy machine.
const START_WAIT: Duration = Duration::from_secs(120);

/// Those whose processes are never ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Elders {
    /// A place among the voters.
    pub(super) voter: usize,
    /// A place among the replicas.
    pub(super) replica: usize,
}

/// Something that is done, and undone later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// To one voter.
    Voter(Blow, usize),
    /// To the way by which replicas reach a voter, and other voters what they hand on to it.
    Door(Door, usize),
    /// To a replica.
    Replica(Stroke, usize),
    /// A voter is told to stop, and started again.
    RestartVoter(usize),
    /// The power fails at all nodes but the elders.
    Power,
}

/// What a door is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Door {
    Shut,
    /// Nothing comes in.
    NoEntry,
    /// Nothing comes out.
    NoExit,
    Slow,
}

/// What is done to a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stroke {
    Kill,
    Freeze,
    Restart,
}

impl Elders {
    pub(super) fn pick(random: &mut fastrand::Rng) -> Self {
        Self {
            voter: random.usize(..3),
            replica: random.usize(..3),
        }
    }
}

impl Fault {
    /// One at random. No other must be at work.
    pub(super) fn any(
        cell: &Cell,
        random: &mut fastrand::Rng,
        elders: Elders,
        leader: usize,
    ) -> Self {
        // Leaders are the ones whose fall may show something.
        let at = if random.bool() {
            leader
        } else {
            random.usize(..cell.voters.len())
        };
        let replica = random.usize(..cell.replicas.len());
        let fault = match random.u32(..20) {
            0..9 => Self::Voter(random.choice(Blow::ALL).expect("there are blows"), at),
            9..13 => {
                let doors = [Door::Shut, Door::NoEntry, Door::NoExit, Door::Slow];
                Self::Door(random.choice(doors).expect("there are some"), at)
            }
            13..18 => {
                let strokes = [Stroke::Kill, Stroke::Freeze, Stroke::Restart];
                Self::Replica(random.choice(strokes).expect("there are some"), replica)
            }
            18 => Self::RestartVoter(at),
            _ => Self::Power,
        };
        fault.sparing(elders)
    }

    /// The same, or something else in its place where it would end an elder.
    fn sparing(self, elders: Elders) -> Self {
        if self == Self::Voter(Blow::Kill, elders.voter) {
            Self::Voter(Blow::Freeze, elders.voter)
        } else if self == Self::RestartVoter(elders.voter) {
            Self::Voter(Blow::Isolate, elders.voter)
        } else if [Stroke::Kill, Stroke::Restart]
            .map(|stroke| Self::Replica(stroke, elders.replica))
            .contains(&self)
        {
            Self::Replica(Stroke::Freeze, elders.replica)
        } else {
            self
        }
    }

    /// What it is called, without whom it hits.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Voter(Blow::Kill, _) => "voter killed",
            Self::Voter(Blow::Freeze, _) => "voter stands still",
            Self::Voter(Blow::Isolate, _) => "voter cut off from voters",
            Self::Voter(Blow::Deafen, _) => "voter hears no voter",
            Self::Voter(Blow::Mute, _) => "no voter hears a voter",
            Self::Voter(Blow::Slow, _) => "slow ways between voters",
            Self::Door(Door::Shut, _) => "door cut both ways",
            Self::Door(Door::NoEntry, _) => "door cut inwards",
            Self::Door(Door::NoExit, _) => "door cut outwards",
            Self::Door(Door::Slow, _) => "slow door",
            Self::Replica(Stroke::Kill, _) => "replica killed",
            Self::Replica(Stroke::Freeze, _) => "replica stands still",
            Self::Replica(Stroke::Restart, _) => "replica restarted",
            Self::RestartVoter(_) => "voter restarted",
            Self::Power => "power fails",
        }
    }

    /// Whether writes must go on while it lasts.
    pub(super) fn leaves_a_majority(self) -> bool {
        self != Self::Power
    }

    /// Does it. What starts again by itself does so in [`undo`](Self::undo).
    pub(super) async fn strike(self, cell: &mut Cell, elders: Elders) {
        match self {
            Self::Voter(blow, at) => blow.strike(cell, at),
            Self::Door(Door::Shut, at) => cell.doors[at].cut_both(),
            Self::Door(Door::NoEntry, at) => cell.doors[at].cut(Direction::ToTarget),
            Self::Door(Door::NoExit, at) => cell.doors[at].cut(Direction::FromTarget),
            Self::Door(Door::Slow, at) => cell.doors[at].set_link(Blow::SLOW),
            Self::Replica(Stroke::Kill, at) => cell.replicas[at].kill(),
            Self::Replica(Stroke::Freeze, at) => cell.replicas[at].freeze(),
            Self::Replica(Stroke::Restart, at) => cell.replicas[at].stop().await,
            Self::RestartVoter(at) => cell.voters[at].stop().await,
            Self::Power => {
                for at in (0..cell.voters.len()).filter(|at| *at != elders.voter) {
                    cell.voters[at].kill();
                }
                for at in (0..cell.replicas.len()).filter(|at| *at != elders.replica) {
                    cell.replicas[at].kill();
                }
            }
        }
    }

    /// Undoes it, and waits until whoever was down is ready.
    pub(super) async fn undo(self, cell: &mut Cell) {
        match self {
            Self::Voter(Blow::Kill, _)
            | Self::RestartVoter(_)
            | Self::Replica(Stroke::Kill | Stroke::Restart, _)
            | Self::Power => {
                let down = cell
                    .nodes_mut()
                    .filter(|node| node.running().pid().is_none());
                let mut down: Vec<_> = down.collect();
                down.iter_mut().for_each(|node| node.start());
                for node in down {
                    node.ready_within(START_WAIT).await;
                }
            }
            Self::Voter(blow, at) => blow.undo(cell, at).await,
            Self::Door(_, at) => {
                cell.doors[at].heal_both();
                cell.doors[at].set_link(Link::default());
            }
            Self::Replica(Stroke::Freeze, at) => cell.replicas[at].thaw(),
        }
    }
}

/// Has all nodes break a promise from now on, until they are started again. Replicas are late from then on: one that
/// has everything before anybody asks for it keeps promises by chance.
pub(super) async fn sabotage(cell: &mut Cell, point: &'static str) {
    for node in cell.nodes_mut() {
        let (name, actions) = (point, "return");
        node.tell(&Point::Set { name, actions }).await;
    }
    for replica in &mut cell.replicas {
        let (name, actions) = ("replica::before_apply", "sleep(1000)");
        replica.tell(&Point::Set { name, actions }).await;
    }
}
