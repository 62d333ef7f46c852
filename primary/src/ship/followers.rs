//! The replicas that are connected, and what each has yet to be told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tidemark_protocol::node::{DatabaseReplica, ReplicaStatus};
use tidemark_protocol::{DatabaseId, NodeId, Position, Region};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Sent transactions whose confirmation is awaited, per replica, for the account of its lag. Beyond
/// this the count stays right and only the age is of a later one.
const UNCONFIRMED_MAX: usize = 65_536;

/// All connected replicas.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    connected: Mutex<Vec<Weak<Follower>>>,
}

/// One connected replica.
#[derive(Debug)]
pub(crate) struct Follower {
    node: NodeId,
    region: Region,
    /// Where it says that it is reached.
    url: Option<String>,
    news: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    followed: HashSet<DatabaseId>,
    /// Databases with something new for this replica.
    fresh: HashSet<DatabaseId>,
    dropped: Vec<DatabaseId>,
    unconfirmed: HashMap<DatabaseId, VecDeque<(Position, Instant)>>,
    unconfirmed_count: usize,
    /// What its readers see, as it said.
    applied: HashMap<DatabaseId, Position>,
    /// Of the newest message that it answered.
    round_trip: Option<Duration>,
}

impl Followers {
    /// Takes in a replica that connected. It stays while its session holds it.
    pub(crate) fn connect(
        &self,
        node: NodeId,
        region: Region,
        url: Option<String>,
    ) -> Arc<Follower> {
        let follower = Arc::new(Follower {
            node,
            region,
            url,
            news: Notify::new(),
            state: Mutex::default(),
        });
        let mut connected = self.lock();
        connected.retain(|known| known.strong_count() > 0);
        connected.push(Arc::downgrade(&follower));
        follower
    }

    /// Something was committed.
    pub(crate) fn committed(&self, database: DatabaseId) {
        for follower in self.all() {
            follower.mark(database);
        }
    }

    /// A database was deleted.
    pub(crate) fn dropped(&self, database: DatabaseId) {
        for follower in self.all() {
            let mut state = follower.lock();
            if state.followed.remove(&database) {
                state.forget(database);
                state.dropped.push(database);
                drop(state);
                follower.news.notify_one();
            }
        }
    }

    /// An account of each.
    pub(crate) fn status(&self) -> Vec<ReplicaStatus> {
        let now = Instant::now();
        self.all()
            .iter()
            .map(|follower| follower.status(now))
            .collect()
    }

    /// An account of each that follows this database, which is at `newest`.
    pub(crate) fn of(&self, database: DatabaseId, newest: Position) -> Vec<DatabaseReplica> {
        let now = Instant::now();
        let all = self.all();
        let of = all
            .iter()
            .filter_map(|follower| follower.of(database, newest, now));
        let mut of: Vec<_> = of.collect();
        of.sort_by(|a, b| (&a.region, a.node).cmp(&(&b.region, b.node)));
        of
    }

    fn all(&self) -> Vec<Arc<Follower>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Follower>>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    /// Resolves when there may be something to send.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// From now on it wants this database, of which it has this.
    pub(crate) fn follow(&self, database: DatabaseId, applied: Option<Position>) {
        let mut state = self.lock();
        state.followed.insert(database);
        match applied {
            Some(position) => state.applied.insert(database, position),
            None => state.applied.remove(&database),
        };
        drop(state);
        self.mark(database);
    }

    /// It wants this database no more.
    pub(crate) fn unfollow(&self, database: DatabaseId) {
        let mut state = self.lock();
        state.followed.remove(&database);
        state.forget(database);
    }

    /// Takes the databases with news, and those that were deleted.
    pub(crate) fn take_news(&self) -> (HashSet<DatabaseId>, Vec<DatabaseId>) {
        let mut state = self.lock();
        (
            std::mem::take(&mut state.fresh),
            std::mem::take(&mut state.dropped),
        )
    }

    /// The databases with news.
    pub(crate) fn fresh(&self) -> Vec<DatabaseId> {
        self.lock().fresh.iter().copied().collect()
    }

    /// Marks a database as having news.
    pub(crate) fn mark(&self, database: DatabaseId) {
        let mut state = self.lock();
        if state.followed.contains(&database) && state.fresh.insert(database) {
            drop(state);
            self.news.notify_one();
        }
    }

    /// A transaction went out.
    pub(crate) fn sent(&self, database: DatabaseId, position: Position) {
        let mut state = self.lock();
        if state.unconfirmed_count < UNCONFIRMED_MAX {
            state.unconfirmed_count += 1;
            let queue = state.unconfirmed.entry(database).or_default();
            queue.push_back((position, Instant::now()));
        }
    }

    /// Its readers see this state.
    pub(crate) fn confirmed(&self, database: DatabaseId, position: Position) {
        let mut state = self.lock();
        if !state.followed.contains(&database) {
            return;
        }
        state.applied.insert(database, position);
        let Some(queue) = state.unconfirmed.get_mut(&database) else {
            return;
        };
        let before = queue.len();
        let mut newest = None;
        while queue
            .front()
            .is_some_and(|(sent, _)| position.reached(sent))
        {
            newest = queue.pop_front().map(|(_, since)| since);
        }
        let confirmed = before - queue.len();
        if queue.is_empty() {
            state.unconfirmed.remove(&database);
        }
        state.unconfirmed_count -= confirmed;
        if let Some(since) = newest {
            state.round_trip = Some(since.elapsed());
        }
    }

    /// It echoed a heartbeat that was sent this long ago.
    pub(crate) fn echoed(&self, round_trip: Duration) {
        self.lock().round_trip = Some(round_trip);
    }

    fn of(&self, database: DatabaseId, newest: Position, now: Instant) -> Option<DatabaseReplica> {
        let state = self.lock();
        if !state.followed.contains(&database) {
            return None;
        }
        let applied = state.applied.get(&database).copied();
        // Of an earlier epoch, its number says nothing of how much is lacking.
        let from = applied.filter(|at| at.epoch == newest.epoch);
        let from = from.map_or(0, |at| at.seq.0);
        let queue = state.unconfirmed.get(&database);
        let oldest = queue.and_then(|queue| queue.front());
        let lag = oldest.map_or(0, |(_, since)| {
            now.saturating_duration_since(*since).as_millis()
        });
        Some(DatabaseReplica {
            node: self.node,
            region: self.region.clone(),
            url: self.url.clone(),
            applied,
            behind: newest.seq.0.saturating_sub(from),
            lag_ms: u64::try_from(lag).unwrap_or(u64::MAX),
        })
    }

    fn status(&self, now: Instant) -> ReplicaStatus {
        let state = self.lock();
        let oldest = state
            .unconfirmed
            .values()
            .filter_map(|queue| queue.front())
            .map(|e| e.1)
            .min();
        let lag = oldest.map_or(0, |since| now.saturating_duration_since(since).as_millis());
        ReplicaStatus {
            node: self.node,
            region: self.region.clone(),
            databases: state.followed.len() as u64,
            behind: state.unconfirmed_count as u64,
            confirm_lag_ms: u64::try_from(lag).unwrap_or(u64::MAX),
            url: self.url.clone(),
            round_trip_us: state
                .round_trip
                .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, database: DatabaseId) {
        self.fresh.remove(&database);
        self.applied.remove(&database);
        let forgotten = self
            .unconfirmed
            .remove(&database)
            .map_or(0, |queue| queue.len());
        self.unconfirmed_count -= forgotten;
    }
}
