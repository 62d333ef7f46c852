//! Who is in the cell: how it begins, how nodes join and leave, how leadership is handed over.
//!
//! ```text
//! empty log ── alone ────────────> initialized by itself
//!           ── voters listed ────> bootstrap: all of them answer once, the lowest id initialises
//!           ── told to join ─────> join: asks the leader until it votes
//! log begun ────────────────────> the log says who votes
//! ```
//!
//! - `bootstrap` begins a cell of several, `join` asks to be taken into one;
//! - `admit` is the leader's side: joining, removing, handing over, one change at a time;
//! - `retire` is a graceful stop: leadership goes to another voter before the process does;
//! - `watch` finds out that this node was removed;
//! - `routes` is all of it over HTTP, `peers` the client of that, `status` what operators see.
//!
//! Invariants:
//!
//! - A node id names one life of one data directory, for ever. The membership has each member's
//!   incarnation, the catalogue's table `members` every incarnation there ever was. Whoever comes under a
//!   known id with another incarnation is refused, and stops: it may have forgotten a vote or an
//!   acknowledged entry.
//! - An id is on record before the membership has it, and a removal before the membership lacks it: a
//!   leader that dies in between leaves something to repeat, never something to forget.

mod admit;
mod bootstrap;
mod error;
mod join;
mod peers;
mod record;
mod retire;
mod routes;
mod status;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tidemark_net::Connector;
use tidemark_protocol::cell::CellVoter;
use tokio::sync::{Mutex, watch as channel};

use crate::cell::{Primary, PrimaryError};
use crate::config::PrimaryConfig;
use crate::consensus::Member;
use crate::files;

pub use self::error::MembersError;
pub(crate) use self::record::first_members;
pub(crate) use self::routes::routes;

use self::peers::Peers;

/// In the directory of a node that joins a cell, from before it asks.
const JOINING_FILE: &str = "joining";
const JOINING_TEXT: &[u8] = b"This node was made to join a cell. It begins none of its own.\n";

/// What a node needs to deal with the others of its cell.
#[derive(Debug)]
pub(crate) struct Members {
    peers: Peers,
    /// Held while the membership is changed.
    change: Mutex<()>,
    /// Why this node cannot be part of its cell.
    broken: channel::Sender<Option<Arc<MembersError>>>,
    /// This node is stopping and must not lead any more.
    retiring: AtomicBool,
}

impl Members {
    /// `None` if the cluster secret cannot be sent in a header.
    pub(crate) fn new(config: &PrimaryConfig, connector: &Arc<dyn Connector>) -> Option<Self> {
        Some(Self {
            peers: Peers::new(&config.cluster_secret, config.via.clone(), connector)?,
            change: Mutex::default(),
            broken: channel::Sender::new(None),
            retiring: AtomicBool::new(false),
        })
    }

    /// Resolves when this node cannot be part of its cell.
    pub(crate) async fn broken(&self) -> Arc<MembersError> {
        let mut broken = self.broken.subscribe();
        let first = broken.wait_for(Option::is_some).await;
        let first = first.expect("self holds the sender");
        Arc::clone(first.as_ref().expect("waited for it"))
    }

    fn give_up(&self, error: MembersError) {
        let error = Arc::new(error);
        self.broken.send_if_modified(|first| {
            let unset = first.is_none();
            if unset {
                *first = Some(error);
            }
            unset
        });
    }
}

impl Primary {
    /// Begins the cell, finds it or joins it. Whatever needs others goes on in the background.
    pub(crate) async fn enter_the_cell(self: &Arc<Self>) -> Result<(), PrimaryError> {
        if !self.consensus.is_initialized().await? {
            self.remember_joining()?;
            if self.alone() {
                self.consensus.initialize(vec![self.this_member()]).await?;
            }
        }
        let primary = Arc::clone(self);
        self.keep(tokio::spawn(async move {
            let entered = match &primary.config.join {
                Some(join) => primary.join(join).await,
                None => primary.bootstrap().await,
            };
            match entered {
                Ok(()) => primary.watch_for_removal().await,
                Err(error) => primary.members.give_up(error),
            }
        }));
        Ok(())
    }

    /// A directory that was made to join must never begin a cell of its own, whatever a later start says: the
    /// other cell may know it by now.
    fn remember_joining(&self) -> Result<(), PrimaryError> {
        let path = self.config.directory.join(JOINING_FILE);
        if self.config.join.is_some() {
            return files::replace(&path, JOINING_TEXT).map_err(PrimaryError::Joining);
        }
        if path.try_exists().map_err(PrimaryError::Joining)? {
            let error = MembersError::JoinForgotten {
                directory: self.config.directory.clone(),
            };
            return Err(PrimaryError::Members(Arc::new(error)));
        }
        Ok(())
    }

    /// Whether the cell begins with this node alone.
    fn alone(&self) -> bool {
        let others = |voter: &crate::Voter| voter.node != self.config.node;
        self.config.join.is_none() && !self.config.voters.iter().any(others)
    }

    fn this_member(&self) -> (tidemark_protocol::NodeId, Member) {
        let PrimaryConfig {
            node,
            incarnation,
            advertise,
            ..
        } = &self.config;
        let member = Member {
            address: advertise.trim_end_matches('/').to_owned(),
            incarnation: *incarnation,
        };
        (*node, member)
    }

    /// The first voters as the configuration lists them, in one form and order.
    fn first_voters(&self) -> Vec<CellVoter> {
        let voters = self.config.voters.iter().map(|voter| CellVoter {
            node: voter.node,
            url: voter.url.trim_end_matches('/').to_owned(),
        });
        let mut voters: Vec<_> = voters.collect();
        voters.sort_unstable();
        voters
    }
}
