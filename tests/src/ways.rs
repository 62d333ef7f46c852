//! The ways between voters: a relay per ordered pair, so that what one says to another can be lost in one
//! direction alone.
//!
//! A voter reaches another over a relay of its own (`--via`), which carries its requests there and the
//! answers back. So what B says to A is on two of them: B's requests on the way B to A, and B's answers on
//! the way A to B. Clients and replicas reach every voter directly: nobody takes a voter that is cut off for
//! dead.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;

use tidemark_deploy::Direction;
use tidemark_deploy::{Link, Relay};

/// A relay from each voter to each other, by their places. None at all for voters that talk directly.
#[derive(Debug, Default)]
pub struct Ways {
    relays: BTreeMap<(usize, usize), Relay>,
    /// Those of each replica to each voter, by their places.
    of_replicas: BTreeMap<(usize, usize), Relay>,
}

impl Ways {
    /// Open ways between all who listen on these addresses.
    pub(crate) async fn between(addresses: &[SocketAddr]) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut relays = BTreeMap::new();
        for from in 0..addresses.len() {
            for (to, target) in addresses.iter().enumerate() {
                if from != to {
                    let seed = (from * addresses.len() + to) as u64;
                    let relay = Relay::start(any, *target, Link::default(), seed).await;
                    relays.insert((from, to), relay.expect("start a relay on loopback"));
                }
            }
        }
        Self {
            relays,
            of_replicas: BTreeMap::new(),
        }
    }

    /// Opens ways from the replica of this place to all voters; returns where it finds them.
    pub(crate) async fn of_replica(&mut self, place: usize, voters: &[SocketAddr]) -> Vec<String> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut urls = Vec::new();
        for (to, target) in voters.iter().enumerate() {
            let seed = (1000 * (place + 1) + to) as u64;
            let relay = Relay::start(any, *target, Link::default(), seed).await;
            let relay = relay.expect("start a relay on loopback");
            urls.push(format!("http://{}", relay.address()));
            self.of_replicas.insert((place, to), relay);
        }
        urls
    }

    /// Where the one at this place finds each other.
    pub(crate) fn from(&self, place: usize) -> impl Iterator<Item = (usize, String)> {
        let own = self
            .relays
            .iter()
            .filter(move |((from, _), _)| *from == place);
        own.map(|((_, to), relay)| (*to, format!("http://{}", relay.address())))
    }

    /// From now on nothing arrives at `listener` that `speaker` says, whether it asks or answers.
    pub fn deafen(&self, listener: usize, speaker: usize) {
        self.lanes(listener, speaker)
            .for_each(|(relay, direction)| relay.cut(direction));
    }

    /// From now on `listener` hears nobody.
    pub fn deafen_to_all(&self, listener: usize) {
        self.others(listener)
            .for_each(|speaker| self.deafen(listener, speaker));
    }

    /// From now on nobody hears `speaker`.
    pub fn mute(&self, speaker: usize) {
        self.others(speaker)
            .for_each(|listener| self.deafen(listener, speaker));
    }

    /// From now on nothing passes between the one at this place and any other.
    pub fn isolate(&self, place: usize) {
        self.deafen_to_all(place);
        self.mute(place);
    }

    /// What the ways to and from the one at this place are like from now on.
    pub fn set_link(&self, place: usize, link: Link) {
        let own = self
            .relays
            .iter()
            .filter(|((from, to), _)| *from == place || *to == place);
        own.for_each(|(_, relay)| relay.set_link(link));
    }

    /// Opens every way; what waited on it arrives first.
    pub fn heal(&self) {
        self.relays.values().for_each(Relay::heal_both);
    }

    /// From now on one byte in so many, on average, arrives as another on every way, those of replicas too. `None`: none
    /// does.
    pub fn damage(&self, every: Option<NonZeroU64>) {
        for relay in self.relays.values().chain(self.of_replicas.values()) {
            relay.damage(Direction::ToTarget, every);
            relay.damage(Direction::FromTarget, every);
        }
    }

    /// How many bytes arrived as others so far.
    pub fn damaged(&self) -> u64 {
        let both = |relay: &Relay| {
            relay.damaged(Direction::ToTarget) + relay.damaged(Direction::FromTarget)
        };
        let all = self.relays.values().chain(self.of_replicas.values());
        all.map(both).sum()
    }

    fn others(&self, place: usize) -> impl Iterator<Item = usize> {
        let own = self.relays.keys().filter(move |(from, _)| *from == place);
        own.map(|(_, to)| *to)
    }

    /// What carries the words of `speaker` to `listener`. Panics if there are no relays.
    fn lanes(&self, listener: usize, speaker: usize) -> impl Iterator<Item = (&Relay, Direction)> {
        let asks = &self.relays[&(speaker, listener)];
        let answers = &self.relays[&(listener, speaker)];
        [
            (asks, Direction::ToTarget),
            (answers, Direction::FromTarget),
        ]
        .into_iter()
    }
}
