//! What is asked of a link, or of all links of a region.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use tidemark_protocol::Region;

use crate::link::{Direction, Link};

/// Longest delay and jitter.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(60);

/// What is to be different. `C` says what is cut: [`LinkCut`] or [`RegionCut`].
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change<C> {
    /// One-way delay.
    #[serde(default)]
    pub delay_ms: Option<f64>,
    /// Up to this much more.
    #[serde(default)]
    pub jitter_ms: Option<f64>,
    /// Bytes per second and direction; `null`: as fast as the machine.
    #[serde(default, deserialize_with = "given")]
    pub bytes_per_second: Option<Option<NonZeroU64>>,
    /// What is cut from now on; the rest is open.
    #[serde(default = "Option::default")]
    pub cut: Option<C>,
}

/// The directions of a link that let nothing through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkCut {
    /// Both are open.
    #[default]
    None,
    /// From the side that connects.
    ToTarget,
    /// From the target back.
    FromTarget,
    /// Neither is open.
    Both,
}

/// The directions of a region's links that let nothing through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegionCut {
    /// It is reached and reaches others.
    #[default]
    None,
    /// Nothing comes in; what it says still goes out.
    In,
    /// Nothing goes out; it still hears the others.
    Out,
    /// It is alone.
    Both,
}

/// A link cannot be shown or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no such link.
    #[error("there is no link '{name}'")]
    NoLink {
        /// What was asked for.
        name: String,
    },
    /// No link starts or ends there.
    #[error("no link joins region {region}")]
    NoRegion {
        /// What was asked for.
        region: Region,
    },
    /// The region's name cannot be one.
    #[error(transparent)]
    Region(#[from] tidemark_protocol::id::RegionError),
    /// The body is not a change.
    #[error("the change cannot be understood")]
    Body(#[from] serde_json::Error),
    /// No way is that long, or that short.
    #[error("{field} is {got}, expected 0 to {max}", max = DELAY_MAX.as_millis())]
    OutOfRange {
        /// Which value.
        field: &'static str,
        /// What was given.
        got: f64,
    },
}

impl<C> Change<C> {
    /// What a link that was like `base` is like then.
    pub(super) fn over(&self, base: Link) -> Result<Link, ChangeError> {
        let time = |field, given: Option<f64>, otherwise| match given {
            None => Ok(otherwise),
            Some(ms) => Duration::try_from_secs_f64(ms / 1000.0)
                .ok()
                .filter(|time| *time <= DELAY_MAX)
                .ok_or(ChangeError::OutOfRange { field, got: ms }),
        };
        Ok(Link {
            delay: time("delay_ms", self.delay_ms, base.delay)?,
            jitter: time("jitter_ms", self.jitter_ms, base.jitter)?,
            bytes_per_second: self.bytes_per_second.unwrap_or(base.bytes_per_second),
        })
    }
}

impl Change<RegionCut> {
    /// The same for one of the region's links, which starts there or ends there.
    pub(super) fn of_link(&self, starts_there: bool) -> Change<LinkCut> {
        let Self {
            delay_ms,
            jitter_ms,
            bytes_per_second,
            cut,
        } = *self;
        let cut = cut.map(|cut| match (cut, starts_there) {
            (RegionCut::None, _) => LinkCut::None,
            (RegionCut::Both, _) => LinkCut::Both,
            (RegionCut::Out, true) | (RegionCut::In, false) => LinkCut::ToTarget,
            (RegionCut::In, true) | (RegionCut::Out, false) => LinkCut::FromTarget,
        });
        Change {
            delay_ms,
            jitter_ms,
            bytes_per_second,
            cut,
        }
    }
}

impl LinkCut {
    pub(super) fn of(to_target: bool, from_target: bool) -> Self {
        match (to_target, from_target) {
            (false, false) => Self::None,
            (true, false) => Self::ToTarget,
            (false, true) => Self::FromTarget,
            (true, true) => Self::Both,
        }
    }

    pub(super) fn directions(self) -> [(Direction, bool); 2] {
        [
            (
                Direction::ToTarget,
                matches!(self, Self::ToTarget | Self::Both),
            ),
            (
                Direction::FromTarget,
                matches!(self, Self::FromTarget | Self::Both),
            ),
        ]
    }
}

/// Tells `null` from nothing at all.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<NonZeroU64>>, D::Error> {
    Option::deserialize(from).map(Some)
}
