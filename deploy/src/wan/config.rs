//! Which links there are: a TOML file. `deploy/wan.toml` is one.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tidemark_protocol::Region;

use super::WanError;
use super::change::DELAY_MAX;
use crate::distance;
use crate::link::Link;

/// Longest name of a link, in bytes.
const NAME_LENGTH_MAX: usize = 64;

/// All links, and what holds for those that do not say otherwise.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WanConfig {
    /// Makes the jitter repeatable.
    #[serde(default)]
    pub seed: u64,
    /// Up to this much is added to each delay, anew for each chunk of bytes.
    #[serde(default, deserialize_with = "period")]
    pub jitter: Option<Duration>,
    /// Bytes per second and direction. Nothing: as fast as the machine.
    #[serde(default)]
    pub bytes_per_second: Option<NonZeroU64>,
    /// The links.
    #[serde(default, rename = "link")]
    pub links: Vec<LinkConfig>,
}

/// One way between two regions.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinkConfig {
    /// What it is called.
    pub name: String,
    /// The region of the side that connects.
    pub from: Region,
    /// The region of the target.
    pub to: Region,
    /// `HOST:PORT`, an address or a name of this machine. Looked up once.
    pub listen: String,
    /// `HOST:PORT`. A name is looked up for each connection.
    pub target: String,
    /// One-way delay. Nothing: by the [distance](crate::distance) of the regions.
    #[serde(default, deserialize_with = "period")]
    pub delay: Option<Duration>,
    /// Instead of that of all links.
    #[serde(default, deserialize_with = "period")]
    pub jitter: Option<Duration>,
    /// Instead of that of all links.
    #[serde(default)]
    pub bytes_per_second: Option<NonZeroU64>,
}

impl WanConfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, WanError> {
        let text = std::fs::read_to_string(path).map_err(|source| WanError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, WanError> {
        Ok(toml::from_str(text).map_err(Box::new)?)
    }

    /// What each link is like, in the order of the links.
    pub(super) fn validate(&self) -> Result<Vec<Link>, WanError> {
        if self.links.is_empty() {
            return Err(WanError::Empty);
        }
        let mut names = BTreeSet::new();
        let link = |link: &LinkConfig| {
            check_name(&link.name)?;
            if !names.insert(link.name.clone()) {
                let name = link.name.clone();
                return Err(WanError::Twice { name });
            }
            self.link(link)
        };
        self.links.iter().map(link).collect()
    }

    fn link(&self, link: &LinkConfig) -> Result<Link, WanError> {
        let delay = link
            .delay
            .or_else(|| distance::one_way(&link.from, &link.to));
        let delay = delay.ok_or_else(|| WanError::Distance {
            name: link.name.clone(),
            from: link.from.clone(),
            to: link.to.clone(),
        })?;
        let jitter = link.jitter.or(self.jitter).unwrap_or_default();
        for (what, got) in [("the delay", delay), ("the jitter", jitter)] {
            if got > DELAY_MAX {
                let name = link.name.clone();
                return Err(WanError::TooLong { name, what, got });
            }
        }
        Ok(Link {
            delay,
            jitter,
            bytes_per_second: link.bytes_per_second.or(self.bytes_per_second),
        })
    }
}

fn check_name(name: &str) -> Result<(), WanError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    Err(WanError::Name {
        name: name.to_owned(),
    })
}

fn period<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let period = humantime::parse_duration(&text);
    period.map(Some).map_err(|error| {
        serde::de::Error::custom(format!(
            "'{text}' is not a length of time such as 40ms: {error}"
        ))
    })
}
