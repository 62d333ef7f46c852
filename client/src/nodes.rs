//! The nodes that a client may ask, and which of them it asks now.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemark_protocol::node::Role;
use tokio::time::Instant;

use crate::atlas::{Atlas, NodeUrl, Place};

/// Whom to ask.
pub(crate) enum Nodes {
    /// One after the other, as they were given.
    InOrder {
        /// At least one.
        urls: Vec<NodeUrl>,
        /// Index of the node to ask first: the last one that was no disappointment.
        preferred: AtomicUsize,
    },
    /// The nearest.
    Nearest(Nearest),
}

/// What is known, and who may look for more.
pub(crate) struct Nearest {
    /// A std mutex: held for a few comparisons, never across an await.
    atlas: Mutex<Atlas>,
    /// One look at a time.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether nodes may be asked without encryption: as some of those that were given are.
    pub(crate) plain: bool,
}

/// A node that a client knows of, as it sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KnownNode {
    /// Its base URL.
    pub url: String,
    /// Its region, once somebody has told.
    pub region: Option<String>,
    /// Its part, once somebody has told.
    pub role: Option<Role>,
    /// How long a small question to it takes, smoothed. `None`: it was never reached.
    pub round_trip: Option<Duration>,
    /// Whether it would be asked, were it the nearest.
    pub fit: bool,
    /// Whether it is the one that is asked now.
    pub asked: bool,
}

impl Nodes {
    pub(crate) fn in_order(urls: impl IntoIterator<Item = String>) -> Self {
        Self::InOrder {
            urls: urls.into_iter().map(Into::into).collect(),
            preferred: AtomicUsize::new(0),
        }
    }

    /// `every`: time between two looks at the cluster.
    pub(crate) fn nearest(urls: Vec<String>, every: Duration) -> Self {
        let plain = urls.iter().any(|url| url.starts_with("http:"));
        let atlas = Atlas::new(urls.into_iter().map(Into::into), every);
        Self::Nearest(Nearest {
            atlas: Mutex::new(atlas),
            turn: Arc::default(),
            plain,
        })
    }

    /// The node to ask now.
    pub(crate) fn preferred(&self) -> NodeUrl {
        match self {
            Self::InOrder { urls, preferred } => {
                Arc::clone(&urls[preferred.load(Ordering::Relaxed)])
            }
            Self::Nearest(nearest) => Arc::clone(nearest.atlas().current()),
        }
    }

    /// How many there are to turn to, that one included.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::InOrder { urls, .. } => urls.len(),
            Self::Nearest(nearest) => nearest.atlas().promising(),
        }
    }

    /// Turns to another node than `node`, unless another request has already turned away from it. `crowded`: it has
    /// too much to do, or the primary behind it has. `dice` is from 0 to 1.
    pub(crate) fn disappointed(&self, node: &NodeUrl, crowded: bool, dice: f64) {
        match self {
            Self::InOrder { urls, preferred } => {
                let Some(at) = urls.iter().position(|url| url == node) else {
                    return;
                };
                let next = (at + 1) % urls.len();
                let _ = preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            }
            // All nodes hand on to one primary: the way there would only be longer.
            Self::Nearest(_) if crowded => {}
            Self::Nearest(nearest) => nearest.atlas().disappointed(node, Instant::now(), dice),
        }
    }

    /// `node` has answered well.
    pub(crate) fn pleased(&self, node: &NodeUrl) {
        match self {
            Self::InOrder { .. } => {}
            Self::Nearest(nearest) => nearest.atlas().pleased(node),
        }
    }

    /// All that are known, the best to ask first.
    pub(crate) fn known(&self) -> Vec<KnownNode> {
        let asked = self.preferred();
        match self {
            Self::InOrder { urls, .. } => {
                let unseen = |url: &NodeUrl| KnownNode {
                    url: url.to_string(),
                    region: None,
                    role: None,
                    round_trip: None,
                    fit: true,
                    asked: *url == asked,
                };
                urls.iter().map(unseen).collect()
            }
            Self::Nearest(nearest) => {
                let now = Instant::now();
                let seen = |place: &Place| KnownNode {
                    url: place.url.to_string(),
                    region: place.region.as_ref().map(ToString::to_string),
                    role: place.role,
                    round_trip: place.round_trip,
                    fit: place.is_fit(now),
                    asked: place.url == asked,
                };
                let mut known: Vec<_> = nearest.atlas().places().iter().map(seen).collect();
                let far = |node: &KnownNode| node.round_trip.unwrap_or(Duration::MAX);
                known.sort_by_key(|node| (!node.fit, far(node)));
                known
            }
        }
    }
}

impl Nearest {
    pub(crate) fn atlas(&self) -> MutexGuard<'_, Atlas> {
        self.atlas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.known().into_iter().map(|node| node.url))
            .finish()
    }
}
