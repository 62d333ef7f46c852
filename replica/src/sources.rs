//! Where the stream is looked for: at the listed nodes in turn, and at whichever of them, or of others,
//! is said to lead.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// At least one.
    listed: Vec<Source>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    source: Source,
    /// Index of the next listed one.
    next: usize,
}

impl Source {
    fn new(url: &str) -> Result<Self, UpstreamError> {
        Ok(Self {
            url: url.to_owned(),
            upstream: url.parse()?,
        })
    }
}

impl Sources {
    /// The nodes at these base URLs.
    pub(crate) fn new(urls: &[String]) -> Result<Self, UpstreamError> {
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
            next: 1,
        };
        Ok(Self {
            listed,
            now: Mutex::new(now),
        })
    }

    /// Whether there is more than one to look at.
    pub(crate) fn several(&self) -> bool {
        self.listed.len() > 1
    }

    /// The one that is followed, or tried.
    pub(crate) fn now(&self) -> Source {
        self.lock().source.clone()
    }

    /// Turns away from the one that failed: to `told`, which it said to lead, or to the next on the list.
    pub(crate) fn turn(&self, told: Option<&str>) {
        let mut now = self.lock();
        let told = told.and_then(|url| match Source::new(url) {
            Ok(source) => Some(source),
            Err(error) => {
                tracing::warn!(%error, "a node names a leader that cannot be reached");
                None
            }
        });
        now.source = match told {
            Some(told) if told.upstream != now.source.upstream => told,
            _ => {
                let at = now.next % self.listed.len();
                now.next = at + 1;
                self.listed[at].clone()
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
        Sources::new(&urls).expect("base URLs")
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
        assert!(Sources::new(&[]).is_err());
    }
}
