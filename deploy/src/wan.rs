//! Relays as a service: every way between two regions of a cluster on one machine, changed over HTTP.
//!
//! 1. [`WanConfig`] lists the links: where each listens, where it leads, which regions it joins.
//! 2. [`Wan::start`] starts a [`Relay`] for each, as slow as its regions are [far apart](crate::distance) unless
//!    the file says otherwise.
//! 3. [`control`] shows the links and changes them: delay, jitter, bandwidth, cuts.
//!
//! What is changed lasts until the process ends; the file is never written. Whoever reaches the HTTP face can cut
//! the cluster into pieces: it is for trying things out, and belongs on a loopback address.

mod change;
mod config;
mod control;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tidemark_protocol::Region;

pub use self::change::{Change, ChangeError, LinkCut, RegionCut};
pub use self::config::{LinkConfig, WanConfig};
pub use self::control::control;
use crate::link::{Direction, Link};
use crate::relay::{Relay, Traffic};
use crate::target::Target;

/// Links that are up.
#[derive(Debug)]
pub struct Wan {
    links: Vec<WanLink>,
    /// Held while links are changed: a change is based on what is there.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct WanLink {
    config: LinkConfig,
    /// As the file has it.
    configured: Link,
    relay: Relay,
}

/// The links cannot be brought up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WanError {
    /// The file cannot be read.
    #[error("cannot read '{path}'")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a list of links.
    #[error("cannot understand the list of links")]
    Parse(#[from] Box<toml::de::Error>),
    /// There is nothing to do.
    #[error("no link is listed")]
    Empty,
    /// Names tell links apart.
    #[error("link '{name}' is listed twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name is part of a URL.
    #[error("'{name}' is not a link's name: want 1 to 64 ASCII letters, digits, '-' or '_'")]
    Name {
        /// What was given.
        name: String,
    },
    /// Neither the file nor the table of distances has a delay.
    #[error("link '{name}': the distance between {from} and {to} is not known: give a delay")]
    Distance {
        /// The link.
        name: String,
        /// One end.
        from: Region,
        /// The other end.
        to: Region,
    },
    /// No way is as long.
    #[error("link '{name}': {what} is {got:?}, expected at most {max:?}", max = change::DELAY_MAX)]
    TooLong {
        /// The link.
        name: String,
        /// Delay or jitter.
        what: &'static str,
        /// What was given.
        got: std::time::Duration,
    },
    /// The link cannot listen.
    #[error("link '{name}': cannot listen on '{listen}'")]
    Listen {
        /// The link.
        name: String,
        /// Where it should.
        listen: String,
        /// Why it cannot.
        source: std::io::Error,
    },
}

/// A link as it is now.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LinkState {
    /// Its name.
    pub name: String,
    /// The region of the side that connects.
    pub from: Region,
    /// The region of the target.
    pub to: Region,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it leads.
    pub target: String,
    /// One-way delay.
    pub delay_ms: f64,
    /// Up to this much more.
    pub jitter_ms: f64,
    /// Bytes per second and direction. `null`: as fast as the machine.
    pub bytes_per_second: Option<std::num::NonZeroU64>,
    /// What is cut.
    pub cut: LinkCut,
    /// Connections accepted since the start.
    pub connections: u64,
    /// Bytes delivered to the target since the start.
    pub bytes_to_target: u64,
    /// Bytes delivered back since the start.
    pub bytes_from_target: u64,
}

impl Wan {
    /// Brings all links up, or none.
    pub async fn start(config: WanConfig) -> Result<Self, WanError> {
        let configured = config.validate()?;
        let mut links = Vec::with_capacity(configured.len());
        for ((config, configured), seed) in
            config.links.into_iter().zip(configured).zip(config.seed..)
        {
            let relay = listen(&config, configured, seed).await;
            let relay = relay.map_err(|source| WanError::Listen {
                name: config.name.clone(),
                listen: config.listen.clone(),
                source,
            })?;
            tracing::info!(
                link = config.name,
                from = %config.from,
                to = %config.to,
                listen = %relay.address(),
                target = config.target,
                delay = ?configured.delay,
                "link is up"
            );
            links.push(WanLink {
                config,
                configured,
                relay,
            });
        }
        Ok(Self {
            links,
            changing: Mutex::new(()),
        })
    }

    /// All links, in the order of the file.
    pub fn states(&self) -> Vec<LinkState> {
        self.links.iter().map(WanLink::state).collect()
    }

    /// One link.
    pub fn state(&self, name: &str) -> Result<LinkState, ChangeError> {
        self.find(name).map(WanLink::state)
    }

    /// Changes one link: what the change does not name stays, or with `reset` becomes as configured.
    pub fn change(
        &self,
        name: &str,
        change: &Change<LinkCut>,
        reset: bool,
    ) -> Result<LinkState, ChangeError> {
        let link = self.find(name)?;
        let _changing = self.lock();
        link.change(change, reset)?;
        Ok(link.state())
    }

    /// Changes all links of a region alike.
    pub fn change_region(
        &self,
        region: &Region,
        change: &Change<RegionCut>,
        reset: bool,
    ) -> Result<Vec<LinkState>, ChangeError> {
        let ends_there = |link: &&WanLink| link.config.from == *region || link.config.to == *region;
        let links: Vec<_> = self.links.iter().filter(ends_there).collect();
        if links.is_empty() {
            return Err(ChangeError::NoRegion {
                region: region.clone(),
            });
        }
        let _changing = self.lock();
        for link in &links {
            let starts_there = link.config.from == *region;
            link.change(&change.of_link(starts_there), reset)?;
        }
        Ok(links.into_iter().map(WanLink::state).collect())
    }

    fn find(&self, name: &str) -> Result<&WanLink, ChangeError> {
        let link = self.links.iter().find(|link| link.config.name == name);
        link.ok_or_else(|| ChangeError::NoLink {
            name: name.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WanLink {
    fn change(&self, change: &Change<LinkCut>, reset: bool) -> Result<(), ChangeError> {
        let base = if reset {
            self.configured
        } else {
            self.relay.link()
        };
        let link = change.over(base)?;
        let cut = change.cut.or(reset.then_some(LinkCut::None));
        let changed = link != self.relay.link() || cut.is_some_and(|cut| cut != self.cut());
        self.relay.set_link(link);
        if let Some(cut) = cut {
            for (direction, is_cut) in cut.directions() {
                if is_cut {
                    self.relay.cut(direction);
                } else {
                    self.relay.heal(direction);
                }
            }
        }
        if changed {
            tracing::info!(link = self.config.name, now = ?link, cut = ?self.cut(), "link changed");
        }
        Ok(())
    }

    fn cut(&self) -> LinkCut {
        LinkCut::of(
            self.relay.is_cut(Direction::ToTarget),
            self.relay.is_cut(Direction::FromTarget),
        )
    }

    fn state(&self) -> LinkState {
        let Link {
            delay,
            jitter,
            bytes_per_second,
        } = self.relay.link();
        let Traffic {
            connections,
            bytes_to_target,
            bytes_from_target,
        } = self.relay.traffic();
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        LinkState {
            name: self.config.name.clone(),
            from: self.config.from.clone(),
            to: self.config.to.clone(),
            listen: self.relay.address(),
            target: self.config.target.clone(),
            delay_ms: ms(delay),
            jitter_ms: ms(jitter),
            bytes_per_second,
            cut: self.cut(),
            connections,
            bytes_to_target,
            bytes_from_target,
        }
    }
}

async fn listen(config: &LinkConfig, link: Link, seed: u64) -> std::io::Result<Relay> {
    let mut addresses = tokio::net::lookup_host(&config.listen).await?;
    let address = addresses.next().ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")
    })?;
    let target = match config.target.parse::<SocketAddr>() {
        Ok(address) => Target::Address(address),
        Err(_) => Target::Name(config.target.clone()),
    };
    Relay::start(address, target, link, seed).await
}

#[cfg(test)]
mod tests;
