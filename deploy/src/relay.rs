//! A TCP relay that behaves like a long way: delay, jitter, bandwidth, damage, and cuts that can be healed.
//!
//! 1. A connection is accepted, and one to the target is made in its stead.
//! 2. Each direction is a [`pipe`](crate::pipe): chunks are stamped with their time of arrival as they
//!    come in and written when it has come, in order.
//! 3. The three-way handshake costs its round trip too: the first bytes leave one round trip after
//!    the connection was accepted.
//!
//! A cut loses nothing, as a cut wire under TCP loses nothing: bytes wait, and so do the ends of
//! connections and new connections, until it is healed or somebody's deadline passes.
//!
//! Trap: the side that connects sees an accepted connection even when the target refuses one; it
//! learns of the refusal by the connection's end.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::link::{Direction, Lane, Link};
use crate::pipe::pipe;
use crate::target::Target;

/// Most connections at a time. More wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;

/// A running relay. Dropping it closes its connections and its listener.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    target: Target,
    to_target: Lane,
    from_target: Lane,
    connections: AtomicU64,
    bytes_to_target: AtomicU64,
    bytes_from_target: AtomicU64,
}

/// What went through a relay since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Connections accepted.
    pub connections: u64,
    /// Bytes delivered to the target.
    pub bytes_to_target: u64,
    /// Bytes delivered back.
    pub bytes_from_target: u64,
}

impl Relay {
    /// Listens on `listen` (port 0: any) and passes everything on to `target` over `link`. `seed`
    /// makes the jitter repeatable.
    pub async fn start(
        listen: SocketAddr,
        target: impl Into<Target>,
        link: Link,
        seed: u64,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: target.into(),
            to_target: Lane::new(link, seed),
            from_target: Lane::new(link, !seed),
            connections: AtomicU64::new(0),
            bytes_to_target: AtomicU64::new(0),
            bytes_from_target: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let accepting = accept(listener, Arc::clone(&shared));
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Ok(Self {
            address,
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the way is like now.
    pub fn link(&self) -> Link {
        self.shared.to_target.link()
    }

    /// Changes what the way is like, for bytes that are sent from now on.
    pub fn set_link(&self, link: Link) {
        self.shared.to_target.set_link(link);
        self.shared.from_target.set_link(link);
    }

    /// Lets no byte through in this direction until it is healed.
    pub fn cut(&self, direction: Direction) {
        self.shared.lane(direction).set_cut(true);
    }

    /// Lets bytes through again, those that waited first.
    pub fn heal(&self, direction: Direction) {
        self.shared.lane(direction).set_cut(false);
    }

    /// Cuts both directions.
    pub fn cut_both(&self) {
        self.cut(Direction::ToTarget);
        self.cut(Direction::FromTarget);
    }

    /// Heals both directions.
    pub fn heal_both(&self) {
        self.heal(Direction::ToTarget);
        self.heal(Direction::FromTarget);
    }

    /// From now on one byte in so many, on average, arrives as another in this direction. `None`: none does.
    pub fn damage(&self, direction: Direction, every: Option<NonZeroU64>) {
        self.shared.lane(direction).damage().set_every(every);
    }

    /// How many bytes arrived as others in this direction.
    pub fn damaged(&self, direction: Direction) -> u64 {
        self.shared.lane(direction).damage().count()
    }

    /// Whether no byte gets through in this direction.
    pub fn is_cut(&self, direction: Direction) -> bool {
        *self.shared.lane(direction).cut().borrow()
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        let Shared {
            connections,
            bytes_to_target,
            bytes_from_target,
            ..
        } = &*self.shared;
        Traffic {
            connections: connections.load(Ordering::Relaxed),
            bytes_to_target: bytes_to_target.load(Ordering::Relaxed),
            bytes_from_target: bytes_from_target.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::ToTarget => &self.to_target,
            Direction::FromTarget => &self.from_target,
        }
    }
}

/// Accepts until it is dropped; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((from, peer)) => {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    if let Err(error) = carry(from, &shared).await {
                        tracing::debug!(%peer, target = %shared.target, %error, "connection broke");
                    }
                    drop(permit);
                });
            }
            // Such as too many open files: a pause lets some be closed.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection, from beginning to end.
async fn carry(mut from: TcpStream, shared: &Shared) -> io::Result<()> {
    let established = Instant::now() + 2 * shared.to_target.link().delay;
    from.set_nodelay(true)?;
    // A handshake needs both directions.
    for lane in [&shared.to_target, &shared.from_target] {
        let _ = lane.cut().wait_for(|cut| !cut).await;
    }
    let mut to = shared.target.connect().await?;
    to.set_nodelay(true)?;
    let (from_read, from_write) = from.split();
    let (to_read, to_write) = to.split();
    let there = pipe(
        from_read,
        to_write,
        &shared.to_target,
        established,
        &shared.bytes_to_target,
    );
    let back = pipe(
        to_read,
        from_write,
        &shared.from_target,
        established,
        &shared.bytes_from_target,
    );
    tokio::try_join!(there, back).map(|_| ())
}

#[cfg(test)]
mod tests;
