//! The ways between voters: a relay per ordered pair, so that what one says to another can be lost in one
//! direction alone.
//!
//! A voter reaches another over a relay of its own (`--via`), which carries its requests there and the
//! answers back. So what B says to A is on two of them: B's requests on the way B to A, and B's answers on
//! the way A to B. Clients and replicas reach every voter directly: nobody takes a voter that is cut off for
//! dead.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tidemark_deploy::Direction;
use tidemark_deploy::{Link, Relay};

/// A relay from each voter to each other, by their places. None at all for voters that talk directly.
#[derive(Debug, Default)]
pub struct Ways {
    relays: BTreeMap<(usize, usize), Relay>,
}

impl Ways {
    /// Open ways between all who listen on these addresses.
    pub(crate) async fn between(addresses: &[SocketAddr]) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut relays = BTreeMap::new();
        for from in 0..addresses.len() {
            for (to, target) in addresses.iter().enumerate() {
                if from != to {
                    let relay = Relay::start(any, *target, Link::default(), 0).await;
                    relays.insert((from, to), relay.expect("start a relay on loopback"));
                }
            }
        }
        Self { relays }
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

    /// Opens every way; what waited on it arrives first.
    pub fn heal(&self) {
        self.relays.values().for_each(Relay::heal_both);
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
