//! Where the stream is looked for: at the voters in turn, and at whichever node is said to lead.
//!
//! The voters are those that joined the cell while this process runs, as the source names them, then those of the
//! configuration: a cell may have replaced all of these by the time that its leader dies. Those that voted before are
//! reached as configured or not at all, for the ways that are configured may be the only ones wanted: a tunnel, a
//! proxy that speaks TLS. What the source named is not kept over a restart.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemark_protocol::NodeId;

use crate::upstream::{Upstream, UpstreamError};

/// A node that may lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Source {
    /// Its base URL, as given.
    pub(crate) url: String,
    /// The same, taken apart.
    pub(crate) upstream: Upstream,
}

/// The nodes to look at, and the one that is followed or tried now.
#[derive(Debug)]
pub(crate) struct Sources {
    /// Those of the configuration, at least one.
    listed: Vec<Source>,
    /// Other ways to some than those that the cell names.
    via: HashMap<NodeId, String>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    source: Source,
    /// Who voted when the source first said so. They are looked for where the configuration says.
    first: Option<HashSet<NodeId>>,
    /// All to look at, those that joined later first.
    all: Vec<Source>,
    /// Index of the next one.
    next: usize,
}

impl Source {
    fn new(url: &str) -> Result<Self, UpstreamError> {
        Ok(Self {
            url: url.to_owned(),
            upstream: url.parse()?,
        })
    }

    /// `None` if that is no base URL, which is another's mistake.
    fn named(url: &str) -> Option<Self> {
        let named = Self::new(url);
        let named = named.inspect_err(
            |error| tracing::warn!(%error, "a node names a voter that cannot be reached"),
        );
        named.ok()
    }
}

impl Sources {
    /// The nodes at these base URLs.
    pub(crate) fn new(
        urls: &[String],
        via: HashMap<NodeId, String>,
    ) -> Result<Self, UpstreamError> {
        let listed: Vec<_> = urls
            .iter()
            .map(|url| Source::new(url))
            .collect::<Result<_, _>>()?;
        let first = listed.first().ok_or_else(|| UpstreamError {
            text: String::new(),
            reason: "no node is listed".to_owned(),
        })?;
        let now = Now {
            source: first.clone(),
            first: None,
            all: listed.clone(),
            next: 1,
        };
        Ok(Self {
            listed,
            via,
            now: Mutex::new(now),
        })
    }

    /// Takes note of the voters that the source names.
    pub(crate) fn told(&self, voters: &[(NodeId, String)]) {
        let way = |(node, url): &(NodeId, String)| {
            let way = self.via.get(node).unwrap_or(url);
            Source::named(way)
        };
        let mut now = self.lock();
        let ids = || voters.iter().map(|(node, _)| *node).collect();
        let first = now.first.get_or_insert_with(ids);
        let joined = voters.iter().filter(|(node, _)| !first.contains(node));
        let mut all: Vec<_> = joined.filter_map(way).collect();
        for listed in &self.listed {
            if !all.iter().any(|told| told.upstream == listed.upstream) {
                all.push(listed.clone());
            }
        }
        now.all = all;
    }

    /// Whether there is more than one to look at.
    pub(crate) fn several(&self) -> bool {
        self.lock().all.len() > 1
    }

    /// The one that is followed, or tried.
    pub(crate) fn now(&self) -> Source {
        self.lock().source.clone()
    }

    /// Turns away from the one that failed: to `leader`, which it said to lead, or to the next.
    pub(crate) fn turn(&self, leader: Option<&str>) {
        let mut now = self.lock();
        now.source = match leader.and_then(Source::named) {
            Some(leader) if leader.upstream != now.source.upstream => leader,
            _ => {
                let at = now.next % now.all.len();
                now.next = at + 1;
                now.all[at].clone()
            }
        };
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(urls: &[&str]) -> Sources {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        Sources::new(&urls, HashMap::new()).expect("base URLs")
    }

    #[test]
    fn listed_ones_take_turns_and_the_one_told_goes_first() {
        let sources = sources(&["http://a", "http://b", "http://c"]);
        let mut seen = vec![sources.now().url];
        for told in [None, Some("http://d"), None, None, Some("http://a")] {
            sources.turn(told);
            seen.push(sources.now().url);
        }
        let expected = ["a", "b", "d", "c", "a", "b"].map(|host| format!("http://{host}"));
        assert_eq!(seen, expected, "one that names itself is not asked again");
    }

    #[test]
    fn one_alone_is_tried_again_and_a_bad_hint_ignored() {
        let sources = sources(&["http://a"]);
        for told in [None, Some("nonsense"), Some("http://a"), None] {
            sources.turn(told);
            assert_eq!(sources.now().url, "http://a");
        }
        assert!(Sources::new(&[], HashMap::new()).is_err());
    }

    #[test]
    fn voters_that_join_come_before_those_listed_and_by_the_ways_given() {
        let urls = ["http://a".to_owned(), "http://b".to_owned()];
        let via = HashMap::from([(NodeId(5), "http://tunnel".to_owned())]);
        let sources = Sources::new(&urls, via).expect("base URLs");
        let tell = |voters: &[(u64, &str)]| {
            let voters = voters.iter();
            let voters: Vec<_> = voters
                .map(|(node, url)| (NodeId(*node), (*url).to_owned()))
                .collect();
            sources.told(&voters);
        };
        let before = (1, "http://elsewhere");
        tell(&[before, (2, "http://b")]);
        tell(&[before, (3, "http://c"), (5, "http://e"), (6, "nonsense")]);
        let order = [(); 5].map(|()| {
            sources.turn(None);
            sources.now().url
        });
        let expected = ["tunnel", "a", "b", "c", "tunnel"].map(|host| format!("http://{host}"));
        assert_eq!(order, expected);
    }
}
