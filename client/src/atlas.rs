//! Which nodes there are and which of them to ask: decided here, without a network and a clock.
//!
//! A node is *fit* if it answered when it was last looked at (one that was given may be tried unseen), the leader
//! lists it, and it has not just been a disappointment. The nearest fit one is asked, by a smoothed round trip.
//!
//! - A node is left at once when it disappoints, for a time that doubles with each disappointment in a row. When
//!   that is over and it answers again, it is as good as any.
//! - A node that answers well is left for a nearer one only if that is worth it: two at the same distance do not
//!   take turns.
//! - A look at the cluster is due from time to time, and when a node that was left may be tried again. It asks a
//!   bounded number of nodes: the one in use, the nearest, and in turn the others. An address of the map at which
//!   nobody has ever answered is tried once per map.
//!
//! Trap: what the map says of an address may be true elsewhere only. Nothing is asked there, however bad all else is,
//! before somebody at that address has said that it is that node, of that cluster, and nothing more once somebody
//! has said otherwise.

use std::sync::Arc;
use std::time::Duration;

use tidemark_protocol::cluster::ClusterMap;
use tidemark_protocol::node::Role;
use tidemark_protocol::{ClusterId, NodeId, Region};
use tokio::time::Instant;

/// Nodes kept in mind. Of more, those that were given stay, and those that the map has first.
const PLACES_MAX: usize = 64;
/// Nodes that are probed in one look.
const PROBES_MAX: usize = 8;
/// Of these, the nearest that are fit.
const NEAREST_PROBED: usize = 3;
/// What is newly measured counts a third: a way that has become longer is believed at the third look.
const SMOOTHING: u32 = 3;
/// A node is left for one whose round trip is shorter by this part, and by this time.
const NEARER_PART: u32 = 5;
const NEARER_BY: Duration = Duration::from_millis(1);
/// Looks from one map to the next. While somebody is missing on it, each has one.
const LOOKS_PER_MAP: u32 = 6;
/// How long a node is left alone after a disappointment: this part of the time between looks, doubling up to
/// so many times that time.
const FIRST_PENALTY_PART: u32 = 10;
const PENALTY_MAX_LOOKS: u32 = 6;
/// Looks are never closer than this part of the time between them.
const CLOSEST_LOOKS_PART: u32 = 20;

/// Base URL of a node, as it is asked.
pub(crate) type NodeUrl = Arc<str>;

/// The nodes of a cluster as a client sees them.
#[derive(Debug)]
pub(crate) struct Atlas {
    /// Time between two looks.
    every: Duration,
    /// At least one. Those that were given come first.
    places: Vec<Place>,
    /// Index of the one to ask.
    current: usize,
    cluster: Option<ClusterId>,
    /// When the newest look began.
    looked: Option<Instant>,
    look_due: Option<Instant>,
    looks_until_map: u32,
}

/// An address, and what is known of the node there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) url: NodeUrl,
    /// By whoever set the client up; otherwise the map told of it.
    pub(crate) given: bool,
    /// Who is there: by the map where that told of it, otherwise by itself.
    pub(crate) node: Option<NodeId>,
    pub(crate) region: Option<Region>,
    pub(crate) role: Option<Role>,
    /// Smoothed. `None`: never reached, or somebody else was there.
    pub(crate) round_trip: Option<Duration>,
    /// Whether it answered when it was last probed. One that was given counts as if, before it is.
    pub(crate) answers: bool,
    /// Whether the leader has it on its map: a replica that lost its primary goes stale.
    pub(crate) listed: bool,
    probed: Option<Instant>,
    disappointments: u32,
    left_until: Option<Instant>,
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sighting {
    pub(crate) node: Option<NodeId>,
    pub(crate) region: Option<Region>,
    pub(crate) role: Option<Role>,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) round_trip: Duration,
}

impl Place {
    fn new(url: NodeUrl, given: bool) -> Self {
        Self {
            url,
            given,
            node: None,
            region: None,
            role: None,
            round_trip: None,
            answers: given,
            listed: true,
            probed: None,
            disappointments: 0,
            left_until: None,
        }
    }

    fn is_left(&self, now: Instant) -> bool {
        self.left_until.is_some_and(|until| now < until)
    }

    /// Whether it was given, or is known to be the node that the map says it is.
    fn is_known(&self) -> bool {
        self.given || self.round_trip.is_some()
    }

    pub(crate) fn is_fit(&self, now: Instant) -> bool {
        self.answers && self.listed && !self.is_left(now)
    }

    /// Whether nobody ever answered at this address of the map, where somebody asked not long ago.
    fn seems_wrong(&self, now: Instant, pause: Duration) -> bool {
        let never = !self.given && self.round_trip.is_none();
        never && self.probed.is_some_and(|probed| now < probed + pause)
    }

    /// The less, the better to ask: fit before unfit, what may soon be fit again before what may not, near
    /// before far before unknown.
    fn rank(&self, now: Instant) -> impl Ord + use<> {
        let left = self.left_until.filter(|until| now < *until);
        let far = self.round_trip.unwrap_or(Duration::MAX);
        (!self.answers, left, !self.listed, far)
    }
}

impl Atlas {
    /// An atlas of these nodes alone. The first look is due at once.
    pub(crate) fn new(given: impl IntoIterator<Item = NodeUrl>, every: Duration) -> Self {
        let places: Vec<_> = given.into_iter().map(|url| Place::new(url, true)).collect();
        assert!(!places.is_empty(), "no node was given");
        Self {
            every,
            places,
            current: 0,
            cluster: None,
            looked: None,
            look_due: None,
            looks_until_map: 0,
        }
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The node to ask now.
    pub(crate) fn current(&self) -> &NodeUrl {
        &self.places[self.current].url
    }

    /// Nodes that may well answer.
    pub(crate) fn promising(&self) -> usize {
        let promising = self.places.iter().filter(|place| place.answers);
        promising.count().max(1)
    }

    /// A node answered as it should.
    pub(crate) fn pleased(&mut self, url: &NodeUrl) {
        if let Some(place) = self.place(url)
            && place.disappointments > 0
        {
            place.disappointments = 0;
            place.left_until = None;
        }
    }

    /// A node did not answer as it should: it is left for a time, and another one asked. `dice` is from 0 to 1.
    pub(crate) fn disappointed(&mut self, url: &NodeUrl, now: Instant, dice: f64) {
        let every = self.every;
        let Some(place) = self.place(url) else {
            return;
        };
        // Requests that were under way together are disappointed together: they count once.
        if !place.is_left(now) {
            let doubled = (every / FIRST_PENALTY_PART)
                .saturating_mul(1_u32.checked_shl(place.disappointments).unwrap_or(u32::MAX));
            let penalty = jittered(doubled.min(every * PENALTY_MAX_LOOKS), dice);
            place.disappointments += 1;
            let until = now + penalty;
            place.left_until = Some(until);
            self.look_due = self.look_due.map(|due| due.min(until));
        }
        if self.current() == url {
            self.current = self.best(now).unwrap_or(self.current);
        }
    }

    /// Begins a look, if it is time to.
    pub(crate) fn look_if_due(&mut self, now: Instant) -> bool {
        let due = self.look_due.is_none_or(|due| due <= now);
        let close = self
            .looked
            .is_some_and(|looked| now < looked + self.every / CLOSEST_LOOKS_PART);
        let begins = due && !close;
        if begins {
            self.look(now);
        }
        begins
    }

    /// Begins a look.
    pub(crate) fn look(&mut self, now: Instant) {
        self.looked = Some(now);
        self.looks_until_map = self.looks_until_map.saturating_sub(1);
    }

    /// Whom to ask for the map in this look, if it is to be asked for.
    pub(crate) fn map_from(&self) -> Option<NodeUrl> {
        let missing = self.places.iter().any(|place| !place.listed);
        (self.looks_until_map == 0 || missing).then(|| Arc::clone(self.current()))
    }

    /// Whether a look began after `moment`.
    pub(crate) fn looked_after(&self, moment: Instant) -> bool {
        self.looked.is_some_and(|looked| looked > moment)
    }

    /// The nodes to probe in a look that began, the one in use first.
    pub(crate) fn probes(&mut self, now: Instant) -> Vec<NodeUrl> {
        let pause = self.every * LOOKS_PER_MAP;
        let order = (0..self.places.len()).filter(|at| !self.places[*at].seems_wrong(now, pause));
        let mut order: Vec<usize> = order.collect();
        order.sort_by_key(|at| (*at != self.current, self.places[*at].rank(now)));
        let (first, rest) = order.split_at(order.len().min(NEAREST_PROBED));
        let mut rest = rest.to_vec();
        rest.sort_by_key(|at| self.places[*at].probed);
        let chosen = first.iter().copied().chain(rest).take(PROBES_MAX);
        let chosen: Vec<usize> = chosen.collect();
        let probed = chosen.into_iter().map(|at| {
            let place = &mut self.places[at];
            place.probed = Some(now);
            Arc::clone(&place.url)
        });
        probed.collect()
    }

    /// Takes a map in. `url_of` makes base URLs of those on the map that may be asked. Says whether it told of
    /// somebody new.
    pub(crate) fn drawn(
        &mut self,
        map: &ClusterMap,
        url_of: impl Fn(&str) -> Option<NodeUrl>,
    ) -> bool {
        self.cluster = map.cluster.or(self.cluster);
        self.looks_until_map = LOOKS_PER_MAP;
        let mut news = false;
        for known in &map.nodes {
            let Some(url) = known.url.as_deref().and_then(&url_of) else {
                continue;
            };
            let place = match self.places.iter().position(|place| place.url == url) {
                Some(at) => &mut self.places[at],
                None => {
                    self.make_room(map);
                    if self.places.len() >= PLACES_MAX {
                        continue;
                    }
                    self.places.push(Place::new(url, false));
                    news = true;
                    self.places.last_mut().expect("just pushed")
                }
            };
            if !place.given && place.node.is_some_and(|was| was != known.node) {
                // Another node has taken the address over.
                *place = Place::new(Arc::clone(&place.url), false);
                news = true;
            }
            place.node = Some(known.node);
            place.region = Some(known.region.clone());
            place.role = Some(known.role);
        }
        // Only the node that leads knows everybody.
        if map.complete {
            for place in &mut self.places {
                let is_it = |node: NodeId| map.nodes.iter().any(|known| known.node == node);
                place.listed = place.node.is_none_or(is_it);
            }
        }
        self.leave_strangers();
        news
    }

    /// Turns to one that was given, if nobody knows any more who is at the address in use.
    fn leave_strangers(&mut self) {
        if !self.places[self.current].is_known() {
            self.current = 0;
        }
    }

    /// Forgets somebody who does not answer and is on no map, if there are too many.
    fn make_room(&mut self, map: &ClusterMap) {
        if self.places.len() < PLACES_MAX {
            return;
        }
        let on_map = |node: NodeId| map.nodes.iter().any(|known| known.node == node);
        let gone = self
            .places
            .iter()
            .position(|place| !place.given && !place.answers && !place.node.is_some_and(on_map));
        if let Some(at) = gone
            && at != self.current
        {
            self.places.remove(at);
            self.current -= usize::from(at < self.current);
        }
    }

    /// A probe came back, or did not.
    pub(crate) fn probed(&mut self, url: &NodeUrl, sighting: Option<Sighting>) {
        let cluster = self.cluster;
        let Some(place) = self.place(url) else {
            return;
        };
        let is_it = |seen: &Sighting| {
            place.given || (seen.node == place.node && cluster.is_some() && seen.cluster == cluster)
        };
        let seen = match sighting {
            Some(seen) if is_it(&seen) => seen,
            stranger => {
                place.answers = false;
                if stranger.is_some() {
                    place.round_trip = None;
                    self.leave_strangers();
                }
                return;
            }
        };
        place.answers = true;
        place.node = seen.node.or(place.node);
        place.region = seen.region.or(place.region.take());
        place.role = seen.role.or(place.role);
        place.round_trip = Some(match place.round_trip {
            None => seen.round_trip,
            Some(before) => (before * (SMOOTHING - 1) + seen.round_trip) / SMOOTHING,
        });
    }

    /// A look is over: turns to the best, and says when to look again. `dice` is from 0 to 1.
    pub(crate) fn looked(&mut self, now: Instant, dice: f64) {
        let next = now + jittered(self.every, dice);
        let back = self.places.iter().filter_map(|place| place.left_until);
        let back = back.filter(|until| now < *until).min();
        self.look_due = Some(back.map_or(next, |back| back.min(next)));
        let Some(best) = self.best(now) else {
            return;
        };
        let (held, found) = (&self.places[self.current], &self.places[best]);
        if !found.is_fit(now) {
            return;
        }
        let far = held.round_trip.unwrap_or(Duration::MAX);
        let near = found.round_trip.unwrap_or(Duration::MAX);
        if !held.is_fit(now)
            || (near.saturating_add(NEARER_BY) <= far && near <= far - far / NEARER_PART)
        {
            self.current = best;
        }
    }

    /// Index of the node that would be best to ask.
    fn best(&self, now: Instant) -> Option<usize> {
        let known = (0..self.places.len()).filter(|at| self.places[*at].is_known());
        known.min_by_key(|at| self.places[*at].rank(now))
    }

    fn place(&mut self, url: &NodeUrl) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.url == *url)
    }
}

/// Three quarters of `time` to five quarters.
fn jittered(time: Duration, dice: f64) -> Duration {
    time.mul_f64(0.75 + dice.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests;
