//! At stake: that the nearest node is asked which can answer, and that looking for it costs next to nothing.

use tidemark_protocol::Term;
use tidemark_protocol::cluster::ClusterNode;

use super::*;

const EVERY: Duration = Duration::from_secs(10);
const CLUSTER: Option<ClusterId> = Some(ClusterId(0xc1));
const MIDDLE: f64 = 0.5;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn url(name: &str) -> NodeUrl {
    format!("http://{name}").into()
}

fn seen(node: u64, round_trip: Duration) -> Option<Sighting> {
    Some(Sighting {
        node: Some(NodeId(node)),
        region: None,
        role: None,
        cluster: CLUSTER,
        round_trip,
    })
}

/// A map by the leader with these nodes, by number and address.
fn map(nodes: &[(u64, &str)]) -> ClusterMap {
    let node = |(number, name): &(u64, &str)| ClusterNode {
        node: NodeId(*number),
        role: Role::Replica,
        region: "WEUR".parse().expect("a region"),
        url: Some(url(name).to_string()),
        leading: false,
        voter: false,
        behind: None,
        lag_ms: None,
    };
    ClusterMap {
        drawn_by: NodeId(1),
        cluster: CLUSTER,
        complete: true,
        term: Term(1),
        commits: 0,
        nodes: nodes.iter().map(node).collect(),
    }
}

/// An atlas and a time that goes on.
struct World {
    atlas: Atlas,
    now: Instant,
}

impl World {
    fn of(given: &[&str]) -> Self {
        Self {
            atlas: Atlas::new(given.iter().map(|name| url(name)), EVERY),
            now: Instant::now(),
        }
    }

    fn drawn(&mut self, map: &ClusterMap) {
        self.atlas.drawn(map, |url| Some(url.into()));
    }

    /// A look that finds these nodes, by address, number and distance, and none of the others it probes. Returns
    /// whom it probed.
    fn look(&mut self, found: &[(&str, u64, Duration)]) -> Vec<NodeUrl> {
        self.atlas.look(self.now);
        let probes = self.atlas.probes(self.now);
        for probe in &probes {
            let there = found.iter().find(|(name, ..)| url(name) == *probe);
            let sighting = there.and_then(|(_, node, far)| seen(*node, *far));
            self.atlas.probed(probe, sighting);
        }
        self.atlas.looked(self.now, MIDDLE);
        probes
    }

    fn disappointed(&mut self, name: &str) {
        self.atlas.disappointed(&url(name), self.now, MIDDLE);
    }

    #[track_caller]
    fn asks(&self, name: &str) {
        assert_eq!(*self.atlas.current(), url(name), "{:#?}", self.atlas);
    }
}

#[test]
fn first_given_is_asked_until_somebody_has_looked_and_then_the_nearest_of_all() {
    let mut world = World::of(&["lb", "far"]);
    world.asks("lb");
    world.drawn(&map(&[(7, "near")]));
    world.asks("lb");
    world.look(&[("lb", 1, ms(90)), ("far", 2, ms(200)), ("near", 7, ms(3))]);
    world.asks("near");
}

#[test]
fn two_at_about_one_distance_do_not_take_turns() {
    let mut world = World::of(&["a", "b"]);
    world.look(&[("a", 1, ms(50)), ("b", 2, ms(45))]);
    world.asks("a");
    // Both are a millisecond away: a third of one is not worth a move either.
    let mut world = World::of(&["a", "b"]);
    world.look(&[("a", 1, ms(1)), ("b", 2, Duration::from_micros(400))]);
    world.asks("a");
    world.look(&[("a", 1, ms(1)), ("b", 2, ms(1))]);
    world.asks("a");
}

#[test]
fn one_slow_answer_moves_nobody_and_a_longer_way_does() {
    let mut world = World::of(&["a", "b"]);
    let calm = [("a", 1, ms(20)), ("b", 2, ms(40))];
    let slow = [("a", 1, ms(60)), ("b", 2, ms(40))];
    world.look(&calm);
    world.look(&slow);
    world.asks("a");
    for _ in 0..10 {
        world.look(&slow);
    }
    world.asks("b");
    for _ in 0..10 {
        world.look(&calm);
    }
    world.asks("a");
}

#[test]
fn node_that_fails_is_left_at_once_for_the_next_nearest_and_returned_to() {
    let near_to_far = [("a", 1, ms(10)), ("b", 2, ms(50)), ("c", 3, ms(90))];
    let mut world = World::of(&["c", "b", "a"]);
    world.look(&near_to_far);
    world.asks("a");
    world.disappointed("a");
    world.asks("b");
    // It is still down when it is looked at.
    world.now += EVERY;
    world.look(&near_to_far[1..]);
    world.asks("b");
    world.now += EVERY;
    world.look(&near_to_far);
    world.asks("a");
}

#[test]
fn penalty_doubles_with_each_failure_in_a_row_and_counts_a_crowd_once() {
    let both = [("a", 1, ms(10)), ("b", 2, ms(50))];
    let mut world = World::of(&["a", "b"]);
    world.look(&both);
    let left_for = |world: &mut World| {
        for _ in 0..100 {
            world.disappointed("a");
        }
        world.asks("b");
        let begun = world.now;
        loop {
            world.look(&both);
            if *world.atlas.current() == url("a") {
                return world.now - begun;
            }
            world.now += ms(100);
        }
    };
    let times: Vec<_> = (0..9).map(|_| left_for(&mut world)).collect();
    let seconds: Vec<_> = times.iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    // An answer as it should be, and all is forgotten.
    world.atlas.pleased(&url("a"));
    assert_eq!(left_for(&mut world).as_secs(), 1);
}

#[test]
fn when_nobody_is_fit_all_are_tried_and_the_first_to_answer_stays() {
    let mut world = World::of(&["a", "b", "c"]);
    world.look(&[("a", 1, ms(1)), ("b", 2, ms(9)), ("c", 3, ms(20))]);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let current = Arc::clone(world.atlas.current());
        world.atlas.disappointed(&current, world.now, MIDDLE);
        asked.push(current);
        world.now += ms(10);
    }
    assert_eq!(asked, [url("a"), url("b"), url("c")]);
    // The one whose time is over first.
    world.asks("a");
    assert_eq!(world.atlas.promising(), 3);
}

#[test]
fn somebody_else_at_an_address_of_the_map_is_not_asked() {
    let mut world = World::of(&["given"]);
    world.drawn(&map(&[(7, "told")]));
    let given = ("given", 1, ms(80));
    world.look(&[given, ("told", 8, ms(1))]);
    world.asks("given");
    // The right number in another cluster, and one that says of no cluster.
    for cluster in [Some(ClusterId(0xc2)), None] {
        let stranger = seen(7, ms(1)).map(|seen| Sighting { cluster, ..seen });
        world.atlas.probed(&url("told"), stranger);
        world.atlas.looked(world.now, MIDDLE);
        world.asks("given");
    }
    // Nobody was ever there, so it has time.
    let there = [given, ("told", 7, ms(1))];
    assert_eq!(world.look(&there), [url("given")]);
    world.now += EVERY * LOOKS_PER_MAP;
    world.look(&there);
    world.asks("told");
    // Whoever was given may be anybody: a balancer has several behind it.
    world.look(&[("given", 3, ms(80)), ("told", 8, ms(1))]);
    world.asks("given");
}

#[test]
fn nobody_unknown_is_asked_however_bad_all_else_is() {
    let mut world = World::of(&["given", "other"]);
    world.drawn(&map(&[(7, "told")]));
    world.look(&[]);
    for _ in 0..20 {
        let current = Arc::clone(world.atlas.current());
        assert_ne!(current, url("told"));
        world.atlas.disappointed(&current, world.now, MIDDLE);
        world.now += ms(300);
        world.look(&[("told", 8, ms(1))]);
    }
    // Once known it may be tried even when it was silent, until somebody else is found there.
    world.now += EVERY * LOOKS_PER_MAP;
    world.look(&[("told", 7, ms(1))]);
    world.asks("told");
    world.look(&[]);
    world.asks("told");
    world.look(&[("told", 8, ms(1))]);
    assert_ne!(*world.atlas.current(), url("told"));
    // The same if the map has another node there.
    world.now += EVERY * LOOKS_PER_MAP;
    world.look(&[("told", 7, ms(1))]);
    world.asks("told");
    world.drawn(&map(&[(9, "told")]));
    assert_ne!(*world.atlas.current(), url("told"));
}

#[test]
fn replica_that_lost_its_primary_is_left_though_it_answers() {
    let mut world = World::of(&["given"]);
    let both = [("given", 1, ms(80)), ("told", 7, ms(1))];
    world.drawn(&map(&[(1, "given"), (7, "told")]));
    world.look(&both);
    world.asks("told");
    let without = map(&[(1, "given")]);
    // One that does not lead does not know everybody.
    let told = ClusterMap {
        complete: false,
        ..without.clone()
    };
    world.drawn(&told);
    world.look(&both);
    world.asks("told");
    world.drawn(&without);
    world.look(&both);
    world.asks("given");
    assert_eq!(
        world.atlas.map_from(),
        Some(url("given")),
        "to see it come back"
    );
    world.drawn(&map(&[(1, "given"), (7, "told")]));
    world.look(&both);
    world.asks("told");
}

#[test]
fn looks_are_few_and_so_is_what_each_asks() {
    let names: Vec<_> = (0..30).map(|number| format!("node-{number}")).collect();
    let nodes: Vec<_> = (0..30).zip(names.iter().map(String::as_str)).collect();
    let found = nodes.iter().map(|(n, name)| (*name, *n, ms(10 + 3 * n)));
    let found: Vec<_> = found.collect();
    let mut world = World::of(&["node-29"]);
    world.drawn(&map(&nodes));
    let mut probed = std::collections::BTreeSet::new();
    let mut maps = 0;
    for _ in 0..12 {
        assert!(world.atlas.look_if_due(world.now));
        if world.atlas.map_from().is_some() {
            maps += 1;
            world.drawn(&map(&nodes));
        }
        let probes = world.atlas.probes(world.now);
        assert!(probes.len() <= PROBES_MAX, "{probes:?}");
        for url in &probes {
            let (_, node, far) = found
                .iter()
                .find(|one| super::tests::url(one.0) == *url)
                .expect("one of them");
            world.atlas.probed(url, seen(*node, *far));
        }
        probed.extend(probes);
        world.atlas.looked(world.now, MIDDLE);
        assert!(!world.atlas.look_if_due(world.now + EVERY / 2));
        world.now += EVERY;
    }
    assert_eq!(maps, 2);
    assert_eq!(probed.len(), 30, "everybody has had a turn");
    world.asks("node-0");
}

#[test]
fn churn_of_addresses_is_forgotten_and_those_given_are_not() {
    let mut world = World::of(&["given"]);
    for generation in 0..100 {
        let name = format!("pod-{generation}");
        world.drawn(&map(&[(1, "given"), (1000 + generation, &name)]));
        world.look(&[("given", 1, ms(5))]);
    }
    assert!(world.atlas.places().len() <= PLACES_MAX);
    let newest = world
        .atlas
        .places()
        .last()
        .map(|place| Arc::clone(&place.url));
    assert_eq!(newest, Some(url("pod-99")));
    world.asks("given");
}

#[test]
fn jitter_stays_within_a_quarter() {
    for (dice, expected) in [
        (0.0, ms(750)),
        (0.5, ms(1000)),
        (1.0, ms(1250)),
        (7.0, ms(1250)),
    ] {
        assert_eq!(jittered(ms(1000), dice), expected);
    }
}
